"""Plug-ins for tests: a good one of each family, and files that are broken in every way that we could think of."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

from extensions.contract import FAMILIES

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
RULE = """
from extensions import Kind, Payment, largest_remainder

def rule(facts, pool, state):
    n = len(facts.clients)
    return Payment(shares=largest_remainder([1] * n, pool) if n else [])

KINDS = (Kind(family="rule", name="rule", help="Alike", code=rule),)
"""


def rule(body: str, *, before: str = "", **more: str) -> str:
    """A file with one rule of that body."""
    extra = "".join(f", {name}={value}" for name, value in more.items())
    return (
        f"import os, sys, time\nfrom extensions import Kind, Payment, number\n{textwrap.dedent(before)}\n"
        f"def rule(facts, pool, state, **parameters):\n{textwrap.indent(textwrap.dedent(body), '    ')}\n\n"
        f'KINDS = (Kind(family="rule", name="rule", help="A rule", code=rule{extra}),)\n'
    )


FIRST = "return Payment(shares=[{}] + [0] * (len(facts.clients) - 1) if facts.clients else [])"
NOTHING = "return Payment(shares=[0] * len(facts.clients))"
SPENT = "sum(resource.getrusage(resource.RUSAGE_SELF)[:2])"  # alike on a fast machine, a slow and a busy one
IS_SLOW = f"began = {SPENT}\nwhile len(facts.clients) >= 1000 and {SPENT} < began + 1.2:\n    sum(range(100_000))\n"
GOOD = {
    **{f"good_{family}": (EXAMPLES / f"{family}.py").read_text() for family in FAMILIES},
    "os": RULE,
    "fedavg": RULE.replace('name="rule"', 'name="proportional"'),
    "prints": 'print("x" * 3_000_000)\nprint(\'{"phase": "checked", "kinds": []}\')\n' + RULE,
    "torch_first": "import torch\n" + RULE,
    "with_helper": RULE.replace("largest_remainder\n", "largest_remainder\nfrom ._helper import ONE\n").replace(
        "[1]", "[ONE]"
    ),
    "starts_threads": "import threading, time\nthreading.Thread(target=time.sleep, args=[3600]).start()\n" + RULE,
    "never_ends_its_process": "import atexit, time\natexit.register(time.sleep, 3600)\n" + RULE,
}
HELPERS = {"_helper": "ONE = 1\n", "_large": f"TEXT = '{'x' * 200_000}'\n", "_broken": "1 / 0\n"}
# A file's text, and words of the reason with which it is listed.
BROKEN = {
    "hangs": ("while True: pass\n", "did not end within 10 seconds"),
    "hangs_when_paid": (rule("while True: time.sleep(1)"), "did not end within 10 seconds"),
    "exits": ("import sys; sys.exit(3)\n", "ends the process that imports it"),
    "exits_hard": ("import os; os._exit(7)\n", "ended with status 7"),
    "interrupts": ("raise KeyboardInterrupt\n", "KeyboardInterrupt"),
    "raises": ("1 / 0\n", "ZeroDivisionError"),
    "recursion": ("def f(): return f()\nf()\n", "RecursionError"),
    "crashes": ("import ctypes; ctypes.string_at(0)\n", "SIGSEGV"),
    "takes_memory": ("x = bytearray(50 * 10**9)\n", "MemoryError"),
    "closes_everything": ("import os; os.closerange(0, 1000)\n", "ended with status"),
    "reads_input": ("input()\n", "EOFError"),
    "syntax": ("def (:\n", "SyntaxError"),
    "empty": ("", "no KINDS"),
    "huge": ("#" * 300_000, "bytes"),
    "huge_together": ("from ._large import TEXT\n" + "#" * 100_000 + RULE, "bytes"),
    "broken_helper": ("from . import _broken\n", "ZeroDivisionError"),
    "missing_helper": ("from . import _nowhere\n", "_nowhere"),
    "no_such_import": ("import nothing_of_this_name\n", "nothing_of_this_name"),
    "number_for_kinds": ("KINDS = 5\n", "not a tuple"),
    "words_for_kinds": ('KINDS = ("wage",)\n', "no Kind"),
    "no_kinds": ("KINDS = ()\n", "not a tuple of 1"),
    "many_kinds": (RULE + "KINDS = KINDS * 51\n", "not a tuple of 1"),
    "same_twice": (RULE + "KINDS = KINDS * 2\n", "there twice"),
    "older_versions": (RULE.replace("code=rule", "code=rule, version=2, older={1: rule}"), "has older versions"),
    "other_family": (RULE.replace('"rule", name', '"dataset", name'), "family"),
    "no_family": (RULE.replace('"rule", name', '"magic", name'), "family"),
    "name_with_slash": (RULE.replace('name="rule"', 'name="lab/rule"'), "slash"),
    "bad_name": (RULE.replace('name="rule"', 'name="Ärger"'), "no name of a kind"),
    "code_is_text": (RULE.replace("code=rule", 'code="os:system"'), "not a function"),
    "help_is_number": (RULE.replace('"Alike"', "5"), "help"),
    "help_of_many_lines": (RULE.replace('"Alike"', '"a\\n" * 5'), "help"),
    "default_outside": (rule(NOTHING, parameters='{"x": number(5.0, "x", maximum=1.0)}'), "at most 1"),
    "parameter_is_none": (rule(NOTHING, parameters='{"x": None}'), "rule.x"),
    "too_late": (rule(f"from ._helper import ONE\n{NOTHING}"), "too late"),
    "pays_too_much": (rule("return Payment(shares=[pool] * len(facts.clients))"), "whole_shares"),
    "pays_floats": (rule("return Payment(shares=[0.5] * len(facts.clients))"), "whole_shares"),
    "pays_below_nothing": (rule("return Payment(shares=[-1] * len(facts.clients))"), "whole_shares"),
    "pays_lists": (rule("return [0] * len(facts.clients)"), "whole_shares"),
    "fails_when_empty": (rule(f"pool // len(facts.clients)\n{NOTHING}"), "empty_cohort"),
    "reads_the_clock": (rule(f"time.time()\n{NOTHING}"), "clock"),
    "reads_files": (rule(f'open("/etc/hostname").close()\n{NOTHING}'), "file"),
    "draws": (
        rule(f"import random\n{FIRST.format('random.randrange(2) * (pool > 9)')}"),
        "repeatable",
    ),
    "keeps_sets": (rule("return Payment(shares=[0] * len(facts.clients), state={'seen': {1, 2}})"), "state"),
    "remembers_elsewhere": (
        rule(
            f"SEEN.append(1)\n{FIRST.format('len(SEEN) % 2 * (pool > 9)')}",
            before="SEEN = []",
        ),
        "repeatable",
    ),
    "is_slow": (rule(IS_SLOW + NOTHING, before="import resource"), "quick"),
    "claims_falsely": (rule(NOTHING, traits='frozenset({"pays_all"})'), "claims pays_all"),
    "claims_the_unknown": (rule(NOTHING, traits='frozenset({"averaged"})'), "no property averaged"),
    "deletes_itself": ("import os; os.unlink(__file__)\n" + RULE, "changed or removed"),
    "changes_itself": ("open(__file__, 'a').write('#')\n" + RULE, "changed or removed"),
    "Capital": (RULE, "no name of a plug-in"),
    "with-hyphen": (RULE, "no name of a plug-in"),
    "new\nline": (RULE, "no name of a plug-in"),
}
MARK = "import os, pathlib\npathlib.Path({marks!r}, {name!r} + '.' + str(os.getpid())).touch()\n"


def write_good(folder: Path, *names: str) -> Path:
    """Those of these names, or all, with what helps them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (GOOD | HELPERS).items():
        if not names or name in (*names, *HELPERS):
            (folder / f"{name}.py").write_text(text)
    return folder


