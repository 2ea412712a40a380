"""What lies where: `make map` prints every module with its first line. Stdlib only; nothing is imported."""

import ast
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
ROOMS = ("kinds", "training", "incentives", "extensions", "people", "simulations", "fedsite", "benchmarks")
LEFT_OUT = {"tests", "migrations", "node_modules", "__pycache__"}


def modules(rooms: Sequence[str] = ROOMS) -> Iterator[tuple[str, str]]:
    """(path, first line of its docstring) of every module, tests and migrations left out."""
    for room in rooms:
        for path in sorted((PROJECT / room).rglob("*.py")):
            inner = path.relative_to(PROJECT)
            text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            is_empty = path.name in ("__init__.py", "apps.py") and not text
            if not LEFT_OUT & set(inner.parts) and not is_empty:
                yield str(inner), text.split("\n", 1)[0]


if __name__ == "__main__":
    found = [*modules([room.strip("/") for room in sys.argv[1:]] or ROOMS)]
    width = max((len(path) for path, _ in found), default=0)
    print("\n".join(f"{path:<{width}}  {text}" for path, text in found))
