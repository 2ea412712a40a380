"""Stakes, detectors and samplers that look at the paying economy: who loses what and why, and that all of it follows
from what is kept."""

import dataclasses
from collections import Counter
from functools import cache

import pytest
import torch

from incentives.models import Account, Evidence, Ledger, Transaction, Transfer
from kinds import ConfigError, Kind, catalogue
from simulations import repricing
from simulations.config import SimulationConfig
from simulations.models import Client, Contribution, Round, ShadowClient, ShadowRound, Simulation
from simulations.running import worker
from simulations.running.engine import simulate
from simulations.running.events import Event, Log, decode, encode
from simulations.running.events import Round as Happened
from simulations.tests.cast import NOWHERE, claimed, config, queued
from simulations.tests.test_economies import command
from simulations.tests.test_verify_ledger import unguarded, verify  # noqa: F401
from training.events import TrainingError

pytestmark = [pytest.mark.django_db, pytest.mark.database]
DETECTORS = ["norm", "replay", "foolsgold", "fltrust", "direction", "loss_worsening", "spectral"]
STAKED = {
    "behaviours": {3: {"kind": "sign_flip", "scale": 2.0}},
    "stake": 5.0,
    "detectors": DETECTORS,
    "slashing": [{"detector": "direction", "above": 0.5, "share": 0.25}],
    "reward_rule": "slashing",
    "pool": {"kind": "fixed", "tokens": 4.0},
    "burn_share": 0.1,
    "shadows": [
        {"label": "burned", "slashed_to": "burn", "slashing": [{"detector": "norm", "above": 0.1, "share": 1.0}]},
        {"label": "trusted", "stake": 0.0, "slashing": [], "reward_rule": {"kind": "reputation", "decay": 0.5}},
        {"label": "alike", "stake": 0.0, "slashing": [], "reward_rule": {"kind": "sybil_discount", "by": "foolsgold"}},
    ],
}


@cache
def happened(**fields) -> tuple[Event, ...]:
    torch.set_num_threads(1)
    return tuple(simulate(config(**STAKED | fields), data_dir=NOWHERE))


def recorded() -> Simulation:
    happenings = happened()
    claim = claimed(queued(**STAKED))
    for event in happenings:
        worker.write(claim, decode(encode(event)))
    return Simulation.objects.get(pk=claim.simulation_id)


def by_class(ledger: Ledger) -> Counter[str]:
    """Micro-tokens by class of account."""
    found: Counter[str] = Counter()
    for name, balance in Account.objects.filter(ledger=ledger).values_list("name", "balance"):
        found[name.partition(":")[0]] += balance
    return found


def test_who_points_the_other_way_loses_a_quarter_of_its_stake_and_more_for_harm():
    simulation = recorded()
    lost = dict(Client.objects.values_list("number", "slashed_microtokens"))
    first = dict(Contribution.objects.filter(round__number=1).values_list("client__number", "slashed_microtokens"))
    assert {client for client, each in lost.items() if each} == {3}
    direction = Round.objects.get(number=1).scores["direction"]
    assert [score > 0.5 for score in direction] == [False, False, True, False]
    size = Client.objects.get(number=3).num_examples
    total = sum(Client.objects.values_list("num_examples", flat=True))
    worth = Contribution.objects.get(round__number=1, client__number=3).value
    by_rule = int(3_600_000 * size / total) if worth < 0 else 0  # of the pool less what is burned
    assert abs(first[3] - 1_250_000 - by_rule) <= 1
    stake = Account.objects.get(ledger=simulation.ledger, name="stake:3").balance
    assert stake == 5_000_000 - lost[3] >= 0
    warnings = [event.message for event in happened() if isinstance(event, Log) and event.level == "warning"]
    assert any(line.startswith("Client 3: ") and "direction" in line and "above 0.5" in line for line in warnings)


