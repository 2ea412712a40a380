"""What an economy's detectors said of each client in each round, how well that tells who does not play fair, and what
stakes lost for it, from the rows.

The laboratory knows the truth: somebody cheats in a round where the behaviour that it is configured to have is in
force, under each of its identities. Who sent nothing in a round was not looked at, and does not count.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from incentives.detection import auc, precision_recall
from incentives.specification import Specification
from simulations.config import PAYING, SimulationConfig
from simulations.models import Contribution, Shadow, Simulation
from training.behaviours import acts

MOST_ROUNDS = 1_000  # from the first on
MOST_PARTS = 100_000  # of clients in them, however large the cohorts are


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A round as an economy saw it; lists in the order of the cohort, ascending client numbers."""

    number: int
    cohort: tuple[int, ...]
    sent: tuple[bool, ...]
    cheats: tuple[bool, ...]  # who does not play fair in it
    contributions: tuple[float, ...]
    scores: Mapping[str, Sequence[float]]  # by detector
    slashed: tuple[int, ...]  # micro-tokens that stakes lost; empty without stakes

    def pairs(self, detector: str) -> list[tuple[float, bool]]:
        """Of each who sent something, the score and whether it cheats."""
        scores = self.scores[detector]
        return [(score, cheats) for score, cheats, here in zip(scores, self.cheats, self.sent, strict=True) if here]

    def auc(self, detector: str) -> float | None:
        return auc(*_unzipped(self.pairs(detector)))


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """How well it tells, over all rounds, that a score is above what costs stake."""

    above: float
    share: float  # of the stake
    named: int  # times that somebody scored above
    found: int  # of them, times that it was a cheat
    cheats: int  # times that somebody cheated
    precision: float | None
    recall: float | None


@dataclass(frozen=True, kw_only=True)
class Detector:
    """A detector over all rounds."""

    name: str
    auc: float | None
    thresholds: tuple[Threshold, ...]


@dataclass(frozen=True, kw_only=True)
class Reason:
    """Why a stake lost something; the reasons of one loss may ask for more than there was."""

    kind: str  # the detector's, or the reward rule's
    microtokens: int
    contribution: float | None = None  # of a rule
    score: float | None = None  # of a detector, and the rest
    above: float | None = None
    share: float | None = None


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What somebody's stake lost in a round."""

    round_number: int
    client: int
    microtokens: int
    stake: int  # before
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, kw_only=True)
class Watch:
    """What an economy saw in the first rounds of a run."""

    label: str
    economy: Specification
    rounds: tuple[Watched, ...]
    stakes: Mapping[int, int]  # by client, micro-tokens from the start; empty without stakes

    @property
    def detectors(self) -> list[Detector]:
        return [self._detector(choice.kind) for choice in self.economy.scorers] if self.economy.is_valued else []

    @property
    def cheats(self) -> int:
        """Times that somebody who sent something did not play fair."""
        return sum(each and here for row in self.rounds for each, here in zip(row.cheats, row.sent, strict=True))

    def _detector(self, name: str) -> Detector:
        scores, truth = _unzipped([pair for row in self.rounds for pair in row.pairs(name)])
        thresholds = []
        for entry in self.economy.slashing:
            if entry["detector"].kind == name:
                named = [is_so for score, is_so in zip(scores, truth, strict=True) if score > entry["above"]]
                precision, recall = precision_recall(scores, truth, entry["above"])
                thresholds.append(
                    Threshold(
                        above=entry["above"],
                        share=entry["share"],
                        named=len(named),
                        found=sum(named),
                        cheats=sum(truth),
                        precision=precision,
                        recall=recall,
                    )
                )
        return Detector(name=name, auc=auc(scores, truth), thresholds=tuple(thresholds))

    def losses(self) -> Iterator[Loss]:
        """By round and client."""
        left = dict(self.stakes)
        for row in self.rounds:
            for place, (client, lost) in enumerate(zip(row.cohort, row.slashed, strict=bool(row.slashed))):
                if lost:
                    yield Loss(
                        round_number=row.number,
                        client=client,
                        microtokens=lost,
                        stake=left[client],
                        reasons=reasons(
                            self.economy,
                            {name: scores[place] for name, scores in row.scores.items()},
                            row.contributions[place],
                            left[client],
                            lost,
                        ),
                    )
                    left[client] -= lost


