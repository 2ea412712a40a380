"""Training on a real Ray of two nodes, a processor each, of which one is killed now and then."""

import dataclasses
import re
import sys
import time

import psutil
import pytest
import ray
import torch
from ray.cluster_utils import Cluster as Nodes

from training import backends, networks
from training.backends import batched, cluster, connection, crew
from training.backends.actor import Actor, Kind, Order, without_images
from training.config import ConfigError, TrainingConfig
from training.events import Log, RoundTrained, TrainingError
from training.loop import run
from training.tests.crowd import MANY
from training.tests.test_batched import config_for, odd_network, ragged, same_bits

SIZES = range(1, 60, 3)  # of clients: ragged, and many more than there are processors


@pytest.fixture(scope="module")
def nodes():
    """A head, to which this process belongs, and another node."""
    nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    nodes.add_node(num_cpus=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", nodes.address)
        yield nodes
    ray.shutdown()
    nodes.shutdown()


@pytest.fixture(scope="module")
def train(nodes):
    """The actors stay from test to test, as from round to round, while the network is the same."""
    return backends.choose("ray")


@pytest.fixture
def own(train):
    """A backend of the test's own; those actors let go of their processors first."""
    train.__self__.crew = train.__self__.placed = None
    return backends.choose("ray")


@pytest.fixture(scope="module")
def odd():
    return odd_network()


def trained(train, network, tasks, data, config=None, meanwhile=lambda: None):
    """The updates; `meanwhile` is what happens after the first."""
    updates = train(network, networks.flatten(network), tasks, data, config or config_for(), 3)
    first = next(updates)
    meanwhile()
    return [first, *updates]


class Once:
    """A behaviour's kind that is honest, but what reads it has the expression evaluated first."""

    def __init__(self, expression):
        self.expression = expression

    def __reduce__(self):
        return eval, (f"({self.expression}, 'honest')[1]",)


def with_once(task, expression):
    return dataclasses.replace(task, behaviour={"kind": Once(expression)})


def wait_for_the_other(nodes):
    """Until the other node's actor is ready: it is given a part of the next round."""
    (other,) = nodes.worker_nodes
    (raylet,) = other.all_processes["raylet"]
    deadline = time.monotonic() + crew.START_SECONDS
    while "ray::Actor" not in [child.name() for child in psutil.Process(raylet.process.pid).children()]:
        assert time.monotonic() < deadline, "it must have a part in the training"
        time.sleep(0.1)


@pytest.fixture
def another_node(nodes):
    """In the place of the one that is killed."""
    yield
    if not nodes.worker_nodes:
        nodes.add_node(num_cpus=1)


def test_it_gives_the_bits_of_the_local_backend(train, digits):
    config = config_for(model="cnn", momentum=0.5, strategy="fedprox")
    network = networks.build("cnn", digits.info, torch.Generator().manual_seed(4))
    silent, corrected, *others = ragged(*SIZES)
    correction = torch.randn(len(networks.flatten(network)), generator=torch.Generator().manual_seed(1))
    silent = dataclasses.replace(silent, behaviour={"kind": "free_rider"})
    tasks = [silent, dataclasses.replace(corrected, correction=correction), *others]
    local, there = (trained(each, network, tasks, digits, config) for each in (batched.train, train))
    assert [update.client for update in there] == [task.client for task in tasks]
    assert [update.num_examples for update in there] == [*SIZES]
    assert local[0].delta is there[0].delta is None
    assert same_bits(local[1:], there[1:])


def test_it_hands_over_updates_that_are_the_readers_own(train, digits, odd):
    """A strategy may write into them."""
    updates = trained(train, odd, ragged(*SIZES), digits)
    assert all(update.delta.zero_().sum() == 0 for update in updates)


def test_a_round_begins_at_its_own_weights(train, digits, odd):
    for scale in (1.0, 0.5):
        weights = scale * networks.flatten(odd)
        local, there = (
            list(each(odd, weights, ragged(9, 8, 7), digits, config_for(), 3)) for each in (batched.train, train)
        )
        assert same_bits(local, there)


def test_an_actor_that_is_killed_is_replaced_and_its_clients_are_trained_again(train, digits, odd, tmp_path, caplog):
    """Three of them, each in the middle of a block."""
    tasks = ragged(*SIZES)
    local = trained(batched.train, odd, tasks, digits)
    for place in (2, 9, 18):
        mark = str(tmp_path / str(place))
        dies = "__import__('os').kill(__import__('os').getpid(), 9)"
        first = f"not __import__('os').path.exists({mark!r}) and (open({mark!r}, 'w').close(), {dies})"
        tasks[place] = with_once(tasks[place], first)
    assert same_bits(local, trained(train, odd, tasks, digits))
    assert caplog.text.count("A Ray actor is lost") >= 3


def test_it_names_the_client_that_failed_as_the_local_backend_does(train, digits, odd):
    tasks = ragged(*SIZES)
    tasks[11] = dataclasses.replace(tasks[11], indices=torch.tensor([10**6]))
    errors = []
    for each in (batched.train, train):
        with pytest.raises(TrainingError) as caught:
            trained(each, odd, tasks, digits)
        errors.append(caught.value)
    assert str(errors[0]) == str(errors[1])
    assert str(errors[1]).startswith("Round 3: the training of client 12 failed: IndexError: ")
    assert "in _job" in errors[1].__notes__[0], "the traceback must have come along"


@pytest.mark.parametrize("client", [2, 19])
def test_a_block_that_kills_every_actor_ends_the_run(train, digits, odd, monkeypatch, client):
    """Whatever was asked of that actor before or after it is not blamed. A node that has just died may still count."""
    monkeypatch.setattr(crew, "TRIES", 2)
    tasks = ragged(*SIZES)
    tasks[client - 1] = with_once(tasks[client - 1], "__import__('os')._exit(3)")
    says = r"^Round 3: the Ray actor that trained clients? (\d+)(?: to (\d+))? died, 2 times: "
    with pytest.raises(TrainingError, match=says) as caught:
        trained(train, odd, tasks, digits)
    first, last = re.match(says, str(caught.value)).groups()
    assert int(first) <= client <= int(last or first)


def test_a_block_with_which_an_actor_was_lost_is_given_out_alone(train):
    class Hand:
        """An actor that says nothing."""

        kind = train = property(lambda self: self)

        def remote(self, *_):
            return ray.put(None)

    dealt = crew.Crew(Hand)
    dealt.members = [crew.Member(Hand()), crew.Member(Hand())]
    for member in dealt.members:
        member.introduction = None
    order = Order(round_number=3, config=config_for(), weights=torch.zeros(1), cohort=batched.cohort_of(ragged(1)))
    dealing = crew.Dealing(dealt, order, [[ragged(1)]] * 6, 2)
    dealing.losses[1] = 1
    dealing._deal(0)
    assert [[number for number, _ in member.duties] for member in dealt.members] == [[0, 2], [1]]


def test_it_trains_a_little_ahead_and_stops_when_given_up(train, digits, odd, tmp_path):
    def begun():
        return len([*tmp_path.iterdir()])

    tasks = [with_once(each, f"open({str(tmp_path / str(each.client))!r}, 'w').close()") for each in ragged(*SIZES)]
    updates = train(odd, networks.flatten(odd), tasks, digits, config_for(), 3)
    next(updates)
    updates.close()
    tasks = ragged(*SIZES)
    assert same_bits(trained(batched.train, odd, tasks, digits), trained(train, odd, tasks, digits))
    assert 2 <= begun() <= 14  # five of eight blocks


def test_a_node_that_is_killed_changes_nothing(nodes, own, another_node, digits, caplog):
    """In the middle of the second of three rounds; the third has only the first node."""
    config = config_for(model="cnn", num_clients=10, num_rounds=3, local_epochs=5, partition="quantity")
    ends = [event.weights_sha256 for event in run(config, digits) if isinstance(event, RoundTrained)]
    there, second = [], False
    for event in run(dataclasses.replace(config, backend="ray"), digits):
        if isinstance(event, RoundTrained):
            there.append(event.weights_sha256)
        if isinstance(event, Log) and event.message.startswith("Round 2 of 3"):
            wait_for_the_other(nodes)
            second = True
        if second and isinstance(event, Log) and event.message.startswith("Client 1:"):
            nodes.remove_node(*nodes.worker_nodes, allow_graceful=False)  # with all its processes, at once
            second = False
    assert not nodes.worker_nodes, "it must have been killed"
    assert "A Ray actor is lost" in caplog.text
    assert there == ends


def test_a_run_in_which_few_play_fair_ends_with_the_same_weights(own, digits):
    config = MANY
    here, there = (
        [
            (event.weights_sha256, event.reports)
            for event in run(dataclasses.replace(config, backend=backend), digits)
            if isinstance(event, RoundTrained)
        ]
        for backend in ("batched", "ray")
    )
    assert here == there


def test_it_waits_for_a_processor_only_so_long(own, digits, odd, monkeypatch):
    class Other:
        def is_here(self):
            return True

    monkeypatch.setattr(crew, "START_SECONDS", 1.0)
    others = [ray.remote(num_cpus=1)(Other).remote() for _ in range(2)]
    ray.get([other.is_here.remote() for other in others])
    with pytest.raises(TrainingError, match=r"^No actor has started on the Ray cluster within 1 seconds"):
        trained(own, odd, ragged(9, 8), digits)


def test_it_says_why_no_actor_can_start(own, digits, odd):
    class Broken(Actor):
        def __init__(self):
            raise ImportError("there is no PyTorch on this node")

    own.__self__.crew = crew.Crew(lambda: ray.remote(num_cpus=1)(Broken).remote())
    own.__self__.placed = (odd, digits)
    with pytest.raises(TrainingError, match=r"^No actor could start .*there is no PyTorch on this node"):
        trained(own, odd, ragged(9, 8, 7), digits)


def test_it_refuses_nodes_of_another_kind(own, digits, odd, monkeypatch):
    here = crew.kind()
    monkeypatch.setattr(crew, "kind", lambda: Kind(pytorch="1.0", rounding="abc"))
    with pytest.raises(TrainingError, match=r"^backend: a node of the Ray cluster has PyTorch .*, this machine 1.0"):
        trained(own, odd, ragged(9, 8), digits)
    monkeypatch.setattr(crew, "kind", lambda: Kind(pytorch=torch.__version__, rounding="abc"))
    with pytest.raises(TrainingError, match=r"^backend: a node of the Ray cluster has a processor that rounds other"):
        crew._refuse_another_kind(here)


@pytest.mark.parametrize(
    ("clients", "chunk", "places", "update_bytes", "sizes"),
    [
        (20, 1, 2, 1000, [2, 3, 2, 3, 2, 3, 2, 3]),
        (10, 3, 2, 1000, [3, 3, 3, 1]),
        (100, 10, 2, 1000, [10, 10, 10, 20, 10, 10, 10, 20]),
        (3, 1, 64, 1000, [1, 1, 1]),
        (8, 1, 1, cluster.BLOCK_BYTES // 2, [2, 2, 2, 2]),
        (2, 1, 1, 9 * cluster.BLOCK_BYTES, [1, 1]),
    ],
)
def test_it_deals_whole_chunks_in_few_blocks(clients, chunk, places, update_bytes, sizes):
    tasks = ragged(*[1] * clients)
    chunks = [tasks[first : first + chunk] for first in range(0, clients, chunk)]
    blocks = cluster.deal(chunks, update_bytes, places)
    assert [sum(map(len, block)) for block in blocks] == sizes
    assert [each for block in blocks for each in block] == chunks


def test_what_is_sent_with_an_actor_has_no_images(digits):
    assert [len(each) for each in dataclasses.astuple(without_images(digits))[2:]] == [0] * 4


def test_it_is_a_choice_but_not_the_automatic_one():
    assert backends.choose("auto") is batched.train
    assert TrainingConfig.of(backend="ray").backend == "ray"


def test_it_has_no_gpu():
    with pytest.raises(ConfigError, match=r"^device: ray trains on processors; cuda is for the other backends$"):
        TrainingConfig.of(backend="ray", device="cuda")


def test_it_says_what_to_install(digits, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(TrainingError, match=r"^backend: ray is not installed here: pip install -r requirements-ray"):
        next(run(config_for(backend="ray"), digits))


def test_it_says_that_nobody_answers(digits, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    with pytest.raises(TrainingError, match=r"^backend: no Ray at 127\.0\.0\.1:9: .*refused"):
        next(run(config_for(backend="ray"), digits))


def test_it_takes_the_package_alone_to_the_nodes(tmp_path):
    connection.copy_of_our_code(tmp_path)
    copied = {path.name for path in tmp_path.iterdir()}, {path.name for path in (tmp_path / "training").iterdir()}
    assert copied[0] == {"training", "kinds"}
    assert {"clients.py", "backends"} <= copied[1]
    assert "tests" not in copied[1]
