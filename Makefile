# `make` lists what there is. Works with GNU make 3.81 (macOS) and later. Needs Python 3.11 to 3.13, nothing else.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run test chaos venv check format map css clean FORCE

PORT ?= 8000
PYTHON ?=
SCHEDULES ?= 20000
KILLS ?= 60
SEED ?=
# One more than there are processors: many tests wait for processes that they have started.
TESTS_AT_ONCE ?= $(shell expr $$(getconf _NPROCESSORS_ONLN 2> /dev/null || echo 1) + 1)
CANDIDATES = $(or $(PYTHON),python3.13 python3.12 python3.11 python3)
BIN := .venv/bin

help: ## list these targets
	@echo "Usage: make TARGET [PORT=8000] [PYTHON=python3.12]"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)$$/  \1	\2/p' Makefile

run: .venv/.installed .env ## the site with its worker on http://127.0.0.1:8000, dependencies and database first
	@$(BIN)/python manage.py migrate --verbosity 0
	@echo "fedsite is on http://127.0.0.1:$(PORT)  (Ctrl-C stops it)"
	@exec $(BIN)/python -m daphne --bind 127.0.0.1 --port $(PORT) fedsite.asgi:application

# Everything on SQLite, then what is marked `database` on PostgreSQL. The last line says what the machine lacks.
test: .venv/.installed-dev ## every test, TESTS_AT_ONCE=3 at a time (or one more than processors), dependencies first
	@trap 'exit 130' INT; unset DATABASE_URL; status=0; \
	$(BIN)/python -m pytest -n $(TESTS_AT_ONCE) --dist worksteal || status=$$?; \
	echo "Once more on PostgreSQL: the tests marked database"; \
	$(BIN)/python -m fedsite.tests.with_postgres $(BIN)/python -m pytest -n $(TESTS_AT_ONCE) --dist worksteal -m database || status=$$?; \
	$(BIN)/python -m fedsite.tests.machine || status=$$?; \
	exit $$status

chaos: .venv/.installed-dev ## more faults than the tests have: SCHEDULES=20000 of them from a SEED, and KILLS=60 of real workers
	@seed=$(SEED); : $${seed:=$$RANDOM}; echo "SEED=$$seed"; unset DATABASE_URL; status=0; \
	$(BIN)/python -W ignore -m simulations.tests.schedules $$((seed * 100000)) $(SCHEDULES) || status=$$?; \
	export FEDSITE_TEST_SEED=$$seed FEDSITE_TEST_KILLS=$(KILLS); \
	$(BIN)/python -m pytest simulations/tests/test_workers.py || status=$$?; \
	$(BIN)/python -m fedsite.tests.with_postgres $(BIN)/python -m pytest -m database simulations/tests/test_workers.py \
	|| status=$$?; exit $$status

venv: .venv/.made ## only the virtual environment, empty, in .venv

check: .venv/.installed-dev ## formatting, lint, types, known holes in dependencies
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/python -m fedsite.tests.audit

format: .venv/.installed-dev ## bring the code into its form
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

map: ## every module with its first line: what lies where
	@python3 -m fedsite.map

css: ## rebuild static/css/app.css after a change of templates (needs Node; the result is committed)
	@cd fedsite/theme/static_src && npm ci --no-audit --no-fund && npm run build

clean: ## remove .venv, caches and node_modules; database, data, checkpoints and .env stay
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis staticfiles fedsite/theme/static_src/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.env: | .venv/.made
	@echo "Writing .env with DEBUG=1 and a random SECRET_KEY"
	@umask 077; $(BIN)/python -c 'import secrets; print(f"DEBUG=1\nSECRET_KEY={secrets.token_urlsafe(50)}")' > .env

# The stamps are touched only after success, so a broken installation is tried again and a good one costs nothing.

.venv/.installed: requirements.txt .venv/.made
	@echo "Installing what fedsite needs. PyTorch is the bulk (on Linux about 6 GB with its CUDA libraries; README.md"
	@echo "tells how to do with less): this takes some minutes, once."
	@$(call install,requirements.txt)
	@touch $@

.venv/.installed-dev: requirements-dev.txt .venv/.installed
	@echo "Installing what the tests need (about 0.3 GB)"
	@$(call install,requirements-dev.txt)
	@touch $@

# pip, but only its larger downloads and its errors.
define install
set -o pipefail; PYTHONUNBUFFERED=1 $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -r $(1) \
| while IFS= read -r line; do case "$$line" in \
*Downloading*[0-9][0-9].[0-9]" MB)"*|*Downloading*" GB)"*|*"Using cached"*[0-9][0-9].[0-9]" MB)"*) echo "$$line";; \
"Installing collected packages"*) echo "  Unpacking, without a word for a minute or two";; esac; done
endef

# A .venv whose Python has gone (removed, or upgraded away) is made anew.
ifneq ($(shell test -x $(BIN)/python || echo gone),)
.venv/.made: FORCE
endif

# A shim that is on the PATH but does not run, or runs another version, does not count. Where Debian left ensurepip out,
# pip installs itself into the environment.
.venv/.made:
	@python=; \
	for candidate in $(CANDIDATES); do \
		if "$$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2> /dev/null; \
		then python="$$candidate"; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
		echo "fedsite needs Python 3.11, 3.12 or 3.13 and found none as: $(CANDIDATES)" >&2; \
		echo "Install one, or name it: make run PYTHON=/path/to/python3.12" >&2; exit 1; \
	fi; \
	if ! "$$python" -c 'import platform as p, sys; sys.exit((p.system(), p.machine()) == ("Darwin", "x86_64"))'; then \
		echo "PyTorch has had no builds for macOS on Intel since 2.2, and fedsite needs 2.14: it does not run here." >&2; \
		echo "Use Linux, or Docker (README.md). On Apple silicon take a Python for arm64: make run PYTHON=..." >&2; exit 1; \
	fi; \
	case "$$PWD" in /mnt/[a-z]/*) if grep -qi microsoft /proc/version 2> /dev/null; then \
		echo "This folder lies on a Windows drive: slow, and no safe place for SQLite. Clone into Linux' own, ~/fedsite." >&2; \
	fi;; esac; \
	echo "Making .venv with $$("$$python" --version)"; \
	rm -rf .venv; \
	if "$$python" -c 'import ensurepip' 2> /dev/null; then "$$python" -m venv .venv; \
	elif "$$python" -m pip --version > /dev/null 2>&1; then \
		"$$python" -m venv --without-pip .venv && "$$python" -m pip --python .venv/bin/python install --quiet pip; \
	else echo "$$python has no pip; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; fi
	@touch $@
