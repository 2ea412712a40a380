"""The contracts themselves: examples keep them, and each check finds who does not."""

from __future__ import annotations

import random
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from extensions import Behaviour, Kind, Payment, Strategy, Values, largest_remainder
from extensions.contract import FAMILIES, Holds, checks_of, digest, examined
from extensions.testing import parametrize_with_checks
from extensions.tests import files


def example(family: str) -> Kind:
    space: dict[str, Any] = {}
    exec(compile((files.EXAMPLES / f"{family}.py").read_text(), family, "exec"), space)
    (kind,) = space["KINDS"]
    return kind


EXAMPLES = [example(family) for family in FAMILIES]


@parametrize_with_checks(EXAMPLES)
def test_examples_keep_their_contract(check: Any) -> None:
    check()


def test_a_property_that_is_expected_to_fail_does() -> None:
    mark = parametrize_with_checks(EXAMPLES[:1], {"wage": {"nothing_for_harm": "a wage is for all"}})
    (marked,) = [each for each in mark.args[1] if each.marks]
    assert marked.id == "wage-nothing_for_harm"
    with pytest.raises(AssertionError, match=r"-0\.5 gets"):
        marked.values[0]()


def rule(code: Any, **more: Any) -> Kind:
    return Kind(family="rule", name="rule", help="", code=code, **more)


def alike(facts: Any, pool: int, state: Any) -> Payment:
    n = len(facts.clients)
    return Payment(shares=largest_remainder([1] * n, pool) if n else [])


def statuses(kind: Kind, expected: Any = None) -> dict[str, str]:
    return {result.check: result.status for result in examined(kind, expected)}


def witness(kind: Kind, name: str) -> str:
    return next(result.witness for result in examined(kind) if result.check == name)


def test_claims_and_exceptions_are_measured() -> None:
    assert statuses(rule(alike))["nothing_for_harm"] == "does not hold"
    assert statuses(rule(alike, traits=frozenset({"nothing_for_harm"})))["nothing_for_harm"] == "broken claim"
    assert statuses(rule(alike), {"nothing_for_harm": "a wage"})["nothing_for_harm"] == "expected"
    assert statuses(rule(alike, traits=frozenset({"pays_all"})))["pays_all"] == "holds"
    assert statuses(rule(alike, traits=frozenset({"magic"})))["claims"] == "refused"
    assert statuses(rule(alike), {"whole_shares": "no"})["claims"] == "refused"


def by_place(facts: Any, pool: int, state: Any) -> Payment:
    return Payment(shares=[pool] + [0] * (len(facts.clients) - 1) if facts.clients else [])


def backwards(facts: Any, pool: int, state: Any) -> Payment:
    worth = [int(max(0.0, 20 - each) * 1000) if abs(each) < 20 else 0 for each in facts.contributions]
    return Payment(shares=largest_remainder(worth, pool) if any(worth) else [0] * len(worth))


def by_threshold(facts: Any, pool: int, state: Any) -> Payment:
    paid = [1 if each > 1 else 0 for each in facts.contributions]
    return Payment(shares=largest_remainder(paid, pool) if any(paid) else paid)


def growing(facts: Any, pool: int, state: Any) -> Payment:
    """Rests on a number that JSON does not keep."""
    state = {**state, facts.round_number: 1}
    share = pool // 2 if 2 in state else 0
    return Payment(shares=[share] + [0] * (len(facts.clients) - 1) if facts.clients else [], state={"x": 1} | state)


def changes_state(facts: Any, pool: int, state: Any) -> Payment:
    state["rounds"] = state.get("rounds", 0) + 1
    return Payment(shares=[0] * len(facts.clients), state=state)


def reads_clock(facts: Any, pool: int, state: Any) -> Payment:
    return Payment(shares=[0 * int(time.monotonic())] * len(facts.clients))


def opens(facts: Any, pool: int, state: Any) -> Payment:
    Path(__file__).read_bytes()
    return Payment(shares=[0] * len(facts.clients))


