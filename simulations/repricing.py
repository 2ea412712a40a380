"""Payments computed again, and economies priced after the run, from what was kept of its rounds. Nothing is trained.

`reprice` gives a finished run another shadow: the same as if it had been in the configuration, to the unit and the
ledger's head. `recompute` does every payment of a run again: contributions from the evidence, payments from the
recorded contributions.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import OuterRef, Subquery
from django.utils import timezone

from extensions.models import Source
from extensions.sources import needed
from incentives import coalitions, ledger, verified
from incentives.memo import Facts, Paid
from incentives.models import Evidence
from incentives.rewards import MICROTOKENS, improvement_pool
from incentives.specification import Specification
from kinds import ConfigError
from simulations import economies, plugins, records
from simulations.config import OF_AN_ECONOMY, PAYING, SimulationConfig
from simulations.models import Client, Contribution, Round, Shadow, ShadowRound, Simulation
from simulations.running.folding import CannotFold, Child
from training.asked import same
from training.config import SCHEME

ROUNDS = 200  # in a transaction, and in memory
CLOSE = 1e-6  # relative: what a loss in float32 may differ by that is computed beside others or alone


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kept:
    """A recorded round with what the economies beside it asked."""

    row: Round
    facts: Facts
    paid: dict[str, Paid]  # by label; of those that pay
    states: dict[str, Mapping[str, Any]]  # before the round
    tables: dict[str, bytes]  # evidence by label
    products: dict[str, bytes]  # of the updates, by label of who asked for them

    @property
    def clients(self) -> tuple[int, ...]:
        return self.facts.cohort


def reprice(simulation: Simulation, label: str, values: Mapping[str, Any], *, seconds: float | None = None) -> Shadow:
    """Another shadow of a finished run, from its evidence; `values` as in a configuration's `shadows`.

    Goes on where an equal one was cut off. Costs twice the computing: all of it is done once before anything is
    written, in at most so many `seconds` where they are given, else TookTooLong. ConfigError for what is no economy, a
    taken label, or a run that is not finished; CannotFold where what was kept does not hold what it needs.
    """
    config = SimulationConfig.from_record(simulation.config, simulation.scheme)
    try:
        config = dataclasses.replace(config, shadows=({"label": label, **values},), scheme=SCHEME, first=None)
    except ConfigError as error:
        name, _, text = error.errors.get("shadows", "").removeprefix(f"{label.strip()}: ").partition(": ")
        is_field = name.partition(".")[0] in OF_AN_ECONOMY
        raise (ConfigError({name: text}) if is_field else error) from None
    config = plugins.with_todays_sources(config)
    label, economy = config.economies[1]
    if not simulation.is_finished or not simulation.rounds_done:
        raise ConfigError({"simulation": f"{simulation} is {simulation.status}; only a finished run is priced again"})
    if not economy.is_valued:
        raise ConfigError({"valuation": "an economy that measures nothing pays nobody"})
    there = simulation.shadows.filter(label=label).first()
    if there is not None and (there.added_at is None or there.specification != economy.to_dict()):
        raise ConfigError({"label": f"{simulation} has an economy {label} already"})
    if there is not None and there.rounds_done >= simulation.rounds_done:
        return there
    for _ in _priced(simulation, economy, seconds):  # all of it, so that nothing is begun that cannot be ended
        pass
    plugins.keep_sources(config)
    shadow = there or _opened(simulation, label, economy)
    written = shadow.rounds_done
    chunk: list[tuple[Kept, Paid, list[bytes]]] = []
    for each in _priced(simulation, economy, seconds and 2 * seconds):  # so what has begun is ended
        if each[0].row.number > written:
            chunk.append(each)
        if len(chunk) == ROUNDS:
            _write(shadow, economy, chunk)
            chunk = []
    _write(shadow, economy, chunk)
    shadow.refresh_from_db()
    return shadow


def recompute(
    simulation: Simulation, number: int | None = None, *, seconds: float | None = None
) -> Iterator[tuple[str, int, str]]:
    """For each economy and round, or of one round alone, what of its payment does not follow; an empty text where all
    does. CannotFold where what was kept does not hold what is needed; TookTooLong where computing takes more than so
    many `seconds`. A ledger whose payment does not follow is to be verified in full next."""
    left = seconds
    config = SimulationConfig.from_record(simulation.config, simulation.scheme)
    shadows = {each.label: each for each in simulation.shadows.order_by("number")}
    found = {PAYING: (config.economies[0][1], simulation.scheme)}
    found |= {name: (Specification.from_dict(each.specification), SCHEME) for name, each in shadows.items()}
    for label, (economy, scheme) in found.items():
        if not economy.is_valued:
            continue
        with Child(_header(simulation, economy, scheme, is_paying=label == PAYING), left) as child:
            for kept in rounds(simulation, number):
                if label not in kept.paid:
                    continue
                _check_losses(economy, kept.facts)
                wrong = child.checked(
                    dataclasses.asdict(kept.facts),
                    [kept.tables[label]] if label in kept.tables else [],
                    [kept.products[label]] if label in kept.products else [],
                    kept.states.get(label, {}),
                    dataclasses.asdict(kept.paid[label]),
                )
                if wrong:
                    verified.doubt(shadows[label].ledger_id if label in shadows else simulation.ledger_id)
                yield label, kept.row.number, wrong
        left = left and left - child.waited


def rounds(simulation: Simulation, number: int | None = None) -> Iterator[Kept]:
    """Recorded rounds, ascending; so many in memory at a time. CannotFold where contributions were let go of."""
    _fill_in(simulation)
    config = SimulationConfig.from_record(simulation.config, simulation.scheme)
    economy = config.economies[0][1]
    shadows = {each.pk: each.label for each in simulation.shadows.all()}
    numbers = [number] if number else list(range(1, simulation.rounds_done + 1))
    states: dict[str, Mapping[str, Any]] = {}
    if number and number > 1:
        before = simulation.rounds.filter(number=number - 1).first()
        states = {PAYING: before.economy_state} if before else {}
        for row in ShadowRound.objects.filter(shadow__in=shadows, number=number - 1):
            states[shadows[row.shadow_id]] = row.economy_state
    for start in range(0, len(numbers), ROUNDS):
        part = numbers[start : start + ROUNDS]
        parts = records.parts_of(simulation, part)
        made: dict[int, list[ShadowRound]] = {each: [] for each in part}
        for row in ShadowRound.objects.filter(shadow__in=shadows, number__in=part):
            made[row.number].append(row)
        rows = list(simulation.rounds.filter(number__in=part).order_by("number"))
        of_all: list[Round | ShadowRound] = [*rows, *(each for of_round in made.values() for each in of_round)]
        wanted = {sha256 for each in of_all for sha256 in (each.evidence_sha256, each.products_sha256)}
        kept = {each.sha256: bytes(each.content) for each in Evidence.objects.filter(sha256__in=wanted - {""})}
        for row in rows:
            if len(parts[row.number]) != row.cohort_size:
                raise CannotFold(f"round {row.number}: who was in it is no longer known; its details were let go of")
            facts = records.facts_of(simulation, row, parts[row.number])
            paid, tables, products = {}, {}, {}
            if economy.is_valued:
                paid[PAYING] = records.paid_of(row, parts[row.number])
                own = kept.get(row.evidence_sha256) if row.evidence is None else bytes(row.evidence)
                tables |= {} if own is None else {PAYING: own}
                if row.products_sha256 in kept:
                    products[PAYING] = kept[row.products_sha256]
            for each in made[row.number]:
                label = shadows[each.shadow_id]
                paid[label] = economies.paid_by(each)
                if each.evidence_sha256 in kept:
                    tables[label] = kept[each.evidence_sha256]
                if each.products_sha256 in kept:
                    products[label] = kept[each.products_sha256]
            yield Kept(row=row, facts=facts, paid=paid, states=dict(states), tables=tables, products=products)
            states = {label: each.state for label, each in paid.items()}


def _priced(
    simulation: Simulation, economy: Specification, seconds: float | None
) -> Iterator[tuple[Kept, Paid, list[bytes]]]:
    askers = _askers(simulation, economy)
    with Child(_header(simulation, economy, SCHEME), seconds) as child:
        for kept in rounds(simulation):
            facts, tables = (
                dataclasses.asdict(kept.facts),
                [kept.tables[each] for each in askers if each in kept.tables],
            )
            _check_losses(economy, kept.facts)
            if economy.asks_game and not tables:
                raise CannotFold(f"round {kept.facts.round_number}: {_not_measured(economy, kept, askers)}")
            paid, evidence = child.priced(facts, tables, list(kept.products.values()))
            lists = {name: tuple(each) if isinstance(each, list) else each for name, each in paid.items()}
            lists["scores"] = {name: tuple(scores) for name, scores in paid["scores"].items()}
            yield kept, Paid(**lists), evidence


def _askers(simulation: Simulation, economy: Specification) -> list[str]:
    """The labels of those economies whose evidence is of the game that this one asks."""
    if not economy.asks_game:
        return []
    config = SimulationConfig.from_record(simulation.config, simulation.scheme)
    of_game = same(config.strategy, economy.game, economy.utility, economy.utility_weights)
    found = {PAYING: config.economies[0][1]}
    found |= {each.label: Specification.from_dict(each.specification) for each in simulation.shadows.all()}
    return [
        label
        for label, each in found.items()
        if same(config.strategy, each.game, each.utility, each.utility_weights) == of_game
    ]


def _not_measured(economy: Specification, kept: Kept, askers: Sequence[str]) -> str:
    """Why no coalition of a round has a known worth, and what can be done."""
    again = "run it again with this economy among its shadows"
    if any(label in kept.paid and kept.paid[label].utilities_sha256 for label in askers):
        return f"what coalitions were worth is no longer kept; {again}"
    measured = f"{economy.utility} (game {economy.game}, weights {economy.utility_weights})"
    return f"no economy of this run measured {measured}, so no coalition's worth is known; {again}"


def _fill_in(simulation: Simulation) -> None:
    """What runs of schemes 1 and 2 did not write down and what their rows tell all the same: losses before a round, and
    reported sizes. Rounds that a later release has added to such a run have their own."""
    if simulation.scheme >= 3:
        return
    config = SimulationConfig.from_record(simulation.config, simulation.scheme)
    with transaction.atomic():
        before = best = _untrained_loss(simulation, config)
        for row in simulation.rounds.order_by("number"):
            if row.previous_validation_loss is None and before is not None:
                simulation.rounds.filter(pk=row.pk).update(previous_validation_loss=before, best_validation_loss=best)
            before = row.validation_loss
            best = min((each for each in (best, before) if each is not None), default=None)
        held = Client.objects.filter(pk=OuterRef("client")).values("num_examples")
        parts = Contribution.objects.filter(round__simulation=simulation, num_examples=None)
        parts.update(num_examples=Subquery(held))
        if not simulation.training_sha256:
            simulation.training_sha256 = config.training_sha256()
            simulation.save(update_fields=["training_sha256"])


def _untrained_loss(simulation: Simulation, config: SimulationConfig) -> float | None:
    """The validation loss of the untrained model: as recorded, else what the empty coalition was worth, else, as that
    may differ in the last bits or was not asked for, what the pool of the first round tells. None where nothing does.
    """
    _, economy = config.economies[0]
    row = simulation.rounds.filter(number=1).first()
    if row is None or row.previous_validation_loss is not None or row.validation_loss is None:
        return row and row.previous_validation_loss
    found = None
    if row.evidence is not None and economy.utility == "loss":
        with contextlib.suppress(ValueError):
            worth = coalitions.read(bytes(row.evidence)).utilities().get(0)
            found = None if worth is None else -worth
    factor = economy.pool.parameters.get("scaling_factor", 0.0)
    if "/" in economy.pool.kind or not factor or not economy.is_valued:
        return found
    if found is not None and improvement_pool(found, row.validation_loss, factor) == row.pool_microtokens:
        return found
    paid_for = row.validation_loss + row.pool_microtokens / MICROTOKENS / factor
    if found is None:
        return paid_for if row.pool_microtokens else None
    return paid_for if abs(paid_for - found) <= CLOSE * max(1.0, abs(found)) else found


def _check_losses(economy: Specification, facts: Facts) -> None:
    """CannotFold where a pool rests on a validation loss that was not recorded."""
    if "scaling_factor" in economy.pool.parameters and facts.previous_validation_loss is None:
        raise CannotFold(
            f"round {facts.round_number}: the validation loss before it was not recorded, on which the pool rests"
        )


def _header(simulation: Simulation, economy: Specification, scheme: int, *, is_paying: bool = False) -> dict[str, Any]:
    specification = economy.to_dict()
    config = SimulationConfig.from_record(simulation.config, simulation.scheme)
    sources = Source.objects.filter(sha256__in={sha256 for _, sha256 in needed(specification)})
    return {
        "specification": specification,
        "strategy": simulation.configuration["strategy"],
        "scheme": scheme,
        "seed": simulation.config["seed"],
        "members": dataclasses.asdict(config.members(is_paying=is_paying)),
        "plugins_dir": str(settings.FEDSITE_PLUGINS_DIR),
        "plugins": list(settings.FEDSITE_PLUGINS),
        "sources": dict(sources.values_list("sha256", "files")),
    }


def _opened(simulation: Simulation, label: str, economy: Specification) -> Shadow:
    try:
        with transaction.atomic():
            newest = simulation.shadows.order_by("-number").values_list("number", flat=True).first() or 0
            values = economy.to_dict()
            return economies.open_shadow(simulation.pk, newest + 1, label, values, added_at=timezone.now())
    except IntegrityError:
        raise ConfigError({"label": f"{simulation} has just been given another economy; try again"}) from None


@transaction.atomic
def _write(shadow: Shadow, economy: Specification, chunk: Sequence[tuple[Kept, Paid, list[bytes]]]) -> None:
    """Some rounds of a shadow, all of them or none. ConfigError where somebody else writes it."""
    if not chunk:
        return
    first = chunk[0][0].row.number
    mine = Shadow.objects.select_for_update().filter(pk=shadow.pk, rounds_done=first - 1).select_related("ledger")
    if (locked := mine.first()) is None:
        raise ConfigError({"label": f"{shadow.label} is being priced by somebody else"})
    if locked.ledger.head != locked.ledger_head:
        raise ConfigError({"label": f"the ledger of {shadow.label} does not end as its record says; run verify_ledger"})
    economies.keep(each for _, _, evidence in chunk for each in evidence)
    at_stake = economies.at_stake(shadow.simulation, economy)
    for kept, paid, _ in chunk:
        number = kept.row.number
        memo = economies.memo(number, kept.facts.sha256(), economy, paid)
        posting = economies.posting(shadow.ledger_id, number, kept.clients, paid, memo, **at_stake)
        posted = ledger.post_together([posting])
        economies.record([(shadow, paid)], number, kept.clients)
    economies.note({shadow.ledger_id: posted[-1]})
