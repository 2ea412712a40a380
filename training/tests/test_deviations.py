"""What each behaviour sends, reports and costs: by hand, against a second implementation, and in whole runs."""

import dataclasses
import math
from statistics import NormalDist

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training import checkpoints, clients, federation
from training.answers import Makers, completed
from training.clients import Honest, Seen, Task, Update
from training.config import TrainingConfig
from training.deviations import largest_z
from training.events import Log, RoundTrained, TrainingError
from training.loop import run
from training.tests.crowd import CROWD, EVERYBODY, HONEST, UNTRAINED, config_for
from training.tests.timeless import timeless

X = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]])
STEP = torch.tensor([3.0, 0.0, -4.0, 0.0])


def behaviour(kind: str, **parameters) -> clients.Behaviour:
    return clients.loaded(TrainingConfig.of(behaviours={1: {"kind": kind, **parameters}}).behaviours[1])


def seen(step=STEP, *, round_number=2, honest=(), num_conspiring=0, seed=0) -> Seen:
    return Seen(
        round_number=round_number,
        generator=torch.Generator().manual_seed(seed),
        step=step,
        own=None,
        honest=Honest(step, honest),
        num_conspiring=num_conspiring,
    )


def agreed(kind: str, *, num_conspiring=1, honest=X, **parameters) -> list[float]:
    view = seen(torch.zeros(3), honest=list(honest), num_conspiring=num_conspiring)
    return behaviour(kind, **parameters).conspire(view).tolist()


def played(config, data, **arguments):
    """Rounds of a run, each with the updates of its cohort [n, P] and the weights before it."""

    def kept(trained, games):
        return games.deltas.clone(), games.weights.clone()

    events = run(dataclasses.replace(config, scheme=3), data, value=kept, **arguments)
    return [event for event in events if isinstance(event, RoundTrained)]


# what is sent without training


def test_a_replay_is_the_last_global_step_and_nothing_at_first():
    assert behaviour("replay").send(seen()).tolist() == STEP.tolist()
    assert behaviour("replay").send(seen(torch.zeros(4), round_number=1)).tolist() == [0.0] * 4


def test_noise_is_uniform_and_as_long_as_the_last_global_step():
    step = torch.full((100_000,), 0.5)
    sent = behaviour("noise").send(seen(step))
    assert torch.linalg.vector_norm(sent).item() == pytest.approx(0.5 * math.sqrt(100_000), rel=1e-5)
    share = torch.histc(sent, 10, -sent.abs().max(), sent.abs().max()) / len(sent)
    assert share.sub(0.1).abs().max() < 0.005
    assert not behaviour("noise").send(seen(torch.zeros(4), round_number=1)).any()


def test_a_disguised_replay_is_off_by_normal_noise_and_nothing_at_first():
    step = torch.linspace(-1, 1, 100_000)
    off = behaviour("disguised_replay", sigma=0.01).send(seen(step)) - step
    assert off.std().item() == pytest.approx(0.01, rel=0.02)
    assert off.mean().abs().item() < 1e-4
    assert not behaviour("disguised_replay").send(seen(torch.zeros(4), round_number=1)).any()


def test_gaussian_noise_knows_nothing_of_the_model():
    sent = behaviour("gaussian", sigma=2.0).send(seen(torch.zeros(100_000), round_number=1))
    assert sent.std().item() == pytest.approx(2.0, rel=0.02)


def test_it_is_drawn_from_seed_round_and_client_alone(digits):
    config = config_for(behaviours={client: {"kind": "gaussian"} for client in (2, 5)})
    first, again = played(config, digits), played(config, digits)
    other = played(dataclasses.replace(config, seed=1), digits)
    rows = [each.valued[0][[1, 4]] for each in first]
    assert all(torch.equal(one, two.valued[0][[1, 4]]) for one, two in zip(rows, again, strict=True))
    drawn = [row for each in (*rows, other[0].valued[0][[1, 4]]) for row in each]
    assert len({row[0].item() for row in drawn}) == len(drawn)


# what is agreed on, after the honest updates of a round


@given(st.integers(1, 12), st.integers(1, 30), st.integers(0, 2**31))
@settings(deadline=None, max_examples=30)
def test_they_agree_on_any_updates(num_honest, size, seed):
    updates = np.random.default_rng(seed).normal(size=(num_honest, size)).astype(np.float32)
    honest = list(torch.from_numpy(updates))
    mean = updates.astype(np.float64).mean(0)
    np.testing.assert_allclose(agreed_of("ipm", honest, tau=3.0), -3 * mean, rtol=1e-6, atol=1e-7)
    deviation = updates.astype(np.float64).std(0, ddof=1) if num_honest > 1 else 0.0
    np.testing.assert_allclose(agreed_of("alie", honest, z=1.2), mean - 1.2 * deviation, rtol=1e-6, atol=1e-6)