def draws(facts: Any, pool: int, state: Any) -> Payment:
    return Payment(shares=[0 * random.randrange(2)] * len(facts.clients))


def draws_numpy(facts: Any, pool: int, state: Any) -> Payment:
    return Payment(shares=[0 * int(np.random.rand())] * len(facts.clients))


@pytest.mark.parametrize(
    ("code", "check", "words"),
    [
        (by_place, "anonymous", "in another order"),
        (backwards, "monotone", "gets"),
        (backwards, "more_is_not_less", "by 0.125 takes it from"),
        (by_threshold, "scale_free", "four times"),
        (growing, "state_survives", ""),
        (changes_state, "input_unchanged", "the state {} became {'rounds': 1}"),
        (reads_clock, "pure", "reads the clock"),
        (opens, "pure", "opens a file"),
        (draws, "pure", "draws from a generator"),
        (draws_numpy, "pure", "draws from a generator"),
    ],
)
def test_it_finds_a_rule_that_does_not(code: Any, check: str, words: str) -> None:
    assert statuses(rule(code))[check] in ("does not hold", "refused")
    assert words in witness(rule(code), check)


def moving_average(facts: Any, pool: int, state: Any) -> Payment:
    """Half of what a client was worth before, half of what it is worth now."""
    before = [state.get(str(client), 0.0) for client in facts.clients]
    worth = [(one + two) / 2 for one, two in zip(before, facts.contributions, strict=True)]
    paid = largest_remainder([Fraction(max(each, 0.0)) for each in worth], pool) if max(worth, default=0) > 0 else []
    kept = dict(zip(map(str, facts.clients), worth, strict=True))
    return Payment(shares=paid or [0] * len(worth), state={**state, **kept})


def knows_all_from_the_first(facts: Any, pool: int, state: Any) -> Payment:
    names = [str(client) for client in facts.clients]
    seen = {name: state[name] + 1 for name in names} if state else dict.fromkeys(names, 0)
    return Payment(shares=[0] * len(names), state={**state, **seen})


def test_a_rule_that_remembers_is_found_out_by_what_it_remembers() -> None:
    """In a first round it pays nothing for harm, which was all that was looked at."""
    expected = "0.0 gets 400,000 of contributions [0.25, -0.5, 0.0] after rounds of [1.0, 1.0, 1.0]"
    assert witness(rule(moving_average), "nothing_for_harm") == expected
    claimed = rule(moving_average, traits=frozenset({"nothing_for_harm", "scale_free", "anonymous"}))
    found = statuses(claimed)
    assert [found[name] for name in ("nothing_for_harm", "scale_free", "anonymous")] == [
        "broken claim",
        "holds",
        "holds",
    ]
    assert statuses(rule(knows_all_from_the_first))["whole_shares"] == "refused"


def test_time_is_shown_where_it_is_kept() -> None:
    (quick,) = [check for check in checks_of("rule") if check.name == "quick"]
    found = quick.run(rule(alike))
    assert isinstance(found, Holds)
    assert "1,000 clients took" in found


def count_bad(facts: Any, state: Any) -> Any:
    """Rounds in a row without a new best."""
    is_best = facts.validation_loss is not None and facts.validation_loss < facts.best_validation_loss
    return {"bad": 0 if is_best else state.get("bad", 0) + 1}


def pool(code: Any) -> Kind:
    return Kind(family="pool", name="pool", help="", code=code)


