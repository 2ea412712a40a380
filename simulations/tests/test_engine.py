"""A whole run without a database: what is valued, what is paid, and that it is the same every time."""

import dataclasses
import hashlib
import platform
import re
import tomllib
from fractions import Fraction
from itertools import pairwise

import pytest
import torch

from fedsite.tests.machine import PROJECT
from incentives import pools
from incentives.economy import PoolFacts
from incentives.valuation import VALUATIONS
from incentives.valuation.evidence import unpack
from simulations.config import SimulationConfig
from simulations.running import events
from simulations.running.engine import simulate
from simulations.tests.cast import NOWHERE, config, first_record, happened, rounds
from training.config import ConfigError
from training.events import TrainingError
from training.figures import figure


def run(**fields) -> list[events.Event]:
    return list(simulate(config(**fields), data_dir=NOWHERE))


def timeless(event: events.Event) -> dict:
    values = dataclasses.asdict(event)
    return {name: value for name, value in values.items() if not name.endswith("_seconds")}


def test_it_tells_what_happens_in_order():
    kinds = [event.kind for event in happened() if event.kind != "log"]
    assert kinds == ["resolved", "started", "round", "round", "round", "completed"]
    assert happened()[0].config_sha256 == config().resolved("digits").sha256()


def test_two_runs_of_a_configuration_are_equal():
    again = run()
    assert [timeless(event) for event in again] == [timeless(event) for event in happened()]
    other = run(seed=1)
    assert rounds(other)[-1].weights_sha256 != rounds(again)[-1].weights_sha256


def test_shapley_shares_out_what_the_round_gained():
    started = next(event for event in happened() if isinstance(event, events.Started))
    assert started.num_validation == 143
    first, second, _ = rounds()
    gain = first.validation_loss - second.validation_loss
    assert sum(part.contribution for part in second.clients) == pytest.approx(gain, abs=1e-6)
    assert second.pool_microtokens == round(gain * 10 * 1_000_000)


def test_a_client_that_sent_nothing_is_worth_nothing():
    for done in rounds():
        assert [part.contribution for part in done.clients if part.client == 2] == [0.0]
        assert [part.reward_microtokens for part in done.clients if part.client == 2] == [0]


def test_the_pool_is_paid_out_in_proportion_to_the_unit():
    for done in rounds():
        assert sum(part.reward_microtokens for part in done.clients) == done.pool_microtokens
        assert done.treasury_microtokens == 0
        helped = {part.client: Fraction(max(part.contribution, 0.0)) for part in done.clients}
        for part in done.clients:
            exact = done.pool_microtokens * helped[part.client] / sum(helped.values())
            assert abs(part.reward_microtokens - exact) < 1


def test_the_evidence_gives_the_contributions_again():
    for done in rounds():
        evidence = unpack(done.evidence)
        again = dict(zip(evidence.players, VALUATIONS["shapley"](evidence.game(), evidence.num_examples), strict=True))
        assert {part.client: again.get(part.client, 0.0) for part in done.clients} == {
            part.client: part.contribution for part in done.clients
        }
        assert hashlib.sha256(done.evidence).hexdigest() == done.evidence_sha256


@pytest.mark.parametrize("valuation", [name for name in VALUATIONS if name != "shapley"])
def test_every_valuation_pays(valuation):
    done = rounds(run(valuation=valuation, num_rounds=1))[0]
    assert done.pool_microtokens > 0
    assert done.treasury_microtokens + sum(part.reward_microtokens for part in done.clients) == done.pool_microtokens


def test_equal_pays_everybody_who_sent_an_update_the_same():
    done = rounds(run(valuation="equal", num_rounds=1, pool="fixed", pool_tokens=9))[0]
    assert [part.reward_microtokens for part in done.clients] == [3_000_000, 0, 3_000_000, 3_000_000]


@pytest.mark.parametrize("weights", ["fixed", "renormalised"])
@pytest.mark.parametrize("valuation", list(VALUATIONS))
def test_who_sends_nothing_is_worth_nothing_by_every_valuation(valuation, weights):
    """Under renormalised weights `equal` paid a silent client as much as any other."""
    done = rounds(run(valuation=valuation, num_rounds=1, utility_weights=weights, pool="fixed", pool_tokens=9))[0]
    assert [part.reward_microtokens for part in done.clients if part.client == 2] == [0]
    assert [part.contribution for part in done.clients if part.client == 2] == [0.0]
    assert sum(part.reward_microtokens for part in done.clients) == 9_000_000


def test_who_sends_nothing_gets_nothing_by_a_rule_that_pays_for_taking_part():
    done = rounds(run(reward_rule="equal", num_rounds=1, pool="fixed", pool_tokens=9))[0]
    assert [part.reward_microtokens for part in done.clients] == [3_000_000, 0, 3_000_000, 3_000_000]