def test_every_token_is_minted_once_and_is_somewhere():
    simulation = recorded()
    for ledger in Ledger.objects.filter(name__startswith="simulation-"):
        found = by_class(ledger)
        assert -found["mint"] == found["client"] + found["stake"] + found["treasury"] + found["burn"]
    paying = by_class(simulation.ledger)
    lost = sum(Client.objects.values_list("slashed_microtokens", flat=True))
    assert paying["stake"] == 20_000_000 - lost
    assert paying["client"] == sum(Client.objects.values_list("reward_microtokens", flat=True)), "no stake is income"
    assert paying["burn"] == 3 * 400_000
    burned = simulation.shadows.get(label="burned")
    of_clients = sum(ShadowClient.objects.filter(shadow=burned).values_list("slashed_microtokens", flat=True))
    assert by_class(burned.ledger)["burn"] == 3 * 400_000 + of_clients
    assert of_clients > 0
    assert by_class(simulation.shadows.get(label="trusted").ledger)["stake"] == 0
    codes = Counter(Transfer.objects.filter(transaction__ledger=simulation.ledger).values_list("code", flat=True))
    assert (codes["endowment"], codes["stake"]) == (4, 4)
    assert verify()[0] == 0


def test_it_follows_when_it_is_computed_again_and_priced_later():
    simulation = recorded()
    assert command("recompute", simulation.pk) == (0, "Equal: 12 payments of 4 economies, computed again\n")
    again = repricing.reprice(simulation, "again", {})
    assert again.ledger_head == simulation.ledger_head
    for entry in STAKED["shadows"]:
        values = {name: value for name, value in entry.items() if name != "label"}
        later = repricing.reprice(simulation, f"{entry['label']} later", values)
        carried = simulation.shadows.get(label=entry["label"])
        assert later.ledger_head == carried.ledger_head
    assert verify()[0] == 0


def test_every_score_and_loss_and_product_is_covered(unguarded):  # noqa: F811
    recorded()
    row, part = Round.objects.get(number=2), Contribution.objects.get(round__number=2, client__number=3)
    shadow = ShadowRound.objects.get(shadow__label="burned", number=2)
    product = Evidence.objects.get(sha256=row.products_sha256)
    client = Client.objects.get(number=3)
    changes = [
        (row, "scores", row.scores | {"norm": [0.0] * 4}, "economy hash"),
        (row, "products_sha256", "", "economy hash"),
        (part, "slashed_microtokens", part.slashed_microtokens + 1, "the transfers"),
        (client, "slashed_microtokens", client.slashed_microtokens + 1, "of its stake"),
        (client, "rounds", client.rounds + 1, "said to have been in 4 rounds"),
        (shadow.shadow, "rounds_done", 2, "rounds"),
        (shadow, "scores", {}, "economy hash"),
        (shadow, "slashed", [1, 0, 0, 0], "transfers"),
        (product, "content", bytes(product.content)[:-1] + b"x", "products of round 2 were changed"),
    ]
    for thing, name, value, named in changes:
        before = getattr(thing, name)
        type(thing).objects.filter(pk=thing.pk).update(**{name: value})
        code, text = verify()
        assert (code, named in text) == (1, True), (name, text)
        type(thing).objects.filter(pk=thing.pk).update(**{name: before})
    code, text = verify()
    assert code == 0 or "triggers are missing" in text, "all else is as it was"


def test_a_killed_run_ends_with_the_same_ledgers(tmp_path):
    """From the checkpoint after each round, with what it keeps of updates and of each economy."""
    whole = [event for event in happened() if isinstance(event, Happened)]
    settings = config(**STAKED)
    rounds = [
        event for event in simulate(settings, data_dir=NOWHERE, checkpoint_dir=tmp_path) if isinstance(event, Happened)
    ]
    for done in rounds[:-1][-1:]:  # the checkpoint before the newest is the oldest that is kept
        states = [done.economy_state, *(shadow.economy_state for shadow in done.shadows)]
        resumed = simulate(
            settings,
            data_dir=NOWHERE,
            checkpoint_dir=tmp_path,
            checkpoints=[(done.round_number, done.checkpoint_sha256, states)],
            recorded_rounds=done.round_number,
        )
        last = [event for event in resumed if isinstance(event, Happened)]
        assert [each.round_number for each in last] == [3]
        for name in ("clients", "scores", "products_sha256", "economy_state", "shadows", "weights_sha256"):
            assert getattr(last[0], name) == getattr(whole[2], name), name