def agreed_of(kind, honest, **parameters):
    view = seen(torch.zeros_like(honest[0]), honest=honest, num_conspiring=1)
    return behaviour(kind, **parameters).conspire(view).numpy()


@pytest.mark.parametrize(
    ("num_honest", "num_conspiring", "share"),
    [
        (38, 12, 24 / 38),  # n = 50, s = 26 - 12
        (6, 4, 4 / 6),  # n = 10, s = 6 - 4
        (3, 4, 2 / 3),  # more than half conspire: one supporter is enough
        (8, 2, 0.5),  # n = 10, s = 6 - 2
        (1, 1, 0.5),  # below that it would be on the other side of the mean
        (0, 2, 0.5),
    ],
)
def test_the_most_that_hides_is_by_the_papers_formula(num_honest, num_conspiring, share):
    assert largest_z(num_honest, num_conspiring) == pytest.approx(NormalDist().inv_cdf(share))


def test_where_nobody_is_honest_there_is_nothing_to_send():
    for kind in ("alie", "ipm", "mimic"):
        assert agreed(kind, honest=()) == [0.0] * 3


# what is trained on, and what is said of it


@pytest.mark.parametrize(("fraction", "count"), [(0.0, 1), (0.2, 10), (1.0, 50)])
def test_less_data_is_a_share_of_the_examples_the_same_each_time(fraction, count):
    choose = behaviour("less_data", fraction=fraction).data
    places = choose(50, torch.Generator().manual_seed(3))
    assert len(places.unique()) == count
    assert places.tolist() == sorted(places.tolist())
    assert torch.equal(choose(50, torch.Generator().manual_seed(3)), places)


@given(st.floats(0, 1), st.integers(2, 12), st.integers(1, 200), st.integers(0, 2**31))
@settings(deadline=None, max_examples=50)
def test_label_noise_gives_another_label_to_the_wanted_share(fraction, num_classes, size, seed):
    labels = torch.arange(size) % num_classes
    noisy = behaviour("label_noise", fraction=fraction).labels(labels, num_classes, torch.Generator().manual_seed(seed))
    assert int((noisy != labels).sum()) == round(fraction * size)
    assert noisy.min() >= 0
    assert noisy.max() < num_classes
    assert torch.equal(labels, torch.arange(size) % num_classes)


def test_label_noise_is_even_over_the_other_labels():
    labels = torch.full((90_000,), 3)
    noisy = behaviour("label_noise").labels(labels, 10, torch.Generator().manual_seed(0))
    counts = torch.bincount(noisy, minlength=10)
    assert counts[3] == 0
    assert all(9_600 < count < 10_400 for place, count in enumerate(counts.tolist()) if place != 3)


def test_an_update_is_sent_many_times_as_large():
    assert behaviour("scaled", scale=2.5).update(torch.tensor([1.0, -2.0])).tolist() == [2.5, -5.0]


def test_noisy_inputs_stand_behind_the_true_ones_which_stay(digits):
    config = config_for(behaviours={2: {"kind": "feature_noise", "sigma": 3.0, "from_round": 2, "to_round": 2}})
    federated = federation.gather(config, digits)
    held = federated.holdings.clients[1]
    assert torch.equal(federated.data.train_x[: len(digits.train_x)], digits.train_x)
    assert len(federated.data.train_x) == len(federated.data.train_y) == len(digits.train_x) + len(held)
    (before,), (during,), (after,) = (federation.tasks(federated, [2], number) for number in (1, 2, 3))
    assert before.indices.tolist() == after.indices.tolist() == held.tolist()
    off = federated.data.train_x[during.indices] - digits.train_x[held]
    assert off.std().item() == pytest.approx(3.0, rel=0.03)
    assert torch.equal(federated.data.train_y[during.indices], digits.train_y[held])
    assert federation.started(federated).message == federation.started(federation.gather(config_for(), digits)).message


