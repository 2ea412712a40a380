"""Presets about cheats show what they say: on digits, and on MNIST, which they are made for, more clearly."""

from collections import Counter
from functools import cache

import torch

import kinds
from simulations.config import SimulationConfig
from simulations.presets import PRESETS
from simulations.running.engine import simulate
from simulations.running.events import Round
from simulations.tests.cast import NOWHERE


@cache
def rounds(preset: str) -> list[Round]:
    torch.set_num_threads(1)
    config = SimulationConfig.of(**{**PRESETS[preset].values, "dataset": "digits", "lr": 0.1})
    return [event for event in simulate(config, data_dir=NOWHERE) if isinstance(event, Round)]


def shares(preset: str) -> list[dict[int, float]]:
    """By economy, in their order, what part of all that was paid each client got."""
    found: list[Counter[int]] = []
    for event in rounds(preset):
        cohort = [part.client for part in event.clients]
        paid = [[part.reward_microtokens for part in event.clients], *(shadow.rewards for shadow in event.shadows)]
        found = found or [Counter() for _ in paid]
        for sums, amounts in zip(found, paid, strict=True):
            sums.update(dict(zip(cohort, amounts, strict=True)))
    return [{client: amount / sums.total() for client, amount in sums.items()} for sums in found]


def lost(preset: str) -> Counter[int]:
    """Micro-tokens by client, of those whose stake lost any."""
    found: Counter[int] = Counter()
    for event in rounds(preset):
        found.update({part.client: part.slashed_microtokens for part in event.clients if part.slashed_microtokens})
    return found


def test_who_replays_loses_its_stake_and_who_sends_nothing_gets_nothing():
    assert set(lost("free_riders")) == {4}
    assert lost("free_riders")[4] > 4_000_000
    assert shares("free_riders")[0][2] == 0


def test_copies_pay_by_contribution_head_and_size_and_not_where_updates_are_compared():
    by_contribution, equal, by_size, compared = (
        sum(sums.get(client, 0.0) for client in (3, 9, 10)) for sums in shares("copies_of_oneself")
    )
    assert min(by_contribution, equal, by_size) > 2 / 8
    assert compared < 0.15


def test_who_lies_about_its_size_is_believed_but_for_what_it_is_worth_alone():
    by_size, by_contribution, alone, equal = (sums[3] + sums[7] for sums in shares("liars_about_size"))
    assert min(by_size, by_contribution) > 0.4
    assert (round(equal, 3), alone < 0.8 * by_contribution) == (0.2, True)


def test_a_reputation_that_is_spent_costs_more_than_the_harm():
    honest_again = [event for event in rounds("a_reputation_spent") if event.round_number > 10]
    paid = sum(part.reward_microtokens for event in honest_again for part in event.clients if part.client == 3)
    without_memory = 0
    for event in honest_again:
        places = [place for place, part in enumerate(event.clients) if part.client == 3]
        without_memory += sum(event.shadows[0].rewards[place] for place in places)
    assert paid < 0.9 * without_memory
    drawn = Counter(part.client for event in honest_again for part in event.clients)
    assert drawn[3] < sum(drawn.values()) / 10


def test_harm_costs_stake_and_honest_work_hardly_any():
    found = lost("a_slashed_stake")
    assert found.most_common(1)[0][0] == 3
    assert found[3] > 5 * (found.total() - found[3])


def test_every_rule_is_there_at_once():
    rules = {
        economy.reward_rule.kind for _, economy in SimulationConfig.of(**PRESETS["many_rules_at_once"].values).economies
    }
    assert rules == {rule for rule in kinds.family("rule") if "/" not in rule}
    assert all(sums.get(3, 0) == 0 for sums in shares("many_rules_at_once")), "who sends nothing gets nothing"