@pytest.mark.parametrize(
    ("code", "check"),
    [
        (lambda facts, state: (1.5, {}), "whole_amounts"),
        (lambda facts, state: (2**53, {}), "whole_amounts"),
        (lambda facts, state: 5, "whole_amounts"),
        (lambda facts, state: (int(1e6 * (facts.best_validation_loss - facts.validation_loss)), {}), "whole_amounts"),
        (lambda facts, state: (0, {"x": object()}), "whole_amounts"),
        (lambda facts, state: (facts.round_number if 1 in state else 0, {1: 1}), "whole_amounts"),
        (lambda facts, state: (state.setdefault("n", 5), state), "input_unchanged"),
        (lambda facts, state: (0 * time.time_ns(), {}), "pure"),
        (lambda facts, state: (int(facts.validation_loss), {}), "without_validation"),
        (lambda facts, state: (7, {}), "nothing_for_nothing"),
        (lambda facts, state: (7 * (state.get("bad", 0) > 2), count_bad(facts, state)), "nothing_for_nothing"),
        (lambda facts, state: (int(state.get("loss", 0)), {"loss": facts.validation_loss}), "without_validation"),
    ],
)
def test_it_finds_a_pool_that_does_not(code: Any, check: str) -> None:
    assert statuses(pool(code))[check] in ("does not hold", "refused")


def valuation(code: Any, cost: Any = lambda n: n + 1) -> Kind:
    return Kind(family="valuation", name="valuation", help="", code=code, cost=cost)


def alone(game: Any, facts: Any, state: Any, rng: Any) -> Values:
    n = len(facts.players)
    rows = np.concatenate([np.zeros((1, n), bool), np.eye(n, dtype=bool)])
    return Values(np.diff(game(rows))[:n] if n else np.zeros(0))


@pytest.mark.parametrize(
    ("code", "cost", "check"),
    [
        (lambda game, facts, state, rng: np.zeros(len(facts.players)), lambda n: 0, "finite_values"),
        (lambda game, facts, state, rng: Values(np.full(len(facts.players), np.nan)), lambda n: 0, "finite_values"),
        (lambda game, facts, state, rng: Values(np.zeros(3)), lambda n: 0, "finite_values"),
        (alone, lambda n: n, "keeps_cost"),
        (alone, None, "keeps_cost"),
        (alone, lambda n: n + 1 if n < 16 else 9, "many_players"),
        (lambda game, facts, state, rng: Values(np.random.rand(len(facts.players))), lambda n: 0, "repeatable"),
        (lambda game, facts, state, rng: Values(np.random.rand(len(facts.players)) * 0), lambda n: 0, "pure"),
        (lambda game, facts, state, rng: Values(np.ones(len(facts.players))), lambda n: 0, "null_player"),
        (lambda game, facts, state, rng: Values(np.ones(len(facts.players))), lambda n: 0, "efficient"),
        (lambda game, facts, state, rng: Values(np.arange(1.0 * len(facts.players))), lambda n: 0, "symmetric"),
        (lambda game, facts, state, rng: Values(np.ones(len(facts.players))), lambda n: 0, "linear"),
    ],
)
def test_it_finds_a_valuation_that_does_not(code: Any, cost: Any, check: str) -> None:
    assert statuses(valuation(code, cost))[check] in ("does not hold", "refused")


def plain_mean(weights: Any, updates: Any, total: int, state: Any) -> Any:
    step = sum(update.delta * (update.num_examples / total) for update in updates if update.delta is not None)
    return weights + step, state


def goes_on(weights: Any, updates: Any, total: int, state: Any) -> Any:
    after, _ = plain_mean(weights, updates, total, {})
    step = after - weights + 0.5 * state.get("carried", torch.zeros_like(weights))
    return weights + step, {"carried": step}


def half_of_carried(members: Any, sizes: Any, products: Any, state: Any) -> Any:
    return 0.5, members * sizes / sizes.sum()


def strategy(code: Any) -> Kind:
    return Kind(family="strategy", name="strategy", help="", code=code)


def in_place(weights: Any, updates: Any, total: int, state: Any) -> Any:
    for update in updates:
        if update.delta is not None:
            weights += update.delta
    return weights, state


def scales_updates(weights: Any, updates: Any, total: int, state: Any) -> Any:
    for update in updates:
        if update.delta is not None:
            update.delta.mul_(0.5)
    return weights.clone(), state


