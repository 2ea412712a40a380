"""One holder under several identities, and several that send one's update: who has what, who trains, what is told."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training import checkpoints, federation, partitions
from training.config import ConfigError, TrainingConfig
from training.events import Log, RoundTrained, Started, TrainingError
from training.loop import run
from training.tests.crowd import config_for
from training.tests.test_deviations import played, rows
from training.tests.timeless import timeless

SPLIT = {2: {"kind": "sybil_split", "identities": 3}}
COPY = {2: {"kind": "sybil_copy", "identities": 3}}
GROUP = {2: {"kind": "collusion", "group": [2, 4, 5]}}
ALL = {**SPLIT, 3: COPY[2], 4: {"kind": "collusion", "group": [5, 6]}}


# the configuration


def test_identities_are_numbered_after_the_clients_in_the_order_of_their_holders():
    config = config_for(behaviours={5: SPLIT[2], 2: {"kind": "sybil_copy", "identities": 2}})
    assert config.holders == {7: 2, 8: 5, 9: 5}
    assert (config.num_identities, config.cohort_size) == (9, 9)
    assert dataclasses.replace(config, fraction_fit=0.5).cohort_size == 4
    assert config_for().holders == {}


def test_a_population_has_its_identities_before_it_is_drawn():
    config = config_for(num_clients=10, population=[{"share": 0.3, "kind": "sybil_copy", "identities": 4}])
    assert config.num_identities == 19
    resolved = config.resolved("digits")
    assert resolved.num_identities == 19
    assert list(resolved.holders.values()) == sorted(list(resolved.behaviours) * 3)


def test_a_group_is_one_however_it_is_said():
    alike = [
        {2: {"kind": "collusion", "group": [4, 5]}},
        {5: {"kind": "collusion", "group": [2, 4, 5]}},
        {client: {"kind": "collusion", "group": "2, 4-5"} for client in (2, 4, 5)},
        {2: {"kind": "collusion", "group": [4, 5]}, 4: {"kind": "collusion", "group": [5, 2]}},
    ]
    found = [config_for(behaviours=each) for each in alike]
    assert all(each == found[0] for each in found)
    assert found[0].behaviours == {client: {"kind": "collusion", "group": [2, 4, 5]} for client in (2, 4, 5)}
    assert TrainingConfig.of(**found[0].to_dict()) == found[0]


@pytest.mark.parametrize(
    ("behaviours", "error"),
    [
        ({2: {"kind": "collusion"}}, "client 2: group: nobody else is named"),
        ({2: {"kind": "collusion", "group": [2]}}, "client 2: group: nobody else is named"),
        ({2: {"kind": "collusion", "group": [9]}}, "client 9 does not exist; num_clients is 6"),
        (
            {2: {"kind": "collusion", "group": [3]}, 3: {"kind": "replay"}},
            "client 2: group: client 3 does something else, or is of another group",
        ),
        (
            {2: {"kind": "collusion", "group": [3]}, 3: {"kind": "collusion", "group": [4]}},
            "client 2: group: client 3 does something else, or is of another group",
        ),
        (
            {2: {"kind": "collusion", "group": [3], "to_round": 2}, 3: {"kind": "collusion", "group": [2]}},
            "client 2: group: client 3 does something else, or is of another group",
        ),
        ({2: {"kind": "sybil_copy", "identities": 1}}, "client 2: identities: 1 is not at least 2 and at most 100"),
    ],
)
def test_what_cannot_be_is_said_of_the_client(behaviours, error):
    with pytest.raises(ConfigError) as caught:
        config_for(behaviours=behaviours)
    assert caught.value.errors == {"behaviours": error}


def test_of_a_population_those_that_are_drawn_are_the_group():
    config = config_for(num_clients=10, population=[{"share": 0.3, "kind": "collusion"}]).resolved("digits")
    assert len(config.behaviours) == 3
    assert all(given["group"] == list(config.behaviours) for given in config.behaviours.values())
    assert not config_for(population=[{"share": 0.1, "kind": "collusion"}]).resolved("digits").behaviours
    with pytest.raises(ConfigError, match="group: leave it empty"):
        config_for(population=[{"share": 0.5, "kind": "collusion", "group": [1, 2]}])


def test_an_identity_may_be_listed_and_a_behaviour_is_a_clients():
    config = config_for(behaviours=SPLIT, sampler={"kind": "listed", "include": [1, 8]})
    assert config.cohort_size == 2
    with pytest.raises(ConfigError, match="client 9 does not exist; num_clients is 6, with further identities 8"):
        config_for(behaviours=SPLIT, sampler={"kind": "listed", "include": [9]})
    with pytest.raises(ConfigError, match="client 7 does not exist"):
        config_for(behaviours={**SPLIT, 7: {"kind": "replay"}})


# who holds what


@given(st.integers(2, 8), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=20)
def test_identities_divide_what_their_holder_holds_and_nobody_elses(identities, seed):
    labels = np.arange(400) % 10
    honest = config_for(seed=seed, partition="dirichlet", min_available_clients=1).resolved("digits")
    dealt = partitions.deal(honest, labels)
    split = dataclasses.replace(honest, behaviours={2: {"kind": "sybil_split", "identities": identities}})
    if len(dealt.clients[1]) < identities:
        with pytest.raises(TrainingError, match="too few for"):
            partitions.deal(split, labels)
        return
    found = partitions.deal(split, labels)
    parts = [found.clients[1], *found.clients[6:]]
    assert len(parts) == identities
    assert np.array_equal(np.sort(np.concatenate(parts)), dealt.clients[1])
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert all((np.diff(part) > 0).all() for part in parts)
    assert np.array_equal(found.undivided[2], dealt.clients[1])
    for client in (0, 2, 3, 4, 5):
        assert np.array_equal(found.clients[client], dealt.clients[client])


def test_copies_hold_what_their_holder_holds(digits):
    honest, copied = (federation.gather(config_for(behaviours=each), digits) for each in ({}, COPY))
    assert len(copied.holdings.clients) == 8
    for client in (1, 6, 7):
        assert np.array_equal(copied.holdings.clients[client], honest.holdings.clients[1])
    started = federation.started(copied)
    assert [(share.client, share.holder, share.behaviour) for share in started.clients[5:]] == [
        (6, 6, "honest"),
        (7, 2, "sybil_copy"),
        (8, 2, "sybil_copy"),
    ]
    assert "1,337 images with 6 clients and 2 further identities of theirs" in started.message
    assert "1,337 images" in federation.started(federation.gather(config_for(behaviours=SPLIT), digits)).message


# whole runs


def test_copies_train_once_and_send_the_same_at_their_full_size(digits):
    (honest, *_), (first, *_) = played(config_for(), digits), played(config_for(behaviours=COPY), digits)
    sent, alone = rows(first), rows(honest)
    assert all(torch.equal(sent[client], alone[client]) for client in range(1, 7))
    assert torch.equal(sent[7], alone[2])
    assert torch.equal(sent[8], alone[2])
    reports = {report.client: report for report in first.reports}
    size = reports[2].num_examples
    assert [(reports[c].num_examples, reports[c].num_held, reports[c].effort) for c in (2, 7, 8)] == [
        (size, size, size),
        (size, size, 0),
        (size, size, 0),
    ]
    assert [reports[c].copies for c in (2, 7, 8)] == [None, 2, 2]
    assert [reports[c].untrained for c in (2, 7, 8)] == [False, True, True]
    assert reports[7].loss_before == reports[2].loss_before


def test_where_the_holder_is_not_sampled_the_first_of_its_identities_trains(digits):
    config = config_for(behaviours=COPY, sampler={"kind": "listed", "include": [1, 7, 8]})
    for each in played(config, digits):
        reports = {report.client: report for report in each.reports}
        assert [reports[c].copies for c in (7, 8)] == [None, 7]
        assert [reports[c].effort > 0 for c in (7, 8)] == [True, False]
        assert torch.equal(rows(each)[7], rows(each)[8])


def test_divided_ones_train_each_on_its_part(digits):
    config = config_for(behaviours=SPLIT)
    federated = federation.gather(config, digits)
    sizes = [len(federated.holdings.clients[client - 1]) for client in (2, 7, 8)]
    for each in played(config, digits):
        reports = {report.client: report for report in each.reports}
        assert [reports[c].num_examples for c in (2, 7, 8)] == sizes
        assert [reports[c].effort for c in (2, 7, 8)] == sizes
        assert len({rows(each)[c][0].item() for c in (2, 7, 8)}) == 3


def test_the_first_of_a_group_trains_for_all(digits):
    (honest, *_), (first, *_) = played(config_for(), digits), played(config_for(behaviours=GROUP), digits)
    for client in (4, 5):
        assert torch.equal(rows(first)[client], rows(honest)[2])
    reports = {report.client: report for report in first.reports}
    assert [reports[c].effort > 0 for c in (2, 4, 5)] == [True, False, False]
    assert [reports[c].num_examples for c in (2, 4, 5)] == [
        r.num_examples for r in honest.reports if r.client in (2, 4, 5)
    ]


@pytest.mark.parametrize("behaviours", [SPLIT, COPY, GROUP], ids=["split", "copy", "group"])
def test_outside_of_their_rounds_all_is_as_if_everybody_were_honest(digits, behaviours):
    bounded = {2: {**behaviours[2], "from_round": 3}}
    honest, odd = (played(config_for(num_rounds=4, behaviours=each), digits) for each in ({}, bounded))
    for one, two in zip(honest, odd, strict=True):
        same = one.weights_sha256 == two.weights_sha256
        assert same is (one.round_number < 3)
        if two.round_number < 3:
            assert two.reports[:6] == tuple(dataclasses.replace(r, holder=None) for r in one.reports)
            for report in two.reports[6:]:
                assert (report.sent, report.num_examples, report.num_held, report.effort) == (False, 0, 0, 0)


@pytest.mark.parametrize("strategy", ["fedavg", "multi_krum", "fedavgm"])
def test_a_round_in_which_only_identities_that_are_not_there_are_drawn(digits, strategy):
    bounded = {2: {**COPY[2], "from_round": 2}}
    sampler = (
        {"kind": "listed", "include": [7, 8]} if strategy != "multi_krum" else {"kind": "listed", "include": [6, 7, 8]}
    )
    config = config_for(behaviours=bounded, sampler=sampler, strategy=strategy, num_rounds=2)
    for backend in ("batched", "sequential"):
        first, second = played(dataclasses.replace(config, backend=backend), digits)
        assert not [report for report in first.reports if report.holder and report.sent]
        assert [report for report in second.reports if report.holder and report.sent]


def test_others_are_as_in_the_honest_run(digits):
    """In the first round, before the model is another."""
    honest, odd = (rows(played(config_for(num_rounds=1, behaviours=each), digits)[0]) for each in ({}, ALL))
    assert torch.equal(honest[1], odd[1])
    assert len(odd) == 6 + 2 + 2


def test_every_backend_sends_the_same(digits):
    config = config_for(num_rounds=2, behaviours=ALL)
    fast, slow = (played(dataclasses.replace(config, backend=name), digits) for name in ("batched", "sequential"))
    for one, two in zip(fast, slow, strict=True):
        assert (one.valued[0] - two.valued[0]).abs().max() < 1e-5
        for here, there in zip(one.reports, two.reports, strict=True):
            told = ("client", "num_examples", "effort", "untrained", "held", "holder", "copies", "sent")
            assert [getattr(here, name) for name in told] == [getattr(there, name) for name in told]


def test_a_run_that_was_killed_ends_as_if_it_had_not_been(digits, tmp_path):
    bounded = {client: {**each, "to_round": 2} for client, each in ALL.items()}
    config = config_for(num_rounds=4, behaviours=bounded, fraction_fit=0.6)
    whole, states = list(run(config, digits, checkpoints=tmp_path)), {}
    for event in run(config, digits, checkpoints=tmp_path):
        if isinstance(event, RoundTrained):
            states[event.round_number] = checkpoints.load(tmp_path, event.round_number, event.checkpoint_sha256)
    resumed = list(run(config, digits, checkpoints=tmp_path, resume=states[1]))
    place = next(i for i, event in enumerate(whole) if isinstance(event, RoundTrained))
    assert isinstance(resumed[0], Started)
    assert timeless(resumed[1:]) == timeless(whole[place + 1 :])


def test_the_log_tells_whose_update_was_sent(digits):
    config = config_for(num_rounds=1, behaviours=GROUP)
    warned = [each.message for each in run(config, digits) if isinstance(each, Log) and each.level == "warning"]
    assert warned == ["Client 4 sent the update of client 2", "Client 5 sent the update of client 2"]
    many = dataclasses.replace(config, num_clients=12)
    told = [each.message for each in run(many, digits) if isinstance(each, Log)]
    assert "2 clients sent the update of another" in told
    assert any(message.startswith("10 clients trained on ") for message in told)