def test_a_payment_names_the_version_of_the_rule_that_its_scheme_means():
    assert rounds()[0].rule == "proportional@2"
    asked = config(num_rounds=1, valuation="equal", pool="fixed", pool_tokens=0.000_01, game="fedavg")
    done = rounds(list(simulate(dataclasses.replace(asked, scheme=2), data_dir=NOWHERE)))[0]
    assert (done.rule, sum(part.reward_microtokens for part in done.clients)) == ("proportional@1", 10)


def test_the_first_scheme_pays_for_silence():
    told = config(valuation="equal", num_rounds=1, utility_weights="renormalised", pool="fixed", pool_tokens=8)
    old = SimulationConfig.from_record(first_record(told), 1)
    done = rounds(list(simulate(old, data_dir=NOWHERE)))[0]
    assert [part.reward_microtokens for part in done.clients] == [2_000_000] * 4


def test_ground_that_is_regained_is_paid_once():
    losses = [2.0, 1.0, 1.8, 1.0, 1.8, 1.0]
    minted = {}
    for pool in (pools.improvement, pools.improvement_each_round):
        seen = [
            PoolFacts(
                round_number=number,
                previous_validation_loss=losses[number - 1],
                best_validation_loss=min(losses[:number]),
                validation_loss=losses[number],
            )
            for number in range(1, 6)
        ]
        minted[pool.__name__] = sum(pool(each, {}, scaling_factor=10.0)[0] for each in seen)
    assert minted == {"improvement": 10_000_000, "improvement_each_round": 26_000_000}


def test_the_best_loss_so_far_survives_a_kill_and_a_lost_checkpoint(tmp_path):
    restless = config(
        num_clients=5,
        num_rounds=5,
        lr=2.0,
        batch_size=64,
        seed=100,
        partition="pathological",
        model="logistic",
        behaviours={},
    )
    whole = rounds(list(simulate(restless, data_dir=NOWHERE, checkpoint_dir=tmp_path)))
    assert whole[-1].validation_loss < min(done.validation_loss for done in whole[:-1])
    assert any(later.validation_loss > one.validation_loss for one, later in pairwise(whole))
    kept = [(4, whole[3].checkpoint_sha256, [whole[3].economy_state])]
    (tmp_path / "round-000005.pt").unlink()
    for checkpoints in (kept, []):
        rest = simulate(restless, data_dir=NOWHERE, checkpoint_dir=tmp_path, recorded_rounds=4, checkpoints=checkpoints)
        assert rounds(list(rest))[-1].pool_microtokens == whole[-1].pool_microtokens > 0


def reward_lines(**fields) -> list[str]:
    return [event.message for event in run(**fields) if event.kind == "log" and event.level == "reward"]


def test_the_reward_line_says_why_nobody_got_anything():
    reversed_all = {str(client): {"kind": "sign_flip", "scale": 3} for client in range(1, 5)}
    assert reward_lines(num_rounds=1, pool="fixed", pool_tokens=0)[0].endswith("; the pool is fixed at 0 tokens")
    assert "below its best so far" in reward_lines(num_rounds=1, behaviours=reversed_all)[0]
    assert "did not fall" in reward_lines(num_rounds=1, behaviours=reversed_all, pool="improvement_each_round")[0]
    assert "less than a micro-token" in reward_lines(num_rounds=1, scaling_factor=1e-9)[0]
    assert "no contribution is above 0" in reward_lines(num_rounds=1, behaviours=reversed_all, pool="fixed")[0]


def test_the_valuation_line_says_whose_model_is_measured():
    lines = {
        (strategy, game): next(
            event.message for event in run(num_rounds=1, strategy=strategy, game=game) if "coalitions" in event.message
        )
        for strategy, game in (("fedavg", "fedavg"), ("multi_krum", "fedavg"), ("multi_krum", "server"))
    }
    assert "plain federated averaging, not to that of multi krum" in lines["multi_krum", "fedavg"]
    assert "averaging" not in lines["fedavg", "fedavg"] + lines["multi_krum", "server"]


DIVERGING = {
    "num_clients": 5,
    "num_rounds": 8,
    "strategy": "fedprox",
    "proximal_mu": 100.0,
    "lr": 0.05,
    "behaviours": {},
}


def test_a_run_that_got_worse_says_so_in_a_few_digits():
    happenings = run(**DIVERGING)
    warnings = [event.message for event in happenings if event.kind == "log" and event.level == "warning"]
    assert "The model is worse than it began: test loss" in warnings[-1]
    assert "a smaller lr or proximal_mu may help" in warnings[-1]
    assert figure(2.53e20) == "2.53e+20"
    assert not any(re.search(r"\d{9}", event.message) for event in happenings if event.kind == "log")