def first_alone(weights: Any, updates: Any, total: int, state: Any) -> Any:
    sent = [update.delta for update in updates if update.delta is not None]
    return weights + (sent[0] if sent else 0.0), state


def counts_in_python(weights: Any, updates: Any, total: int, state: Any) -> Any:
    return weights.clone(), {"rounds": state.get("rounds", 0) + 1}


def counts_in_place(weights: Any, updates: Any, total: int, state: Any) -> Any:
    state = state or {"rounds": torch.zeros(1)}
    state["rounds"] += 1
    return weights.clone(), state


@pytest.mark.parametrize(
    ("code", "check"),
    [
        (in_place, "input_unchanged"),
        (scales_updates, "input_unchanged"),
        (counts_in_place, "input_unchanged"),
        (lambda weights, updates, total, state: weights, "float_weights"),
        (lambda weights, updates, total, state: (weights.double(), state), "float_weights"),
        (lambda weights, updates, total, state: (weights[:-1], state), "float_weights"),
        (lambda weights, updates, total, state: (weights * float("nan"), state), "float_weights"),
        (counts_in_python, "float_weights"),
        (
            lambda weights, updates, total, state: (
                weights + next(u.delta for u in updates if u.delta is not None),
                state,
            ),
            "nobody_sends",
        ),
        (lambda weights, updates, total, state: (weights + list(updates)[1].num_examples, state), "one_client"),
        (lambda weights, updates, total, state: (weights + torch.rand(1), state), "repeatable"),
        (lambda weights, updates, total, state: (weights + torch.rand(1) * 0, state), "pure"),
        (first_alone, "any_order"),
        (lambda weights, updates, total, state: (weights + 1, state), "stands_still"),
        (lambda weights, updates, total, state: (weights.clone(), state), "follows_all"),
        (first_alone, "follows_all_is_kept"),
        (plain_mean, "weighted_sum"),
        (
            Strategy(plain_mean, coefficients=lambda members, sizes, products, state: (0.0, sizes / sizes.sum())),
            "true_coefficients",
        ),
        (
            Strategy(plain_mean, coefficients=lambda members, sizes, *_: (0.0, members * sizes / 400)),
            "true_coefficients",
        ),
        (
            Strategy(goes_on, coefficients=lambda members, sizes, *_: (0.6, members * sizes / sizes.sum())),
            "weighted_sum",
        ),
        (Strategy(goes_on, coefficients=half_of_carried), "weighted_sum_is_kept"),
    ],
)
def test_it_finds_a_strategy_that_does_not(code: Any, check: str) -> None:
    found = statuses(strategy(code))
    if check.endswith("_is_kept"):
        assert found[check.removesuffix("_is_kept")] == "holds"
    else:
        assert found[check] in ("does not hold", "refused")


def behaviour(**hooks: Any) -> Kind:
    return Kind(family="behaviour", name="behaviour", help="", code=lambda: Behaviour(**hooks))


def flips_in_place(labels: Any, classes: int, generator: Any) -> Any:
    labels[:] = classes - 1 - labels
    return labels


