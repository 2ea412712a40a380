"""What README.md says is true: fields, presets, settings, commands, requests, paths and links."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from django.core.management import load_command_class
from django.core.management.base import BaseCommand

import kinds
from fedsite.map import ROOMS, modules
from fedsite.tests import servers
from fedsite.tests.machine import PROJECT
from people import tokens
from simulations.config import CHOICES, FIELDS, SimulationConfig
from simulations.presets import PRESETS
from simulations.running import lifecycle
from simulations.showing import typed
from simulations.showing.metrics import SiteCollector

README = (PROJECT / "README.md").read_text()
DOCUMENTS = ("README.md", "DESIGN.md", "docs/plugins.md", "docs/payments.md")
FENCED = re.findall(r"^```\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
LINES = [line for block in FENCED for line in block.splitlines()]
COMMANDS = [line for line in LINES if line.startswith("python manage.py")]
REQUESTS = [line for line in LINES if line.startswith("curl") and "$TOKEN" not in line]
REQUESTS_WITH_TOKEN = [line for line in LINES if line.startswith("curl") and "$TOKEN" in line]
SITES = ("http://127.0.0.1:8000/", "https://fed.example.org/")
APPS = {
    "estimate": "simulations",
    "audit_simulation": "simulations",
    "make_token": "people",
    "prune": "simulations",
    "recompute": "simulations",
    "reprice": "simulations",
    "run_simulation": "simulations",
    "runworker": "simulations",
    "verify_ledger": "simulations",
    "export_ledger": "incentives",
    "plugins": "extensions",
    "check_plugins": "extensions",
    "new_plugin": "extensions",
    "collectstatic": "django.contrib.staticfiles",
    "createsuperuser": "django.contrib.auth",
    "migrate": "django.core",
}
SETTINGS = (
    *("DATABASE_URL", "REDIS_URL", "SECRET_KEY", "DEBUG", "ALLOWED_HOSTS", "CORS_ALLOWED_ORIGINS"),
    *("FEDSITE_DATA_DIR", "FEDSITE_CHECKPOINT_DIR", "FEDSITE_PLUGINS_DIR", "FEDSITE_ACCESS"),
    *("FEDSITE_MAX_CONCURRENT", "FEDSITE_MAX_QUEUED"),
)


def table(*rows: tuple[str, ...]) -> str:
    """A Markdown table; the first row is its head."""
    head, *body = rows
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ("---",) * len(head), *body))


def fields_table() -> str:
    return table(("field", "default", "values", "meaning"), *(field_row(name) for name in FIELDS))


def field_row(name: str) -> tuple[str, ...]:
    metadata = FIELDS[name].metadata
    parameter = metadata["parameter"]
    names = list(kinds.family(CHOICES[name])) if name in CHOICES else parameter.choices if parameter else ()
    values = ", ".join(f"`{each}`" for each in names) or (parameter.bounds_text if parameter else "")
    return f"`{name}`", default_of(name), values, metadata["help"]


def default_of(name: str) -> str:
    if name in typed.LINES:
        return "`{}`" if name == "behaviours" else "`[]`"
    if FIELDS[name].default is None:
        return "by the data set" if name == "validation_size" else "empty"
    return f"`{FIELDS[name].default}`"


def presets_table() -> str:
    rows = [
        (f"`{name}`", preset.label, preset.help, f"`{json.dumps(preset.values)}`") for name, preset in PRESETS.items()
    ]
    return table(("preset", "label", "what it shows", "fields that it sets"), *rows)


def kinds_table() -> str:
    rows = [
        (family, f"`{kind.name}`", kind.help, "; ".join(parameter(*named) for named in kind.parameters.items()))
        for family in kinds.FAMILIES
        for kind in kinds.family(family).values()
    ]
    return table(("family", "kind", "what it does", "parameters"), *rows)


def parameter(name: str, takes: kinds.Parameter) -> str:
    words = takes.default if takes.choices else takes.default in (None, ()) and "empty"
    bounds = ", ".join(takes.choices) or takes.bounds_text
    return f"`{name}` ({'; '.join(filter(None, (words or f'{takes.default:g}', bounds)))}): {takes.help}"


def metrics_table() -> str:
    """The site's own metrics, as an empty database shows them."""
    families = sorted(SiteCollector().collect(), key=lambda family: family.name)
    rows = [
        (f"`{family.name}{'_total' if family.type == 'counter' else ''}`", family.documentation) for family in families
    ]
    return table(("metric", "what it tells"), *rows)


@pytest.mark.django_db
@pytest.mark.parametrize("expected", [fields_table, presets_table, kinds_table, metrics_table])
def test_it_lists_every_choice(expected: Callable[[], str]) -> None:
    assert expected() in README, f"README.md lacks this table:\n\n{expected()}\n"


