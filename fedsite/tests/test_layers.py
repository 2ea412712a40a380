"""The walls between the rooms: who may import whom, and what a web process never loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fedsite.tests.machine import PROJECT

ROOMS = ("kinds", "training", "incentives", "extensions", "people", "simulations", "fedsite", "benchmarks")
HEAVY = ("torch", "torchvision", "sklearn", "ray")
STDLIB = frozenset(sys.stdlib_module_names)
NUMERIC = frozenset({"numpy", "torch", "torchvision", "sklearn"})


@dataclass(frozen=True, kw_only=True)
class Wall:
    """What the modules that `files` names may import, by full name."""

    files: tuple[str, ...]  # glob patterns from the project's root; tests are never meant
    allows: Callable[[str], bool]
    says: str


def without(*names: str) -> Callable[[str], bool]:
    return lambda imported: not any(f"{imported}.".startswith(f"{name}.") for name in names)


def only(*names: str) -> Callable[[str], bool]:
    allowed = STDLIB | frozenset(names)
    return lambda imported: imported.split(".")[0] in allowed


WALLS = (
    Wall(
        files=("kinds/**/*.py",),
        allows=only("kinds"),
        says="the ground floor: stdlib only",
    ),
    Wall(
        files=(
            *("training/config.py", "training/catalogue.py", "training/entropy.py", "training/behaviours.py"),
            *("training/events.py", "training/figures.py"),
        ),
        allows=only("training", "kinds"),
        says="is read without PyTorch: stdlib only",
    ),
    Wall(
        files=("incentives/catalogue.py", "incentives/budgets.py"),
        allows=lambda imported: imported.startswith("incentives.budgets") or only("kinds")(imported),
        says="is read by who serves pages: stdlib only",
    ),
    Wall(
        files=("training/seeds.py", "training/partitions.py", "training/idx.py", "training/labels.py"),
        allows=only("training", "kinds", "numpy"),
        says="splits are drawn without PyTorch: stdlib and numpy only",
    ),
    Wall(
        files=("simulations/config.py", "simulations/presets.py", "simulations/running/events.py"),
        allows=only("kinds", "training", "simulations", "incentives"),
        says="is read without PyTorch and Django: stdlib only",
    ),
    Wall(
        files=("training/**/*.py",),
        allows=only("kinds", "training", *NUMERIC, "ray"),
        says="training knows no Django, no tokens and no sibling",
    ),
    Wall(
        files=("incentives/**/*.py",),
        allows=without(*(room for room in ROOMS if room not in ("kinds", "incentives")), *HEAVY),
        says="incentives imports nothing of ours but kinds, and no PyTorch",
    ),
    Wall(
        files=(
            *("incentives/valuation/**/*.py", "incentives/rewards.py", "incentives/economy.py"),
            *("incentives/pools.py", "incentives/rules.py", "incentives/properties.py"),
        ),
        allows=only("kinds", "incentives", "numpy", "scipy"),
        says="valuations and rewards are pure",
    ),
    Wall(
        files=("incentives/detection.py",),
        allows=only("incentives"),
        says="how well scores tell: stdlib only",
    ),
    Wall(
        files=("extensions/*.py", "extensions/management/**/*.py"),
        allows=without("simulations", "people", "fedsite", "benchmarks", "sklearn", "ray"),
        says="extensions imports kinds, training and incentives only",
    ),
    Wall(
        files=(
            *("extensions/environment.py", "extensions/sources.py", "extensions/discovery.py"),
            *("extensions/descriptions.py", "extensions/importing.py", "extensions/__init__.py"),
        ),
        allows=without("django"),
        says="what describes and loads plug-ins knows no Django",
    ),
    Wall(
        files=("extensions/catalogue.py", "extensions/descriptions.py", "extensions/admin.py", "extensions/models.py"),
        allows=without("extensions.importing", "extensions.describe", "extensions.contract.strategy", *HEAVY),
        says="what reads descriptions imports no plug-in",
    ),
    Wall(
        files=("people/**/*.py",),
        allows=without(*(room for room in ROOMS if room != "people"), *HEAVY),
        says="people imports nothing of ours, and no PyTorch",
    ),
    Wall(
        files=("simulations/running/engine.py",),
        allows=without("django", "channels", "ninja"),
        says="the engine knows no Django",
    ),
    Wall(
        files=("simulations/running/**/*.py",),
        allows=without("simulations.showing"),
        says="what runs does not know what shows",
    ),
    Wall(
        files=("simulations/**/*.py",),
        allows=without("people", "fedsite", "benchmarks"),
        says="simulations imports kinds, training, incentives and extensions only",
    ),
    Wall(
        files=tuple(f"{room}/**/*.py" for room in ROOMS if room not in ("fedsite", "benchmarks")),
        allows=without("fedsite"),
        says="nobody imports fedsite",
    ),
)
# Of the pure rooms' own packages, only pure modules may be imported, or Django comes in by the back door.
PURE_IMPORTS = (
    "training.loop",
    "training.datasets",
    "incentives.valuation",
    "incentives.rewards",
    "incentives.pools",
    "incentives.rules",
    "simulations.running.engine",
    "simulations.config",
    "simulations.running.events",
)
LIGHT_IMPORTS = (
    *("kinds", "training.config", "training.events", "training.figures"),
    *("simulations.config", "simulations.running.events"),
)


def imported_names(source: str, module: str) -> Iterator[tuple[int, str]]:
    """(line, full name) of all that a module imports, also within functions; relative names resolved."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".")[: -node.level] if node.level else []
            source = ".".join([*package, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{source}.{alias.name}") for alias in node.names)


def trespasses(root: Path, walls: tuple[Wall, ...] = WALLS) -> list[str]:
    """Every import under `root` that goes through a wall, as 'file:line imports name: reason'."""
    return sorted(
        f"{path.relative_to(root)}:{line} imports {name}: {wall.says}"
        for wall in walls
        for path in {path for pattern in wall.files for path in root.glob(pattern)}
        if "tests" not in path.relative_to(root).parts
        for line, name in imported_names(path.read_text(), dotted(path.relative_to(root)))
        if not wall.allows(name)
    )


def dotted(path: Path) -> str:
    """Name of a module as relative imports count it: a package's __init__ is a step deeper."""
    return ".".join(path.with_suffix("").parts)


def loaded(statements: str, watched: tuple[str, ...]) -> list[str]:
    """Which of the watched packages a fresh Python has loaded after the statements."""
    program = f"{statements}\nimport sys\nprint(*(name for name in {watched!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def imports(*modules: str) -> str:
    return "\n".join(f"import {module}" for module in modules)


WEB = "import django; django.setup()\n" + imports("fedsite.urls", "fedsite.asgi", "simulations.running.worker")
# Tests run on a database of their own, made later than this; the check for it is not what is asked here.
WITHOUT_A_DATA_BASE = "from simulations import database; database.require = lambda: None\n"


def test_it_keeps_the_walls() -> None:
    assert trespasses(PROJECT) == []


def test_it_sees_every_room() -> None:
    """A wall around files that are not there would stand for ever."""
    empty = [pattern for wall in WALLS for pattern in wall.files if not any(PROJECT.glob(pattern))]
    assert empty == []


@pytest.mark.parametrize(
    ("file", "source", "reason"),
    [
        ("kinds/kind.py", "from training.config import TrainingConfig", "ground floor"),
        ("training/config.py", "import numpy", "stdlib only"),
        ("training/loop.py", "from django.db import models", "training knows no Django"),
        (
            "training/backends/fast.py",
            "def run():\n    import incentives.rewards",
            "training knows no Django",
        ),
        (
            "training/deep/er/room.py",
            "from channels.layers import get_channel_layer",
            "training knows no Django",
        ),
        ("simulations/config.py", "import torch", "stdlib only"),
        ("simulations/running/events.py", "from django.db import models", "stdlib only"),
        ("incentives/ledger.py", "from simulations.models import Simulation", "nothing of ours"),
        ("incentives/rewards.py", "from training.config import ConfigError", "nothing of ours but kinds"),
        ("people/tokens.py", "from simulations.models import Simulation", "nothing of ours"),
        ("simulations/showing/views.py", "from people.models import Token", "incentives and extensions only"),
        ("extensions/catalogue.py", "from simulations.models import Simulation", "incentives only"),
        ("extensions/catalogue.py", "def f():\n    import extensions.importing", "imports no plug-in"),
        ("extensions/descriptions.py", "from django.conf import settings", "no Django"),
        ("incentives/valuation/shapley.py", "from django.db import models", "pure"),
        ("incentives/rewards.py", "import django.db", "pure"),
        ("simulations/running/engine.py", "import django", "engine knows no Django"),
        ("simulations/running/worker.py", "from simulations.showing import stream", "what shows"),
        ("simulations/running/worker.py", "from simulations.showing.stream import Frame", "what shows"),
        ("simulations/running/worker.py", "from simulations import showing", "what shows"),
        ("simulations/showing/views.py", "from fedsite import settings", "nobody imports fedsite"),
        ("training/loop.py", "import fedsite.settings as s", "nobody imports fedsite"),
    ],
)
def test_it_sees_an_import_through_a_wall(tmp_path: Path, file: str, source: str, reason: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(source)
    found = trespasses(tmp_path)
    assert any(text.startswith(f"{file}:") and reason in text for text in found), found


@pytest.mark.parametrize(
    ("file", "source"),
    [
        (
            "training/loop.py",
            "import torch\nfrom training.config import TrainingConfig\nfrom . import clients",
        ),
        (
            "training/backends/__init__.py",
            "from .sequential import train\nfrom ..config import TrainingConfig",
        ),
        ("training/tests/test_loop.py", "import django\nimport fedsite"),
        ("simulations/running/engine.py", "import training.loop\nfrom incentives.rewards import split"),
        ("incentives/models.py", "from django.db import models"),
        ("fedsite/urls.py", "import simulations.urls"),
    ],
)
def test_it_lets_neighbours_in(tmp_path: Path, file: str, source: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(source)
    assert trespasses(tmp_path) == []


def test_it_resolves_relative_imports() -> None:
    assert list(imported_names("from .. import config", "training.backends.fast")) == [(1, "training.config")]
    found = list(imported_names("from . import fast", "training.backends.__init__"))
    assert found == [(1, "training.backends.fast")]
    assert list(imported_names("from ...fedsite import urls", "a.b.c")) == [(1, "fedsite.urls")]


def test_it_serves_pages_and_runs_the_worker_without_pytorch() -> None:
    assert loaded(WITHOUT_A_DATA_BASE + WEB, (*HEAVY, "numpy")) == []


def test_it_computes_without_django() -> None:
    assert loaded(imports(*PURE_IMPORTS), ("django", "channels", "ninja", "fedsite")) == []


def test_it_reads_configurations_without_pytorch() -> None:
    assert loaded(imports(*LIGHT_IMPORTS), (*HEAVY, "numpy", "django")) == []


def test_it_splits_data_without_pytorch() -> None:
    assert loaded(imports("training.labels", "training.partitions"), (*HEAVY, "django")) == []


def test_it_loads_nothing_that_a_run_may_not_use() -> None:
    assert loaded(imports("training.loop", "training.datasets"), ("torchvision", "sklearn", "ray")) == []


def test_it_sees_what_a_process_loads() -> None:
    assert loaded("import numpy, json", ("numpy", "json", "torch")) == ["numpy", "json"]