@pytest.mark.parametrize(
    ("hooks", "check"),
    [
        ({"silence": 2.0}, "hooks"),
        ({"effort": -0.5}, "hooks"),
        ({"labels": lambda labels, classes, generator: labels.float()}, "hooks"),
        ({"labels": lambda labels, classes, generator: labels[:-1]}, "hooks"),
        ({"labels": lambda labels, classes, generator: labels + classes}, "hooks"),
        ({"update": lambda delta: delta.double()}, "hooks"),
        ({"update": lambda delta: delta[:-1]}, "hooks"),
        ({"update": lambda delta: delta / 0}, "hooks"),
        ({"labels": flips_in_place}, "input_unchanged"),
        ({"update": lambda delta: delta.mul_(-1)}, "input_unchanged"),
        ({"update": lambda delta: delta + torch.randn(len(delta))}, "same_on_resume"),
        ({"labels": lambda labels, classes, generator: labels.roll(int(torch.rand(1) * 0))}, "pure"),
        ({"silence": 0.5}, "always_sends"),
        ({"labels": lambda labels, classes, generator: classes - 1 - labels}, "honest_labels"),
        ({"update": lambda delta: -delta}, "honest_update"),
        ({"epochs": 0}, "hooks"),
        ({"reported": 0.0}, "hooks"),
        ({"reported": 2.0}, "honest_size"),
        ({"trains": False}, "hooks"),
        ({"data": lambda n, generator: torch.arange(n) + 1}, "hooks"),
        ({"data": lambda n, generator: torch.zeros(n, dtype=torch.int64)}, "hooks"),
        ({"data": lambda n, generator: torch.arange(0)}, "hooks"),
        ({"data": lambda n, generator: torch.randperm(n)}, "same_on_resume"),
        ({"features": lambda x, generator: x[:, 0]}, "hooks"),
        ({"features": lambda x, generator: x.mul_(2)}, "input_unchanged"),
        ({"send": lambda seen: seen.step[:-1]}, "hooks"),
        ({"send": lambda seen: seen.step.mul_(2)}, "input_unchanged"),
        ({"send": lambda seen: seen.own + seen.step, "trains": False}, "hooks"),
        ({"send": lambda seen: -seen.own}, "honest_update"),
        ({"conspire": lambda seen: seen.honest.updates[0]}, "hooks"),
        ({"conspire": lambda seen: seen.honest.mean}, "hooks"),
        ({"conspire": lambda seen: seen.step, "send": lambda seen: seen.step}, "hooks"),
    ],
)
def test_it_finds_a_behaviour_that_does_not(hooks: Any, check: str) -> None:
    assert statuses(behaviour(**hooks))[check] in ("does not hold", "refused")


def model(*layers: Any, after: Any = lambda network: network) -> Kind:
    def build(info: Any) -> nn.Module:
        size = info.shape[0] * info.shape[1] * info.shape[2]
        return after(nn.Sequential(nn.Flatten(), *(layer(size) for layer in layers), nn.Linear(size, info.num_classes)))

    return Kind(family="model", name="model", help="", code=build)


class Unused(nn.Sequential):
    def __init__(self, network: nn.Sequential) -> None:
        super().__init__(*network)
        self.unused = nn.Parameter(torch.ones(3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        for layer in list(self)[:]:
            images = layer(images)
        return images


class Noise(nn.Module):
    """Drawn when it is built, and no parameter."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.noise = torch.randn(size)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images + self.noise


def fixed(network: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(0.01)
    return network


@pytest.mark.parametrize(
    ("kind", "check"),
    [
        (Kind(family="model", name="model", help="", code=lambda info: nn.Linear(3, 2)), "logits"),
        (Kind(family="model", name="model", help="", code=lambda info: "network"), "logits"),
        (model(after=lambda network: network.double()), "logits"),
        (model(nn.BatchNorm1d), "buffers_unchanged"),
        (model(lambda size: nn.Dropout()), "no_shared_draws"),
        (model(after=Unused), "all_have_gradients"),
        (model(Noise), "weights_round_trip"),
        (model(after=fixed), "seeded_weights"),
    ],
)
def test_it_finds_a_model_that_does_not(kind: Kind, check: str) -> None:
    assert statuses(kind)[check] == "refused"


def test_digests_tell_what_rests_on_the_process() -> None:
    def by_hash(facts: Any, pool: int, state: Any) -> Payment:
        order = sorted(range(len(facts.clients)), key=lambda place: id(object()) * 0 + place * SIGN)
        return Payment(shares=[pool if place == order[0] else 0 for place in range(len(order))])

    global SIGN
    SIGN = 1
    one = digest(rule(by_hash))
    assert one == digest(rule(by_hash))
    SIGN = -1
    assert one != digest(rule(by_hash))


SIGN = 1