def test_identities_share_the_stake_of_their_holder_to_the_unit():
    fields = {"behaviours": {2: {"kind": "sybil_copy", "identities": 3}}, "stake": 1.0, "valuation": "equal"}
    fields |= {"slashing": [{"detector": "foolsgold", "above": 0.9, "share": 1.0}], "slashed_to": "burn"}
    events = tuple(simulate(config(**fields), data_dir=NOWHERE))
    claim = claimed(queued(**fields))
    for event in events:
        worker.write(claim, event)
    simulation = Simulation.objects.get(pk=claim.simulation_id)
    stakes = Transfer.objects.filter(transaction__ledger=simulation.ledger, code="stake")
    of_client = dict(stakes.values_list("debit_account__client", "amount"))
    assert of_client == {1: 1_000_000, 2: 333_334, 3: 1_000_000, 4: 1_000_000, 5: 333_333, 6: 333_333}
    lost = dict(Client.objects.values_list("number", "slashed_microtokens"))
    assert lost == {1: 0, 2: 333_334, 3: 0, 4: 0, 5: 333_333, 6: 333_333}, "copies are as alike as can be"
    found = by_class(simulation.ledger)
    assert -found["mint"] == 4_000_000 + simulation.pool_microtokens
    assert (found["stake"], found["burn"]) == (3_000_000, 1_000_000)
    assert verify()[0] == 0


def test_the_ledgers_pages_follow_a_clients_stake(client):
    simulation = recorded()
    name = simulation.ledger.name
    page = client.get("/ledger/", {"ledger": name, "client": 3}).content.decode()
    assert "stake:3" in page
    row = next(line for line in page.split("<tr>") if ">slash<" in line)
    assert f'href="/ledger/transactions/{name}/' in row
    assert "?client=3" in row
    told = client.get("/api/incentives/ledger", {"user_id": 3}).json()
    assert [each["description"] for each in told["transactions"][:2]] == [
        "Endowment, to be put at stake",
        "Put at stake",
    ]


FEEDBACK = [
    ({"kind": "by_balance", "floor": 0.01}, {}),
    ({"kind": "by_stake", "minimum": 2.0}, {}),
    ({"kind": "by_reputation", "power": 4.0}, {"reward_rule": {"kind": "reputation", "decay": 0.1}}),
]


@pytest.mark.parametrize(("sampler", "fields"), FEEDBACK, ids=[sampler["kind"] for sampler, _ in FEEDBACK])
def test_who_is_sampled_follows_from_what_was_paid_and_a_kill_does_not_change_it(sampler, fields, tmp_path):
    settings = config(
        **STAKED | {"sampler": sampler, "num_rounds": 8, "fraction_fit": 0.5, "shadows": []} | fields,
        slashed_to="burn",
    )
    assert settings.training_sha256() != config(sampler=sampler, **STAKED | fields, num_rounds=8).training_sha256()
    rounds = [
        event for event in simulate(settings, data_dir=NOWHERE, checkpoint_dir=tmp_path) if isinstance(event, Happened)
    ]
    cohorts = [tuple(part.client for part in each.clients) for each in rounds]
    if sampler["kind"] == "by_stake":
        stake = dict.fromkeys((1, 2, 3, 4), 5000000)
        for cohort, each in zip(cohorts, rounds, strict=True):
            assert all(stake[client] >= 2_000_000 for client in cohort)
            for part in each.clients:
                stake[part.client] -= part.slashed_microtokens
        assert stake[3] < 2_000_000, "the run shows nothing"
        assert 3 not in cohorts[-1]
    before = rounds[-2]
    resumed = simulate(
        settings,
        data_dir=NOWHERE,
        checkpoint_dir=tmp_path,
        checkpoints=[(before.round_number, before.checkpoint_sha256, [before.economy_state])],
        recorded_rounds=before.round_number,
    )
    (last,) = [event for event in resumed if isinstance(event, Happened)]
    assert (last.clients, last.weights_sha256) == (rounds[-1].clients, rounds[-1].weights_sha256)


@pytest.mark.parametrize("partition", [{"kind": "iid"}, {"kind": "dirichlet", "alpha": 0.5}], ids=["iid", "dirichlet"])
def test_who_replays_is_found_in_every_round_and_nobody_else(partition):
    """As benchmarks.detection has it of MNIST and 20 seeds."""
    for seed in range(3):
        cheat = {"behaviours": {4: "replay"}, "stake": 1.0, "slashing": [{"detector": "replay", "share": 0.5}]}
        settings = config(num_clients=10, seed=seed, partition=partition, valuation="equal", **cheat)
        rounds = [each for each in simulate(settings, data_dir=NOWHERE) if isinstance(each, Happened)]
        lost = [[part.slashed_microtokens for part in each.clients] for each in rounds]
        assert lost == [[0] * 10, [0] * 3 + [500_000] + [0] * 6, [0] * 3 + [250_000] + [0] * 6]


