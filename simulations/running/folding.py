"""Economies computed again from what was kept of a run: facts, evidence and recorded payments, without any training.

The arithmetic is done by a child process, `python -m simulations.running.folding`, since plug-ins and numpy have no
place in a process that serves pages. It reads JSON lines, first a header and then a round each, and answers each round
with a line. `Child` is how others see it.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

from extensions.environment import environment

PROJECT = Path(__file__).resolve().parents[2]


class CannotFold(Exception):
    """What was kept does not hold what is needed, or a kind's code fails; the text is a plain sentence."""


class TookTooLong(CannotFold):
    """The process that computes was ended for it."""


class Child:
    """The process that computes; use it as a context.

    `header`: `specification` (an economy's), `strategy` (the configuration's), `scheme`, `seed`; for plug-ins
    `plugins_dir`, `plugins` and `sources` (the kept files by source hash). `seconds`: after so many of waiting for its
    answers it is ended, and TookTooLong is raised.
    """

    def __init__(self, header: Mapping[str, Any], seconds: float | None = None) -> None:
        self.header, self.most = header, seconds
        self.waited, self.is_late = 0.0, False

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "simulations.running.folding"],
            cwd=PROJECT,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._tell(self.header)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end()
        self.process.communicate()

    def _end(self, is_late: bool = False) -> None:
        """With whatever a plug-in may have started."""
        self.is_late = is_late
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def priced(self, facts: Mapping[str, Any], tables: Sequence[bytes]) -> tuple[dict[str, Any], bytes | None]:
        """What the economy makes of the next round (the fields of Paid), and its evidence. CannotFold."""
        answer = self._ask({"facts": facts, "tables": _text(tables)})
        evidence = answer.pop("evidence")
        return answer["paid"], None if evidence is None else base64.b64decode(evidence)

    def checked(
        self, facts: Mapping[str, Any], tables: Sequence[bytes], state: Mapping[str, Any], paid: Mapping[str, Any]
    ) -> str:
        """What of a recorded payment does not follow, first things first; an empty text where all does. CannotFold."""
        difference: str = self._ask({"facts": facts, "tables": _text(tables), "state": state, "paid": paid})["wrong"]
        return difference

    def _ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        begin, limit = time.monotonic(), None
        if self.most is not None:
            limit = threading.Timer(max(0.0, self.most - self.waited), self._end, (True,))
            limit.daemon = True
            limit.start()
        try:
            self._tell(question)
            assert self.process.stdout is not None
            line = self.process.stdout.readline()
        finally:
            self.waited += time.monotonic() - begin
            if limit:
                limit.cancel()
        if not line:
            self._ended()
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise CannotFold(answer["error"])
        return answer

    def _tell(self, values: Mapping[str, Any]) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(values).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            self._ended()

    def _ended(self) -> NoReturn:
        status = self.process.wait()
        if self.is_late:
            raise TookTooLong(f"computing takes more than {self.most:g} seconds")
        raise CannotFold(f"the process that computes ended with status {status}")


def _text(tables: Sequence[bytes]) -> list[str]:
    return [base64.b64encode(each).decode() for each in tables]