def test_who_lies_about_its_size_is_weighted_and_sampled_by_what_it_says(digits):
    lying = {3: {"kind": "over_report", "factor": 50.0, "from_round": 2}}
    config = config_for(behaviours=lying, sampler="by_size", fraction_fit=0.34, num_rounds=40)
    federated = federation.gather(config, digits)
    true, said = federation.num_reported(federated, 1), federation.num_reported(federated, 2)
    assert said.tolist() == [size * (50 if client == 3 else 1) for client, size in enumerate(true.tolist(), 1)]
    rounds = [event for event in run(config, digits) if isinstance(event, RoundTrained)][1:]
    assert sum(3 in each.cohort for each in rounds) > 35
    report = next(report for each in rounds for report in each.reports if report.client == 3)
    assert (report.num_examples, report.num_held, report.effort) == (50 * true[2], true[2], true[2])


def test_a_lie_about_ones_size_moves_the_mean(digits):
    config = config_for(num_rounds=1, behaviours={3: {"kind": "over_report", "factor": 4.0}})
    (only,) = played(config, digits)
    deltas, weights = only.valued
    sizes = torch.tensor([report.num_examples for report in only.reports], dtype=torch.float64)
    (honest,) = played(config_for(num_rounds=1), digits)
    assert torch.equal(deltas, honest.valued[0])
    state = []
    list(run(config, digits, value=lambda trained, games: state.append(games.after)))
    expected = weights + (sizes / sizes.sum()) @ deltas.double()
    assert (state[0] - expected).abs().max() < 1e-6


def test_a_straggler_takes_the_first_of_its_epochs(digits):
    task = Task(client=1, indices=torch.arange(50), behaviour={"kind": "straggler", "epochs": 2})
    honest = clients.work(dataclasses.replace(task, behaviour=clients.HONEST), digits, config_for(local_epochs=5), 1)
    late = clients.work(task, digits, config_for(local_epochs=5), 1)
    assert late.order.tolist() == honest.order[:100].tolist()
    assert clients.work(task, digits, config_for(), 1).widths == honest.widths[:4]


# whole runs


@pytest.fixture(scope="module")
def rounds(digits):
    return played(CROWD, digits)


def rows(of_round) -> dict[int, torch.Tensor]:
    return dict(zip(of_round.cohort, of_round.valued[0], strict=True))


def test_a_run_shows_what_everybody_sends(rounds):
    for before, now in zip([None, *rounds], rounds, strict=False):
        sent, weights = rows(now), now.valued[1]
        step = torch.zeros_like(weights) if before is None else weights - before.valued[1]
        assert torch.equal(sent[3], step)
        assert sent[2].norm().item() == pytest.approx(step.norm().item(), rel=1e-5)
        assert (sent[4] - step).std().item() == pytest.approx(0.0 if before is None else 0.001, rel=0.1)
        honest = torch.stack([sent[client] for client in (*HONEST, *((16,) if now.round_number < 3 else ()))])
        mean, std = honest.double().mean(0), honest.double().std(0)
        assert (sent[11] - (mean - largest_z(len(honest), 3) * std)).abs().max() < 1e-7
        assert (sent[12] + 0.5 * mean).abs().max() < 1e-7
        assert torch.equal(sent[13], sent[1])
        assert not sent[15].any()
        assert torch.equal(sent[16], step) is (now.round_number >= 3)


def test_effort_and_sizes_are_facts_of_everybody(rounds):
    for each in rounds:
        replaying = each.round_number >= 3
        for report in each.reports:
            client, held = report.client, report.num_held
            untrained = client in UNTRAINED or (client == 16 and replaying)
            assert report.sent is (client != 15)
            assert report.untrained is untrained
            assert (report.loss_before is None) is (untrained or client == 15)
            assert report.num_examples == (3 if client == 9 else 1) * held
            share = 0.0 if untrained or client == 15 else {6: 0.5, 14: 0.5}.get(client, 1.0)
            assert report.effort == pytest.approx(2 * held * share, abs=1)


@pytest.mark.parametrize(("model", "num_rounds"), [("mlp", 2), ("logistic", 3)])
def test_the_reference_sends_the_same(digits, model, num_rounds):
    config = dataclasses.replace(CROWD, num_rounds=num_rounds, model=model)
    fast, slow = (played(dataclasses.replace(config, backend=name), digits) for name in ("batched", "sequential"))
    for one, two in zip(fast, slow, strict=True):
        off = torch.linalg.vector_norm(one.valued[0] - two.valued[0], dim=1)
        assert (off <= 1e-3 * torch.linalg.vector_norm(two.valued[0], dim=1)).all()
        for here, there in zip(one.reports, two.reports, strict=True):
            assert (here.num_examples, here.effort, here.sent) == (there.num_examples, there.effort, there.sent)
        away = [report.client for report in one.reports if not report.sent]
        assert away == [15]