def reasons(
    economy: Specification, scores: Mapping[str, float], contribution: float, stake: int, lost: int
) -> tuple[Reason, ...]:
    """Why a client with these scores lost so much of what it had at stake: each entry of `slashing` that its score is
    above, and what is left of the loss to the rule. See incentives.fold."""
    found = [
        Reason(
            kind=entry["detector"].kind,
            microtokens=int(Fraction(str(entry["share"])) * stake),
            score=scores[entry["detector"].kind],
            above=entry["above"],
            share=entry["share"],
        )
        for entry in economy.slashing
        if scores[entry["detector"].kind] > entry["above"]
    ]
    by_rule = lost - sum(each.microtokens for each in found)
    if by_rule > 0:
        found.append(Reason(kind=economy.reward_rule.kind, microtokens=by_rule, contribution=contribution))
    return tuple(found)


def watches(specification: Mapping[str, Any]) -> bool:
    """Whether an economy, as a row keeps it, has detectors or stakes."""
    return any(specification.get(name) for name in ("detectors", "slashing", "stake"))


def detectors_of(specification: Mapping[str, Any]) -> list[str]:
    """Their names, each once, in the order of Specification.scorers."""
    found = [*specification["detectors"], *(entry["detector"] for entry in specification["slashing"])]
    return list(dict.fromkeys(each["kind"] for each in found))


def watch(simulation: Simulation, shadow: Shadow | None = None) -> Watch:
    """Of the paying economy, or of a shadow: so many rounds from the first on as are bounded above. Two
    queries, three of a shadow."""
    config = SimulationConfig.from_record(simulation.config, simulation.scheme)
    economy = Specification.from_dict(shadow.specification) if shadow else config.economies[0][1]
    rows = list(_rounds(simulation))
    parts = _parts(simulation, rows[-1][0] if rows else 0)
    made = {}
    if shadow:
        kept = shadow.rounds.filter(number__in=[number for number, *_ in rows])
        made = {number: rest for number, *rest in kept.values_list("number", "scores", "contributions", "slashed")}
    does_cheat = cheating(config)
    watched = []
    for number, size, scores in rows:
        part = parts[number]
        if len(part) != size or (shadow and number not in made):
            continue  # its details were let go of, or are not there yet
        cohort, sent, values, slashed = zip(*part, strict=True) if part else ((), (), (), ())
        if shadow:
            scores, values, lost = made[number]
            slashed = tuple(lost or ())
        elif None in slashed:
            slashed = ()
        watched.append(
            Watched(
                number=number,
                cohort=cohort,
                sent=sent,
                cheats=tuple(does_cheat(client, number) for client in cohort),
                contributions=tuple(value or 0.0 for value in values),
                scores=scores,
                slashed=slashed,
            )
        )
    return Watch(
        label=shadow.label if shadow else PAYING,
        economy=economy,
        rounds=tuple(watched),
        stakes=config.members(is_paying=False).stakes(economy),
    )


def cheating(config: SimulationConfig) -> Callable[[int, int], bool]:
    """Whether a client, or the holder of an identity, does not play fair in a round, as configured."""
    does, holders = config.drawn_behaviours(), config.holders

    def does_cheat(client: int, round_number: int) -> bool:
        given = does.get(holders.get(client, client))
        return given is not None and acts(given, round_number)

    return does_cheat


def _rounds(simulation: Simulation) -> Iterator[tuple[int, int, dict[str, list[float]]]]:
    """Number, cohort's size and the paying economy's scores; the first round, however large it is."""
    done = simulation.rounds.filter(number__lte=min(simulation.rounds_done, MOST_ROUNDS)).order_by("number")
    parts = 0
    for number, size, scores in done.values_list("number", "cohort_size", "scores").iterator(100):
        parts += size
        if parts > MOST_PARTS and parts > size:
            return
        yield number, size, scores


def _parts(simulation: Simulation, last: int) -> dict[int, list[tuple[int, bool, float | None, int | None]]]:
    """By round: client, whether it sent something, contribution, what its stake lost."""
    rows = Contribution.objects.filter(round__simulation=simulation, round__number__lte=last)
    names = ("round__number", "client__number", "untrained", "loss_before", "value", "slashed_microtokens")
    found: dict[int, list[tuple[int, bool, float | None, int | None]]] = defaultdict(list)
    for number, client, untrained, loss, value, lost in (
        rows.order_by("client__number").values_list(*names).iterator(10_000)
    ):
        found[number].append((client, untrained or loss is not None, value, lost))
    return found


def _unzipped(pairs: Sequence[tuple[float, bool]]) -> tuple[list[float], list[bool]]:
    return [score for score, _ in pairs], [is_so for _, is_so in pairs]