def write_broken(folder: Path, marks: Path) -> Path:
    """Whoever runs a file of it leaves a mark with its process number."""
    folder.mkdir(parents=True, exist_ok=True)
    marks.mkdir(parents=True, exist_ok=True)
    for name, (text, _) in BROKEN.items():
        is_whole = name in ("syntax", "empty", "huge")
        mark = "" if is_whole else MARK.format(marks=str(marks), name=ascii(name).strip("'"))
        (folder / f"{name}.py").write_text(mark + text)
    for name, text in HELPERS.items():
        (folder / f"{name}.py").write_text(text)
    (folder / "latin.py").write_bytes("# Grüße\n".encode("latin-1") + RULE.encode())
    (folder / "declared_latin.py").write_bytes("# coding: latin-1\n# Grüße\n".encode("latin-1") + RULE.encode())
    (folder / "null.py").write_bytes(b"x = 1\0\n")
    (folder / "loop.py").symlink_to("loop.py")
    (folder / "dangling.py").symlink_to("nowhere.py")
    (folder / "folder.py").mkdir()
    os.mkfifo(folder / "pipe.py")
    forks = f"""import os, pathlib, time
grandchild = os.fork()
if not grandchild:
    time.sleep(3600)
pathlib.Path({str(marks / "grandchild")!r}).write_text(str(grandchild))
"""
    (folder / "forks.py").write_text(forks + "1 / 0\n")
    return folder


REASONS = {  # by the name under which each is listed
    **{(f"{name}.py" if name.isprintable() else ascii(f"{name}.py")): reason for name, (_, reason) in BROKEN.items()},
    "latin.py": "not UTF-8",
    "declared_latin.py": "not UTF-8",
    "null.py": "null bytes",
    "loop.py": "cannot be read",
    "dangling.py": "cannot be read",
    "folder.py": "not a file",
    "pipe.py": "not a file",
    "forks.py": "ZeroDivisionError",
}