@pytest.mark.parametrize("preset", PRESETS)
def test_it_offers_presets_that_work(preset: str) -> None:
    assert SimulationConfig.from_dict(PRESETS[preset].values)


@pytest.mark.parametrize("line", COMMANDS)
def test_it_shows_commands_that_parse(line: str) -> None:
    name, *arguments = shlex.split(line.partition(" > ")[0])[2:]
    command: BaseCommand = load_command_class(APPS[name], name)
    command._called_from_command_line = True
    parser = command.create_parser("manage.py", name)
    parser.parse_args(arguments)
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(["--help"])
    assert ended.value.code == 0


def test_it_shows_every_command_of_ours() -> None:
    shown = {shlex.split(line)[2] for line in COMMANDS}
    ours = {path.stem for path in PROJECT.glob("*/management/commands/[a-z]*.py")}
    assert ours <= shown


def test_it_refuses_a_command_that_does_not_parse() -> None:
    with pytest.raises(SystemExit):
        test_it_shows_commands_that_parse("python manage.py verify_ledger --simulations 12")


def documented_settings() -> set[str]:
    section = README.split("\n## Settings\n")[1].split("\n## ")[0]
    return set(re.findall(r"^\| `([A-Z_]+)` \|", section, flags=re.MULTILINE))


def test_it_lists_every_setting() -> None:
    source = (PROJECT / "fedsite" / "settings.py").read_text()
    readers = r"flag|count|names|origins|one_of|folder|size|root_path|environ\.get"
    read = set(re.findall(rf'\b(?:{readers})\(\s*"([A-Z_]+)"', source))
    assert "FEDSITE_MAX_QUEUED" in read
    assert documented_settings() == read | set(SETTINGS)


def request_of(line: str) -> dict[str, Any]:
    """What a curl command of the README sends."""
    request: dict[str, Any] = {"method": "GET", "headers": {}}
    words = iter(shlex.split(line)[1:])
    for word in words:
        if word == "-X":
            request["method"] = next(words)
        elif word == "-H":
            name, _, value = next(words).partition(": ")
            request["headers"][name] = value
        elif word == "-d":
            request["content"] = next(words)
        elif word.startswith(SITES):
            request["url"] = "/" + word.split("/", 3)[3]
        elif word != "-N":
            raise ValueError(f"curl {word}: not known to this test")
    return request


def test_it_shows_requests_that_a_fresh_site_answers(start_server: Callable[..., servers.Server]) -> None:
    """All of them, in the order of the page: it speaks of simulations 1 and 2, which they start."""
    site = start_server()
    with httpx.Client(base_url=site.url, timeout=120) as client:
        for line in REQUESTS:
            answer = client.request(**request_of(line))  # a stream is read to its end
            assert answer.is_success, f"{line}\n{answer.status_code} {answer.text[:500]}"
        assert len(REQUESTS) > 10
        done = client.get("/api/simulations/1/").json()
        assert done["status"] == "completed", done["failure"]
        assert (len(done["rounds"]), len(done["clients"])) == (3, 5)
        assert client.get("/api/openapi.json").status_code == 200
        assert client.get("/api/docs").status_code == 200


@pytest.mark.django_db
def test_it_shows_requests_with_a_token(settings: Any, django_user_model: Any, client: Any) -> None:
    settings.FEDSITE_ACCESS = "login"
    owner = django_user_model.objects.create_user("ada")
    _, secret = tokens.create(owner, name="README", scope="write", expires_at=None)
    first = lifecycle.queue(SimulationConfig.of(), origin="page", owned_by=owner)
    for line in REQUESTS_WITH_TOKEN:
        request = request_of(line.replace("$TOKEN", secret).replace("/1/", f"/{first.pk}/"))
        answer = client.generic(request["method"], request["url"], headers=request["headers"])
        assert answer.status_code == 200, (line, answer.content)
    assert len(REQUESTS_WITH_TOKEN) == 5


def anchors(document: str) -> set[str]:
    """Names of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", (PROJECT / document).read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_it_links_to_what_is_there(document: str) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", (PROJECT / document).read_text())
    local = [link for link in links if not link.startswith("https://")]
    lost = [link for link in local if not resolves(document, link)]
    assert lost == []


def resolves(document: str, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = (PROJECT / document).parent / path if path else PROJECT / document
    if not target.exists():
        return False
    return not anchor or anchor in anchors(str(target.resolve().relative_to(PROJECT)))


def test_every_module_says_in_its_first_line_what_lives_there() -> None:
    silent = [path for path, text in modules() if not text]
    assert silent == []


def test_it_maps_every_room() -> None:
    done = subprocess.run([sys.executable, "-m", "fedsite.map"], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {line.split("/")[0] for line in done.stdout.splitlines()} == set(ROOMS)
    assert all(f"`{room}/`" in README for room in ROOMS)