@pytest.mark.parametrize("round_number", [1, 2, 3])
def test_a_run_that_was_killed_ends_as_if_it_had_not_been(digits, tmp_path, round_number):
    whole, states = [], {}
    for event in run(CROWD, digits, checkpoints=tmp_path):
        whole.append(event)
        if isinstance(event, RoundTrained):
            states[event.round_number] = checkpoints.load(tmp_path, event.round_number, event.checkpoint_sha256)
    assert "previous_step" in states[round_number].kept
    resumed = list(run(CROWD, digits, checkpoints=tmp_path, resume=states[round_number]))
    place = next(i for i, event in enumerate(whole) if getattr(event, "round_number", None) == round_number)
    assert timeless(resumed[1:]) == timeless(whole[place + 1 :])


def test_nobody_elses_checkpoint_has_the_last_step(digits, tmp_path):
    config = config_for(num_rounds=1, behaviours={2: {"kind": "mimic"}, 3: {"kind": "free_rider"}})
    (only,) = (event for event in run(config, digits, checkpoints=tmp_path) if isinstance(event, RoundTrained))
    assert checkpoints.load(tmp_path, 1, only.checkpoint_sha256).kept == {}
    held = torch.load(tmp_path / "round-000001.pt", weights_only=True)
    assert "step" not in held


def test_others_draw_what_they_would_have_drawn(digits):
    """In the first round, where all start from the same weights."""
    honest, odd = (
        rows(played(dataclasses.replace(CROWD, num_rounds=1, behaviours=behaviours), digits)[0])
        for behaviours in ({}, EVERYBODY)
    )
    for client in (*HONEST, 16, 9):
        assert torch.equal(honest[client], odd[client])


def test_a_large_cohort_is_in_memory_only_where_somebody_conspires():
    """Otherwise each update is let go before the next one is asked for."""

    def asked_for_at_once(kind):
        odd = {2: Task(client=3, indices=torch.arange(3), behaviour={"kind": kind})}
        makers, asked = Makers.of(odd, config_for(), 2), []

        def arriving():
            for client in range(1, 9):
                asked.append(client)
                sent = None if client == 3 else torch.ones(4)
                loss = None if client == 3 else 1.0
                yield Update(client=client, num_examples=1, sent=sent, loss_before=loss, loss_after=loss)

        next(completed(arriving(), makers, STEP))
        return len(asked)

    assert asked_for_at_once("replay") == 1
    assert asked_for_at_once("mimic") == 8


def test_a_silent_conspirator_says_nothing_and_does_not_count():
    task = Task(client=1, indices=torch.arange(3), behaviour={"kind": "mimic", "from_round": 5})
    assert not Makers.of({0: task}, config_for(), 4)
    assert list(Makers.of({0: task}, config_for(), 5).conspirators) == [0]


def test_the_log_tells_who_does_not_play_fair(digits):
    few = {2: {"kind": "replay"}, 3: {"kind": "over_report"}, 4: {"kind": "free_rider"}}
    told = [event for event in run(config_for(num_rounds=1, behaviours=few), digits) if isinstance(event, Log)]
    warned = [event.message for event in told if event.level == "warning"]
    assert warned[0] == "Client 2 sent an update without training, update norm 0.00"
    assert warned[1].startswith("Client 3: loss ")
    assert warned[1].endswith("; it reports 446 examples and holds 223")
    assert warned[2:] == ["Client 4 sent no update"]
    many = dataclasses.replace(CROWD, num_rounds=1)
    warned = [each.message for each in run(many, digits) if isinstance(each, Log) and each.level == "warning"]
    assert warned == [
        "4 clients sent an update without training",
        "1 client reported another number of examples",
        "1 client sent no update",
    ]


def test_what_cannot_be_made_names_client_and_round():
    def wrong(seen):
        return seen.step[:2]

    odd = {0: Task(client=7, indices=torch.arange(3), behaviour={"kind": "replay"})}
    makers = Makers.of(odd, config_for(), 4)
    makers.senders[0] = clients.Behaviour(trains=False, send=wrong)
    text = r"^Round 4: what client 7 sends cannot be made: TypeError: it gives no float32 \[4\]$"
    with pytest.raises(TrainingError, match=text):
        makers.sent(0, STEP, None)