def main() -> None:
    """The child; it ends with its parent."""
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what plug-ins print is no answer
    answers = _answers(json.loads(sys.stdin.readline()))
    next(answers)
    for line in sys.stdin:
        pipe.write(json.dumps(answers.send(json.loads(line))) + "\n")
        pipe.flush()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _answers(header: Mapping[str, Any]) -> Any:
    """A generator that is sent rounds and yields answers."""
    import numpy as np

    import kinds
    import training.catalogue  # noqa: F401  the kinds of strategies
    from extensions import loading
    from incentives import fold
    from incentives.memo import Facts
    from incentives.specification import Specification
    from incentives.valuation.evidence import EvidenceError
    from simulations.config import SimulationConfig
    from training import entropy

    state: Mapping[str, Any] = {}
    economy = strategy = failure = None
    try:
        wanted = {"economy": header["specification"]}
        if header.get("sources"):
            loading.plug_in_kept(wanted, header["sources"])
        else:
            loading.plug_in(wanted, Path(header["plugins_dir"]), header["plugins"])
        versions = SimulationConfig.VERSIONS.get(header["scheme"], {})
        economy = Specification.from_dict(header["specification"], versions)
        strategy = kinds.checked("strategy", header["strategy"], "strategy", recorded=True)
    except Exception as error:
        failure = f"{error}"
    question = yield {}
    while True:
        if failure or economy is None or strategy is None:
            question = yield {"error": failure}
            continue
        try:
            facts = Facts(**{name: tuple(v) if isinstance(v, list) else v for name, v in question["facts"].items()})
            tables = [base64.b64decode(each) for each in question["tables"]]
            game = _table_game(strategy, economy, facts, tables, header["scheme"])
            which = json.dumps(economy.valuation.to_dict(), sort_keys=True)
            seed = entropy.digest(header["seed"], f"valuation/{which}", facts.round_number, 0)
            draw = np.random.Generator(np.random.PCG64(int.from_bytes(seed[:8])))
            if "paid" in question:
                answer = _compared(question, economy, facts, game, draw, header["scheme"])
            else:
                done = fold.step(economy, state, facts, game, draw=draw, scheme=header["scheme"])
                state = done.state
                evidence = done.measured.evidence if done.measured else None
                answer = {
                    "paid": dataclasses.asdict(done.paid) if done.paid else None,
                    "evidence": None if evidence is None else base64.b64encode(evidence).decode(),
                }
        except (EvidenceError, fold.EconomyError, ValueError) as error:
            answer = {"error": f"round {question['facts']['round_number']}: {error}"}
        question = yield answer


def _table_game(strategy: Any, economy: Any, facts: Any, tables: Sequence[bytes], scheme: int) -> Any:
    """The round's game as what was kept of it knows it: its utilities from tables, of which none may contradict."""
    from incentives.valuation.evidence import Kept, unpack
    from training.asked import plays

    found = [unpack(each) for each in tables]
    if found:
        return Kept(cohort=facts.cohort, tables=found)
    here = plays(strategy, economy.game, economy.utility_weights, facts.arrived, facts.update_norms, scheme=scheme)
    of_players = [place for place, each in enumerate(here) if each]
    return Kept(
        cohort=facts.cohort,
        players=tuple(facts.cohort[place] for place in of_players),
        num_examples=tuple(facts.num_examples[place] for place in of_players),
        tables=[],
    )


CLOSE = 1e-9  # of contributions that are computed again


def _compared(
    question: Mapping[str, Any], economy: Any, facts: Any, game: Any, draw: Any, scheme: int
) -> dict[str, str]:
    """The contributions again from the evidence, to CLOSE; the payment again from those that were recorded, to the
    unit."""
    from incentives import fold

    recorded, state = question["paid"], question["state"]
    measured = fold.measure(economy, state, game, draw=draw, scheme=scheme)
    for client, now, then in zip(facts.cohort, measured.contributions, recorded["contributions"], strict=True):
        if abs(now - then) > CLOSE * max(1.0, abs(then)):
            return {"wrong": f"client {client} is worth {now}, recorded {then}"}
    if measured.utilities_sha256 != recorded["utilities_sha256"]:
        return {"wrong": "it asked for other coalitions than its evidence has"}
    measured = dataclasses.replace(
        measured,
        contributions=tuple(recorded["contributions"]),
        errors=None if recorded["errors"] is None else tuple(recorded["errors"]),
    )
    paid = json.loads(json.dumps(dataclasses.asdict(fold.pay(economy, state, facts, measured, scheme=scheme))))
    for client, now, then in zip(facts.cohort, paid["shares"], recorded["shares"], strict=True):
        if now != then:
            return {"wrong": f"client {client} gets {now:,} micro-tokens, recorded {then:,}"}
    for name in ("pool", "minted", "burned", "state"):
        if paid[name] != recorded[name]:
            return {"wrong": f"{name} is {paid[name]}, recorded {recorded[name]}"}
    return {"wrong": ""}


if __name__ == "__main__":
    main()