def test_without_feedback_what_is_paid_is_not_part_of_the_training():
    assert config(stake=3.0).training_sha256() == config().training_sha256()
    staked, more = (config(stake=stake, sampler="by_stake").training_sha256() for stake in (3.0, 4.0))
    assert staked != more


@pytest.mark.parametrize(
    ("fields", "name", "text"),
    [
        ({"sampler": "by_stake"}, "sampler", "stake is 0"),
        ({"sampler": "by_reputation"}, "sampler", "this one is proportional"),
        ({"sampler": "by_balance", "valuation": "none"}, "sampler", "nothing is paid"),
        ({"slashing": [{"detector": "norm"}]}, "slashing", "nothing is at stake"),
        ({"stake": 1, "slashing": [{"detector": "nothing"}]}, "slashing", "nothing"),
        ({"stake": 1, "slashing": [{"above": 0.5}]}, "slashing", "expected"),
        ({"stake": 1, "slashing": [{"detector": "norm", "above": 2}]}, "slashing", "norm: above: 2"),
        ({"stake": 1, "slashing": [{"detector": "norm", "over": 1}]}, "slashing", "'over'"),
        ({"stake": 1, "slashing": "norm"}, "slashing", "expected a list"),
        ({"detectors": ["norm", "norm"]}, "detectors", "twice"),
        ({"detectors": [{"kind": "norm", "x": 1}]}, "detectors", "norm has no 'x'"),
        ({"stake": 1, "num_clients": 9000, "valuation": "data_size"}, "stake", "9,000 stakes do not fit"),
        ({"detectors": ["spectral"], "num_clients": 1001, "valuation": "data_size"}, "detectors", "at most 1,000"),
        ({"shadows": [{"label": "x", "slashing": [{"detector": "no"}]}]}, "shadows", "x: slashing: "),
        ({"stake": 1e-7}, "stake", "less than a micro-token"),
        ({"stake": 1, "sampler": {"kind": "by_stake", "minimum": 2}}, "sampler.minimum", "the most that anybody has"),
        ({"stake": 1, "sampler": "by_stake", "valuation": "none"}, "sampler", "nothing is measured"),
        (
            {"stake": 1e6, "num_rounds": 9007, "pool": {"kind": "fixed", "tokens": 1e6}},
            "pool.tokens",
            "beside the stakes",
        ),
        ({"reward_rule": "sybil_discount", "num_clients": 1001, "valuation": "equal"}, "reward_rule", "at most 1,000"),
        ({"behaviours": {1: {"kind": "collusion", "group": [1, 2]}, 2: "honest"}}, "behaviours", "client 2 does"),
    ],
)
def test_what_cannot_be_is_refused_at_its_field(fields, name, text):
    with pytest.raises(ConfigError) as refused:
        SimulationConfig.of(dataset="mnist", **fields)
    assert text in refused.value.errors[name]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (([0.5], {}), "no score from 0 to 1 for each of 4"),
        (([[0.1], [0.2, 0.3]], {}), "gives scores that are no numbers"),
        (([1j] * 4, {}), "gives scores that are no numbers"),
        (([0.5] * 4, {"a": "\ud800"}), "a text that cannot be kept"),
        (([0.5] * 4, {"a\0": 1}), "a text that cannot be kept"),
        ("nothing", "gives no pair of scores and state"),
        (FloatingPointError("mine"), "lab/odd failed: FloatingPointError: mine"),
    ],
)
def test_what_a_plug_in_gives_in_place_of_scores_is_told_with_its_name(given, named):
    def odd(facts, state):
        if isinstance(given, Exception):
            raise given
        return given

    catalogue.plug([Kind(family="detector", name="lab/odd", help="", code=odd)])
    try:
        with pytest.raises(TrainingError, match=r"^detectors: lab/odd") as refused:
            list(simulate(config(detectors=["lab/odd"]), data_dir=NOWHERE))
    finally:
        catalogue.plug([])
    assert named in str(refused.value)


def test_a_record_gives_the_configuration_again():
    settings = config(**STAKED)
    again = SimulationConfig.from_record(settings.to_dict(), settings.scheme)
    assert again == settings
    assert again.sha256() == settings.sha256()
    assert dataclasses.replace(settings, stake=6.0).sha256() != settings.sha256()
    assert Transaction.objects.count() == 0
