"""A round's games against the strategy itself: its own join over each coalition's updates, one model at a time."""

import dataclasses
from math import comb

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import kinds
from training import networks, strategies
from training.clients import Update
from training.config import TrainingConfig
from training.events import ClientReport, RoundTrained, TrainingError
from training.game import CoalitionGame, Roster
from training.games import Joined, RoundGames, Weighted
from training.loop import run
from training.mixtures import Mixtures
from training.networks import build
from training.products import Products
from training.tests.test_game import INFO
from training.tests.updates import alike

STRATEGIES = ("fedavg", "fedprox", "fedavgm", "multi_krum", "centred_clipping", "median", "trimmed_mean", "fedadam")
CARRIED = {"fedavgm": ("velocity",), "centred_clipping": ("centre",), "fedadam": ("first_moment", "second_moment")}


def all_of(n):
    return (np.arange(2**n)[:, None] >> np.arange(n) & 1).astype(np.bool_)


def shapley(utilities, n):
    """From all 2^n utilities: phi_i = sum over S without i of (V(S + i) - V(S)) / (n C(n - 1, |S|))."""
    phi = np.zeros(n)
    for number in range(2**n):
        for i in range(n):
            if not number >> i & 1:
                gain = utilities[number | 1 << i] - utilities[number]
                phi[i] += gain / (n * comb(n - 1, number.bit_count()))
    return phi


def config_for(strategy, **fields):
    small = {"dataset": "digits", "validation_size": 137, "num_clients": 5, "num_rounds": 3, "model": "mlp", "lr": 0.1}
    return dataclasses.replace(TrainingConfig.of(**{**small, "strategy": strategy, **fields}), scheme=3)


def rounds_of(config, digits, value, **arguments):
    return [event for event in run(config, digits, value=value, **arguments) if isinstance(event, RoundTrained)]


def a_round(strategy, n=6, *, model="mlp", silent=(), zero=(), scheme=3, after=None, **fields):
    """Updates drawn at random, some alike, after a round of which the strategy carries something."""
    generator = torch.Generator().manual_seed(5)
    network = build(model, INFO, generator)
    weights = networks.flatten(network)
    deltas = 0.05 * torch.randn(n, len(weights), generator=generator) + 0.02 * torch.randn(
        len(weights), generator=generator
    )
    deltas[[*silent, *zero]] = 0.0
    state = {
        name: 0.03 * torch.randn(len(weights), generator=generator).abs() ** (1 + ("second" in name))
        for name in CARRIED.get(strategy, ())
    }
    reports = [
        ClientReport(
            client=10 + place,
            num_examples=11 + 7 * place,
            loss_before=None if place in silent else 1.0,
            loss_after=None if place in silent else 0.5,
            update_norm=float(torch.linalg.vector_norm(deltas[place])),
        )
        for place in range(n)
    ]
    return RoundGames(
        config=dataclasses.replace(TrainingConfig.of(strategy=strategy, num_clients=200, **fields), scheme=scheme),
        network=network,
        weights=weights,
        state=state,
        after=weights if after is None else after,
        reports=reports,
        deltas=deltas,
        x=torch.randn(37, *INFO.shape, generator=generator),
        y=torch.randint(INFO.num_classes, (37,), generator=generator),
        held=[report.num_examples for report in reports],
    )


def naive(games, members, utility, utility_weights):
    """The definition: the strategy joins what this coalition's members sent, others of the cohort being silent (fixed)
    or not there (renormalised)."""
    updates = []
    for report, delta in zip(games.reports, games.deltas, strict=True):
        sends = report.client in members
        if sends or utility_weights == "fixed" or not members:
            updates.append(
                Update(
                    client=report.client,
                    num_examples=report.num_examples,
                    sent=delta if sends else None,
                    loss_before=None,
                    loss_after=None,
                )
            )
    total = sum(update.num_examples for update in updates)
    weights, _ = strategies.join(games.config, games.weights, updates, total, games.state)
    score = networks.evaluate(games.network, weights, games.x, games.y)
    return -score.loss if utility == "loss" else score.accuracy