def test_a_run_that_would_mint_more_than_there_is_names_round_and_field():
    words = r"Round \d: .* tokens are more than .* loss fell from .*; a smaller lr or proximal_mu may help"
    with pytest.raises(TrainingError, match=words):
        run(**DIVERGING, pool="improvement_each_round")


def test_it_tells_on_what_it_was_trained():
    told = happened()[0].manifest
    assert told["torch"] == torch.__version__
    assert told["python"] == platform.python_version()
    assert told["fedsite"] == tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
    assert told["processor"]
    assert told["device"] == "cpu"


def test_the_pool_stays_in_the_treasury_where_nobody_helped():
    reversed_all = {str(client): {"kind": "sign_flip", "scale": 3} for client in range(1, 5)}
    done = rounds(run(num_rounds=1, behaviours=reversed_all, pool="fixed", pool_tokens=7))[0]
    assert all(part.contribution < 0 for part in done.clients)
    assert (done.pool_microtokens, done.treasury_microtokens) == (7_000_000, 7_000_000)


def test_nothing_is_minted_where_the_loss_rose():
    reversed_all = {str(client): {"kind": "sign_flip", "scale": 3} for client in range(1, 5)}
    done = rounds(run(num_rounds=1, behaviours=reversed_all))[0]
    assert done.pool_microtokens == 0


def test_without_a_valuation_nothing_is_measured_or_paid():
    happenings = run(valuation="none", validation_size=0)
    for done in rounds(happenings):
        assert (done.pool_microtokens, done.rule, done.evidence, done.validation_loss) == (0, None, None, None)
        assert {part.contribution for part in done.clients} == {None}
    assert not any("reward" in event.message for event in happenings)


def test_the_reward_line_is_the_one_that_others_look_for():
    lines = [event.message for event in happened() if event.kind == "log" and event.level == "reward"]
    assert len(lines) == 3
    assert all(re.match(r"Calculated reward: [\d,.]+ tokens to 3 of 4 clients", line) for line in lines)


def test_it_goes_on_from_a_checkpoint_as_if_nothing_had_happened(tmp_path):
    whole = list(simulate(config(), data_dir=NOWHERE, checkpoint_dir=tmp_path))
    second = rounds(whole)[1]
    (tmp_path / "round-000003.pt").unlink()
    rest = list(
        simulate(
            config(),
            data_dir=NOWHERE,
            checkpoint_dir=tmp_path,
            recorded_rounds=2,
            checkpoints=[(2, second.checkpoint_sha256, [second.economy_state])],
        )
    )
    assert [timeless(done) for done in rounds(rest)] == [timeless(rounds(whole)[2])]


def test_it_starts_again_without_its_checkpoint_and_tells_recorded_rounds_without_lines(tmp_path):
    rest = list(
        simulate(
            config(), data_dir=NOWHERE, checkpoint_dir=tmp_path, recorded_rounds=2, checkpoints=[(2, "0" * 64, [{}])]
        )
    )
    assert [done.weights_sha256 for done in rounds(rest)] == [done.weights_sha256 for done in rounds()]
    after_start = [event.kind for event in rest[rest.index(next(e for e in rest if e.kind == "started")) + 1 :]]
    assert after_start[:2] == ["round", "round"]
    assert after_start.count("log") == sum(event.kind == "log" for event in happened()) / 3


def test_events_do_not_grow_with_the_cohort():
    few = run(num_clients=20, num_rounds=1, valuation="data_size", behaviours={})
    many = run(num_clients=200, num_rounds=1, valuation="data_size", behaviours={})
    assert len(few) == len(many)


def test_a_run_that_diverges_says_so():
    with pytest.raises(TrainingError, match=r"[Rr]ound \d+"):
        run(lr=100, weight_decay=1, num_rounds=10)  # each step multiplies the weights by -99


def test_digits_are_too_few_for_many_clients():
    with pytest.raises(ConfigError, match="num_clients"):
        list(simulate(SimulationConfig.of(num_clients=5000).resolved("mnist").resolved("digits"), data_dir=NOWHERE))


def test_an_economy_that_asks_no_game_makes_none_of_a_crowd():
    """The game of multi-Krum ends at 1,000 clients; beside it plain averaging's is asked."""
    crowd = {"num_clients": 1001, "num_rounds": 1, "strategy": "multi_krum", "valuation": "data_size", "behaviours": {}}
    shadows = [{"label": "plain", "game": "fedavg", "valuation": "loss_improvement"}]
    (done,) = rounds(run(**crowd, model="logistic", shadows=shadows))
    assert done.carried is None
    assert len(done.shadows[0].contributions) == 1001
