"""What all strategies have in common, and which of them are one another's special cases."""

import pytest
import torch

import kinds
from training import strategies
from training.config import TrainingConfig
from training.tests.updates import drawn, joined, update

NAMES = tuple(kinds.family("strategy"))
ROBUST = tuple(kind.name for kind in kinds.family("strategy").values() if "robust" in kind.traits)

SEVEN = drawn(7, 300)
PLAIN = ("fedavg", "fedprox")
ALIKE = ("trimmed_mean", "median", "multi_krum", "centred_clipping")  # a client's examples do not count


@pytest.mark.parametrize("strategy", NAMES)
def test_it_leaves_the_old_weights_and_the_updates_alone(strategy):
    weights, deltas = torch.ones(300), [each.delta.clone() for each in SEVEN]
    new, state = joined(strategy, SEVEN, weights=weights)
    joined(strategy, SEVEN, weights=new, state=state)
    assert torch.equal(weights, torch.ones(300))
    assert all(torch.equal(each.delta, delta) for each, delta in zip(SEVEN, deltas, strict=True))
    assert new.dtype == torch.float32
    assert not torch.equal(new, weights)


@pytest.mark.parametrize("strategy", NAMES)
def test_the_order_of_clients_does_not_matter(strategy):
    weights = torch.zeros(300)
    there, back = joined(strategy, SEVEN, weights=weights), joined(strategy, SEVEN[::-1], weights=weights)
    assert torch.allclose(there[0], back[0], rtol=0, atol=1e-6)  # values around 1, a few of them summed in float32
    assert there[1].keys() == back[1].keys()


@pytest.mark.parametrize("strategy", NAMES)
def test_it_stays_where_it_is_when_nobody_sends_anything(strategy):
    silent = [update(client, 5, None) for client in range(1, 6)]
    weights = torch.linspace(-1, 1, 300)
    new, state = joined(strategy, silent, weights=weights)
    assert torch.equal(new, weights)
    assert torch.equal(joined(strategy, silent, weights=weights, state=state)[0], weights)


@pytest.mark.parametrize("strategy", NAMES)
def test_a_silent_client_is_a_zero_update_or_is_not_there(strategy):
    """To a weighted mean it is zero at its full weight; a robust mean is over what arrived."""
    silent = [*SEVEN[:6], update(7, 7, None)]
    same = SEVEN[:6] if strategy in ROBUST else [*SEVEN[:6], update(7, 7, [0.0] * 300)]
    assert torch.equal(joined(strategy, silent)[0], joined(strategy, same)[0])


@pytest.mark.parametrize("strategy", NAMES)
def test_it_reads_the_updates_once(strategy):
    config = TrainingConfig.of(strategy=strategy)
    from_list, _ = strategies.join(config, torch.zeros(300), list(SEVEN), 28, {})
    from_stream, _ = strategies.join(config, torch.zeros(300), iter(SEVEN), 28, {})
    assert torch.equal(from_list, from_stream)


@pytest.mark.parametrize(
    ("strategy", "fields"),
    [
        ("fedprox", {"proximal_mu": 0.0}),
        ("fedprox", {"proximal_mu": 1.0}),  # the term is the clients' part, not the server's
        ("fedavgm", {"server_momentum": 0.0, "server_lr": 1.0}),
        ("fedavgm", {"server_momentum": 0.0}),
    ],
)
def test_it_is_fedavg_bit_for_bit(strategy, fields):
    usual, weights, state = torch.ones(300), torch.ones(300), {}
    for round_number in range(4):
        updates = drawn(5, 300, seed=round_number)
        usual, _ = joined("fedavg", updates, weights=usual)
        weights, state = joined(strategy, updates, weights=weights, state=state, **fields)
        assert torch.equal(weights, usual)


@pytest.mark.parametrize(
    ("strategy", "fields"),
    [
        ("trimmed_mean", {"num_malicious_clients": 0}),
        ("multi_krum", {"num_malicious_clients": 0}),  # all n of n are averaged
        ("centred_clipping", {"clipping_norm": 1e6}),
    ],
)
def test_it_is_fedavg_of_equal_clients_where_it_guards_against_nobody(strategy, fields):
    weights, state = torch.ones(300), {}
    for round_number in range(3):  # from the second on the clipping has another centre than zero
        updates = drawn(5, 300, seed=round_number, num_examples=[9] * 5)
        usual, _ = joined("fedavg", updates, weights=weights)
        weights, state = joined(strategy, updates, weights=weights, state=state, **fields)
        assert torch.allclose(weights, usual, rtol=0, atol=1e-6)


@pytest.mark.parametrize("strategy", ALIKE)
def test_a_robust_strategy_does_not_listen_to_claimed_sizes(strategy):
    claimed = drawn(7, 300, num_examples=[1, 1, 1, 10**6, 1, 1, 1])
    assert torch.equal(joined(strategy, SEVEN)[0], joined(strategy, claimed)[0])


@pytest.mark.parametrize("strategy", PLAIN)
def test_a_plain_strategy_does(strategy):
    claimed = drawn(7, 300, num_examples=[1, 1, 1, 10**6, 1, 1, 1])
    assert torch.allclose(joined(strategy, claimed)[0], claimed[3].delta, rtol=0, atol=1e-4)


@pytest.mark.parametrize("strategy", ALIKE)
def test_two_attackers_of_ten_cannot_drag_a_robust_strategy_far(strategy):
    towards = torch.linspace(0.5, 1.5, 300)
    honest = drawn(8, 300, scale=0.05, around=towards)
    attackers = [update(client, 1, (-1e6 * towards).tolist()) for client in (9, 10)]
    step, _ = joined(strategy, [*honest, *attackers])
    # the clipped mean hears attackers at the length of an honest update: 0.8 towards, 0.2 away; others not at all
    least = 0.55 if strategy == "centred_clipping" else 0.9
    assert least < torch.dot(step, towards) / torch.dot(towards, towards) < 1.1
    dragged, _ = joined("fedavg", [*honest, *attackers])
    assert torch.dot(dragged, towards) < 0
