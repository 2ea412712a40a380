"""Economies computed again from what was kept of a run: facts, evidence and recorded payments, without any training.

The arithmetic is done by a child process, `python -m simulations.running.folding`, since plug-ins and numpy have no
place in a process that serves pages. It reads JSON lines, first a header and then a round each, and answers each round
with a line. `Child` is how others see it.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
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

    `header`: `specification` (an economy's), `strategy` (the configuration's), `scheme`, `seed`, `members` (the fields
    of Members); for plug-ins `plugins_dir`, `plugins` and `sources` (the kept files by source hash). `seconds`: after
    so many of waiting for its answers it is ended, and TookTooLong is raised.
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

    def priced(
        self, facts: Mapping[str, Any], tables: Sequence[bytes], products: Sequence[bytes]
    ) -> tuple[dict[str, Any], list[bytes]]:
        """What the economy makes of the next round (the fields of Paid), and its evidence: the coalitions and products
        that it asked for. CannotFold."""
        answer = self._ask({"facts": facts, "tables": _text(tables), "products": _text(products)})
        return answer["paid"], [base64.b64decode(each) for each in answer["evidence"]]

    def checked(
        self,
        facts: Mapping[str, Any],
        tables: Sequence[bytes],
        products: Sequence[bytes],
        state: Mapping[str, Any],
        paid: Mapping[str, Any],
    ) -> str:
        """What of a recorded payment does not follow, first things first; an empty text where all does. CannotFold."""
        question = {"facts": facts, "tables": _text(tables), "products": _text(products), "state": state, "paid": paid}
        difference: str = self._ask(question)["wrong"]
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
    from incentives.products import KeptProducts
    from incentives.specification import Members, Specification
    from incentives.valuation.evidence import EvidenceError
    from simulations.config import SimulationConfig
    from training import entropy

    state: Mapping[str, Any] = {}
    economy = strategy = failure = None
    of_members = header["members"]
    holders = {int(identity): holder for identity, holder in of_members["holders"].items()}
    members = Members(**{**of_members, "holders": holders})
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
            products = KeptProducts(facts.cohort, [base64.b64decode(each) for each in question["products"]])
            beside = {"scheme": header["scheme"], "products": products, "members": members}
            if "paid" in question:
                answer = _compared(question, economy, facts, game, draw, beside)
            else:
                done = fold.step(economy, state, facts, game, draw=draw, **beside)
                state = done.state
                evidence = [done.measured.evidence if done.measured else None, done.products]
                answer = {
                    "paid": dataclasses.asdict(done.paid) if done.paid else None,
                    "evidence": _text([each for each in evidence if each is not None]),
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
    question: Mapping[str, Any], economy: Any, facts: Any, game: Any, draw: Any, beside: Mapping[str, Any]
) -> dict[str, str]:
    """Contributions and scores again from the evidence, to CLOSE; the payment again from those that were recorded, to
    the unit. What was recorded of products is what was asked for now."""
    from incentives import fold
    from incentives.products import RecordedProducts

    recorded, state = question["paid"], question["state"]
    products = RecordedProducts(beside["products"])
    measured = fold.measure(economy, state, facts, game, draw=draw, scheme=beside["scheme"], products=products)
    figures = {"is worth": (measured.contributions, recorded["contributions"])}
    if measured.scores.keys() != recorded["scores"].keys():
        return {"wrong": f"the detectors are {[*measured.scores]}, recorded {[*recorded['scores']]}"}
    figures |= {f"has {name}": (found, recorded["scores"][name]) for name, found in measured.scores.items()}
    for what, (found, said) in figures.items():
        for client, now, then in zip(facts.cohort, found, said, strict=True):
            if abs(now - then) > CLOSE * max(1.0, abs(then)):
                return {"wrong": f"client {client} {what} {now}, recorded {then}"}
    if measured.utilities_sha256 != recorded["utilities_sha256"]:
        return {"wrong": "it asked for other coalitions than its evidence has"}
    measured = dataclasses.replace(
        measured,
        contributions=tuple(recorded["contributions"]),
        errors=None if recorded["errors"] is None else tuple(recorded["errors"]),
        scores={name: tuple(scores) for name, scores in recorded["scores"].items()},
    )
    again = fold.pay(economy, state, facts, measured, **{**beside, "products": products})
    evidence = products.packed(facts.cohort)
    if (evidence and hashlib.sha256(evidence).hexdigest()) != recorded["products_sha256"]:
        return {"wrong": "it asked for other products than its evidence has"}
    paid = json.loads(json.dumps(dataclasses.asdict(again)))
    for what, name in (("gets", "shares"), ("loses of its stake", "slashed")):
        nothing = [0] * len(facts.cohort)
        for client, now, then in zip(facts.cohort, paid[name] or nothing, recorded[name] or nothing, strict=True):
            if now != then:
                return {"wrong": f"client {client} {what} {now:,} micro-tokens, recorded {then:,}"}
    for name in ("pool", "minted", "burned", "state"):
        if paid[name] != recorded[name]:
            return {"wrong": f"{name} is {paid[name]}, recorded {recorded[name]}"}
    return {"wrong": ""}


if __name__ == "__main__":
    main()