@pytest.mark.parametrize("utility_weights", ["fixed", "renormalised"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_coalition_is_worth_the_model_that_the_strategy_makes_of_it(strategy, utility_weights):
    games = a_round(strategy, silent=(1,), zero=(4,))
    game = games.of("server", "loss", utility_weights)
    coalitions = all_of(len(game.players))
    found = game(coalitions)
    players = np.array(game.players)
    expected = [naive(games, {*players[row].tolist()}, "loss", utility_weights) for row in coalitions]
    assert np.ptp(expected) > 0.01, "the coalitions must differ for the comparison to say something"
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert isinstance(game.models, Weighted) == (strategy not in ("median", "trimmed_mean", "fedadam"))


@pytest.mark.parametrize(
    ("strategy", "fields"),
    [
        ("multi_krum", {"num_malicious_clients": 2}),
        ("multi_krum", {"num_malicious_clients": 0}),
        ("centred_clipping", {"clipping_norm": 1.5}),
        ("fedavgm", {"server_lr": 0.5, "server_momentum": 0.3}),
    ],
)
def test_parameters_reach_the_coefficients(strategy, fields):
    games = a_round(strategy, 8, **fields)
    game = games.of("server", "loss", "renormalised")
    coalitions = np.random.default_rng(0).random((60, 8)) < 0.7
    expected = [naive(games, {*np.array(game.players)[row].tolist()}, "loss", "renormalised") for row in coalitions]
    np.testing.assert_allclose(game(coalitions), expected, rtol=1e-5)


@pytest.mark.parametrize("strategy", ["multi_krum", "centred_clipping", "fedavgm"])
def test_a_large_cohort_too(strategy):
    """More players than are mixed whether or not they differ; copies among them, whose scores are equal."""
    games = a_round(strategy, 40, model="logistic", silent=(7,))
    games.deltas[20:24] = games.deltas[3]
    game = games.of("server", "loss", "fixed")
    n = len(game.players)
    coalitions = np.vstack([np.ones((1, n), np.bool_), ~np.eye(n, dtype=np.bool_)[:6], np.eye(n, dtype=np.bool_)[:4]])
    expected = [naive(games, {*np.array(game.players)[row].tolist()}, "loss", "fixed") for row in coalitions]
    np.testing.assert_allclose(game(coalitions), expected, rtol=1e-5)


@pytest.mark.parametrize("utility_weights", ["fixed", "renormalised"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_shapley_values_and_what_is_carried_are_what_happened(strategy, utility_weights, digits):
    """Over rounds, so that velocity, centre and moments are there. Renormalised: where all send."""
    behaviours = {3: {"kind": "sign_flip"}, 4: {"kind": "low_effort"}}
    if utility_weights == "fixed":
        behaviours |= {1: {"kind": "free_rider"}, 2: {"kind": "dropout"}}

    def value(trained, games):
        game = games.of("server", "loss", utility_weights)
        return shapley(game(all_of(len(game.players))), len(game.players)).sum(), game.carried

    for event in rounds_of(config_for(strategy, behaviours=behaviours), digits, value):
        contributions, carried = event.valued
        happened = event.previous_validation_loss - event.validation_loss
        assert contributions + carried == pytest.approx(happened, abs=1e-6 * max(1.0, event.previous_validation_loss))
        goes_on = strategy in ("fedavgm", "fedadam") and event.round_number > 1
        assert (abs(carried) > 1e-4) == goes_on


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_they_are_what_happened_to_a_convolutional_network(strategy, digits):
    def value(trained, games):
        game = games.of("server", "loss", "fixed")
        return shapley(game(all_of(len(game.players))), len(game.players)).sum() + game.carried

    config = config_for(
        strategy, model="cnn", num_clients=3, num_rounds=2, partition="quantity", behaviours={2: {"kind": "sign_flip"}}
    )
    first, second = rounds_of(config, digits, value, sample=lambda sizes, number: (1, 2, 3))
    for event in (first, second):
        happened = event.previous_validation_loss - event.validation_loss
        assert event.valued == pytest.approx(happened, abs=1e-6 * max(1.0, event.previous_validation_loss))


@pytest.mark.parametrize("strategy", ["fedavgm", "fedadam", "centred_clipping"])
def test_nobody_is_worth_what_the_server_does_by_itself(strategy, digits):
    """The empty coalition is the round in which nobody sends: told by such a round."""
    config = config_for(
        strategy, num_rounds=2, behaviours={c: {"kind": "free_rider", "from_round": 2} for c in range(1, 6)}
    )
    asked = lambda _, games: (games.of("server", "loss", "fixed").players, games.of("server", "loss", "fixed").carried)  # noqa: E731
    _, event = rounds_of(config, digits, asked)
    players, carried = event.valued
    assert players == ()
    happened = event.previous_validation_loss - event.validation_loss
    assert carried == pytest.approx(happened, abs=1e-6)
    assert (happened == 0) == (strategy == "centred_clipping")


def test_krums_coefficients_worked_by_hand():
    """Five updates of one weight, 0, 1, 2, 3 and 100; f = 1: each score is the sum of its two smallest squared
    distances, 1 + 4, 1 + 1, 1 + 1, 1 + 4 and 97^2 + 98^2: all but the last have a quarter. Of three f is 0."""
    games = a_round("multi_krum", 5, num_malicious_clients=1)
    games.deltas[:] = 0.0
    games.deltas[:, 0] = torch.tensor([0.0, 1.0, 2.0, 3.0, 100.0])
    members = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]], np.bool_)
    found = strategies.coefficients(games.config.strategy, members, np.ones((4, 5), np.int64), games.products, {})
    third = 1 / 3
    expected = [[0, 0.25, 0.25, 0.25, 0.25, 0], [0, third, third, third, 0, 0], [0, 0, 0, 0, 0, 1], [0] * 6]
    np.testing.assert_allclose(found, expected, atol=1e-15)


def test_clippings_coefficients_worked_by_hand():
    """Updates 1, 5 and -3 of one weight around the centre 1, r = 2: distances 0, 4 and 4, so shares 1, 1/2, 1/2."""
    games = a_round("centred_clipping", 3, clipping_norm=2.0)
    games.deltas[:] = 0.0
    games.deltas[:, 0] = torch.tensor([1.0, 5.0, -3.0])
    games.state["centre"][:] = 0.0
    games.state["centre"][0] = 1.0
    members = np.array([[1, 1, 1], [0, 1, 0], [0, 0, 0]], np.bool_)
    found = strategies.coefficients(
        games.config.strategy, members, np.ones((3, 3), np.int64), games.products, games.state
    )
    np.testing.assert_allclose(found, [[1 / 3, 1 / 3, 1 / 6, 1 / 6], [0.5, 0, 0.5, 0], [0, 0, 0, 0]], atol=1e-15)


@pytest.mark.parametrize("strategy", ["fedavg", "fedavgm"])
def test_a_zero_update_is_no_player_of_a_mean_under_fixed_weights(strategy):
    games = a_round(strategy, silent=(0,), zero=(2,))
    assert games.of("server", "loss", "fixed").players == (11, 13, 14, 15)
    assert games.of("server", "loss", "renormalised").players == (11, 12, 13, 14, 15)
    assert games.of("fedavg", "loss", "fixed").players == (11, 13, 14, 15)
    assert games.of("fedavg", "loss", "fixed").cohort == games.cohort == (10, 11, 12, 13, 14, 15)
    assert games.num_examples == (11, 18, 25, 32, 39, 46)
    assert games.of("fedavg", "loss", "fixed").num_examples == (18, 32, 39, 46)


def test_who_sent_zeros_to_a_robust_strategy_plays():
    for weights in ("fixed", "renormalised"):
        assert a_round("multi_krum", silent=(0,), zero=(2,)).of("server", "loss", weights).players == (
            11,
            12,
            13,
            14,
            15,
        )


@pytest.mark.parametrize("strategy", ["fedavg", "multi_krum", "median"])
def test_equal_questions_are_one_game_and_a_coalition_is_evaluated_once(strategy, monkeypatch):
    games = a_round(strategy)
    game = games.of("server", "loss", "fixed")
    assert game is games.of("server", "loss", "fixed")
    assert game is not games.of("server", "accuracy", "fixed")
    assert (game is games.of("server", "loss", "renormalised")) == (strategy != "fedavg")
    assert (game is games.of("fedavg", "loss", "fixed")) == (strategy == "fedavg")
    asked, utilities = [], game.models.utilities
    monkeypatch.setattr(game.models, "utilities", lambda members: asked.append(len(members)) or utilities(members))
    everyone = game(np.ones((3, 6), np.bool_))
    together = game(all_of(6))
    assert asked == [1, 63]
    assert set(everyone) == {together[-1]}


def test_coalitions_of_which_the_strategy_makes_one_model_are_evaluated_once(monkeypatch):
    evaluated, evaluate = [], Mixtures.__call__

    def counted(mixtures, blocks):
        blocks = [*blocks]
        evaluated.extend(row.tobytes() for block in blocks for row in block)
        return evaluate(mixtures, blocks)

    monkeypatch.setattr(Mixtures, "__call__", counted)
    games = a_round("multi_krum")
    game, alone = (dataclasses.replace(games).of("server", "loss", "fixed") for _ in range(2))
    together = game(all_of(6))
    assert len(evaluated) == len({*evaluated}) < 64
    assert [alone(row[None])[0] for row in all_of(6)] == together.tolist()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_coalition_has_the_same_bits_alone_and_beside_others(strategy):
    together = a_round(strategy).of("server", "loss", "fixed")(all_of(6))
    apart = a_round(strategy).of("server", "loss", "fixed")
    order = np.random.default_rng(1).permutation(64)
    for number in order[:12]:
        assert apart(all_of(6)[[number]])[0] == together[number]


@pytest.mark.parametrize("scheme", [1, 2])
@pytest.mark.parametrize("strategy", ["fedavg", "median"])
def test_earlier_schemes_keep_their_game(strategy, scheme):
    games = a_round(strategy, silent=(0,), scheme=scheme)
    game = games.of("fedavg", "loss", "renormalised")
    assert type(game) is CoalitionGame
    assert game.players == ((10,) if scheme == 1 else ()) + (11, 12, 13, 14, 15)
    assert game.total_examples == sum(games.num_examples)
    with pytest.raises(ValueError, match=r"game: 'server' is not one of fedavg"):
        games.of("server", "loss", "fixed")


@pytest.mark.parametrize("names", [("mine", "loss", "fixed"), ("server", "gain", "fixed"), ("server", "loss", "equal")])
def test_it_names_what_it_does_not_know(names):
    with pytest.raises(ValueError, match="is not one of"):
        a_round("fedavg").of(*names)


def test_without_updates_there_is_a_roster():
    games = dataclasses.replace(a_round("median", silent=(0,)), deltas=None)
    game = games.of("server", "loss", "fixed")
    assert isinstance(game, Roster)
    assert (game.players, game.cohort, game.num_examples) == ((11, 12, 13, 14, 15), games.cohort, (18, 25, 32, 39, 46))
    with pytest.raises(ValueError, match="not kept"):
        _ = games.products


def test_the_catalogue_says_whose_step_is_a_weighted_sum():
    for name, kind in kinds.family("strategy").items():
        if "/" not in name:
            assert ("weighted_sum" in kind.traits) == strategies.weighs(kinds.checked("strategy", name, "strategy"))


def test_others_are_joined_with_the_state_before_the_round():
    games = a_round("fedadam")
    game = games.of("server", "loss", "fixed")
    assert isinstance(game.models, Joined)
    kept = {name: tensor.clone() for name, tensor in games.state.items()}
    game(all_of(6)[:5])
    assert all(torch.equal(kept[name], games.state[name]) for name in kept)


def half_again(weights, updates, total_examples, state):
    """A plug-in's: the mean, and half of its last step again."""
    step = 0.5 * state.get("carried", torch.zeros_like(weights))
    for update in updates:
        if update.delta is not None:
            step = step + update.delta * (update.num_examples / total_examples)
    return weights + step, {"carried": step}


def parts_of_half_again(members, sizes, products, state):
    assert members.shape == sizes.shape == products.squared_norms.shape
    return 0.5, members * sizes / sizes.sum()


@pytest.fixture
def plugged():
    yield lambda code: kinds.plug([kinds.Kind(family="strategy", name="lab/half_again", help="", code=code)])
    kinds.plug([])


@pytest.mark.parametrize("utility_weights", ["fixed", "renormalised"])
@pytest.mark.parametrize("code", [half_again, strategies.Strategy(half_again, coefficients=parts_of_half_again)])
def test_a_plug_in_is_asked_for_coefficients_or_joins(code, utility_weights, plugged):
    plugged(code)
    games = a_round("lab/half_again", 4, silent=(1,))
    games = dataclasses.replace(games, state={"carried": games.deltas[0] / 2})
    game = games.of("server", "loss", utility_weights)
    assert isinstance(game.models, Joined if code is half_again else Weighted)
    players = np.array(game.players)
    expected = [naive(games, {*players[row].tolist()}, "loss", utility_weights) for row in all_of(3)]
    np.testing.assert_allclose(game(all_of(3)), expected, rtol=1e-5)
    assert abs(game.carried) > 1e-4


@pytest.mark.parametrize(
    "wrong",
    [
        lambda members, sizes, products, state: (0.5, sizes / sizes.sum()),
        lambda members, sizes, products, state: (0.5, members * np.inf),
        lambda members, sizes, products, state: sizes,
        lambda members, sizes, products, state: (0.5, products.along("nothing")),
    ],
)
def test_a_plug_ins_wrong_coefficients_are_named(wrong, plugged):
    plugged(strategies.Strategy(half_again, coefficients=wrong))
    with pytest.raises(TrainingError, match=r"^strategy: lab/half_again gives "):
        a_round("lab/half_again", 4).of("server", "loss", "fixed")(all_of(4))


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("multi_krum", {"num_malicious_clients": None}),
        ("multi_krum", {"num_malicious_clients": 2}),
        ("centred_clipping", {"clipping_norm": None}),
        ("centred_clipping", {"clipping_norm": 1.0}),
        ("fedavgm", {"server_lr": 0.5, "server_momentum": 0.5}),
    ],
)
@settings(max_examples=40, deadline=None)
@given(
    deltas=st.lists(st.lists(st.integers(-9, 9), min_size=2, max_size=2), min_size=1, max_size=10),
    silent=st.sets(st.integers(0, 9), max_size=2),
)
def test_coefficients_give_the_step_that_is_taken(name, fields, deltas, silent):
    """Of small whole numbers, whose products are exact, so that equal scores are equal: the lower number goes first."""
    deltas = torch.tensor(deltas, dtype=torch.float32)
    members = np.array([place not in silent for place in range(len(deltas))])
    choice = TrainingConfig.of(strategy={"kind": name, **fields}, num_clients=20).strategy
    state = {choice.load().carried: torch.tensor([1.0, -2.0])}
    products = Products(deltas, np.ones(len(deltas), np.bool_), {"carried": lambda: torch.tensor([1.0, -2.0])})
    found = strategies.coefficients(choice, members[None], np.ones((1, len(deltas)), np.int64), products, state)[0]
    step = found[0] * np.array([1.0, -2.0]) + found[1:] @ deltas.double().numpy()
    updates = alike(*(delta.tolist() if sends else None for delta, sends in zip(deltas, members, strict=True)))
    taken, _ = choice.load().join(torch.zeros(2), updates, len(deltas), state, **choice.parameters)
    np.testing.assert_allclose(step, taken.numpy(), atol=1e-6)
