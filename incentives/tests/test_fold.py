"""An economy's step, by hand: pool, budget, burn, rule, treasury; what it keeps, and that it changes nothing else."""

import copy
import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kinds
from incentives import fold
from incentives.memo import Facts
from incentives.specification import Specification
from incentives.valuation import NotFinite
from incentives.valuation.evidence import unpack
from kinds import Kind, catalogue


def choice(family: str, **values) -> kinds.Choice:
    return kinds.checked(family, values, family)


def economy(**values) -> Specification:
    usual = {
        "game": "server",
        "utility": "loss",
        "utility_weights": "fixed",
        "valuation": choice("valuation", kind="loss_improvement"),
        "pool": choice("pool", kind="fixed", tokens=10.0),
        "reward_rule": choice("rule", kind="proportional"),
    }
    return Specification(**usual | values)


@dataclasses.dataclass
class Additive:
    """A game in which everybody is worth what is said."""

    cohort: tuple[int, ...]
    players: tuple[int, ...]
    worth: tuple[float, ...]

    @property
    def num_examples(self) -> tuple[int, ...]:
        return tuple(10 for _ in self.players)

    def __call__(self, coalitions):
        return coalitions @ np.array(self.worth)


GAME = Additive(cohort=(1, 2, 3), players=(1, 3), worth=(3.0, 1.0))


def facts(number: int = 1, *, before: float = 2.0, after: float = 1.5, best: float = 2.0) -> Facts:
    return Facts(
        training_sha256="0" * 64,
        round_number=number,
        cohort=(1, 2, 3),
        num_examples=(10, 10, 10),
        true_examples=(10, 10, 10),
        effort=(10, 0, 10),
        losses_before=(1.0, None, 1.0),
        losses_after=(0.5, None, 0.5),
        update_norms=(1.0, 0.0, 1.0),
        previous_validation_loss=before,
        validation_loss=after,
        best_validation_loss=best,
        weights_sha256="1" * 64,
    )


def stepped(specification: Specification, state=None, of_round: Facts | None = None, scheme: int = 3) -> fold.Step:
    draw = np.random.default_rng(0)
    return fold.step(specification, state or {}, of_round or facts(), GAME, draw=draw, scheme=scheme)


def test_a_pool_is_split_by_contribution_and_the_silent_get_nothing():
    done = stepped(economy())
    assert done.paid.contributions == (3.0, 0.0, 1.0)
    assert done.paid.shares == (7_500_000, 0, 2_500_000)
    assert (done.paid.pool, done.paid.minted, done.paid.burned) == (10_000_000, 10_000_000, 0)
    assert done.state == {"money": {"pools": 10_000_000, "treasury": 0}}
    assert unpack(done.measured.evidence).players == (1, 3)


def test_a_share_of_the_pool_is_burned_first():
    paid = stepped(economy(burn_share=0.3)).paid
    assert (paid.burned, paid.shares) == (3_000_000, (5_250_000, 0, 1_750_000))
    paid = stepped(economy(burn_share=1.0)).paid
    assert (paid.burned, paid.shares, paid.state["money"]["treasury"]) == (10_000_000, (0, 0, 0), 0)


def test_a_budget_cuts_the_last_pool():
    spent, state, pools = economy(budget_tokens=25.0), {}, []
    for number in (1, 2, 3, 4):
        done = stepped(spent, state, facts(number))
        pools.append(done.paid.pool)
        state = done.state
    assert pools == [10_000_000, 10_000_000, 5_000_000, 0]
    assert state["money"] == {"pools": 25_000_000, "treasury": 0}


def test_what_the_rule_leaves_stays_in_the_treasury():
    class Harmful(Additive):
        def __call__(self, coalitions):
            return -super().__call__(coalitions)

    game = Harmful(GAME.cohort, GAME.players, GAME.worth)
    done = fold.step(economy(), {}, facts(), game, draw=np.random.default_rng(0), scheme=3)
    assert done.paid.shares == (0, 0, 0)
    assert done.state["money"] == {"pools": 10_000_000, "treasury": 10_000_000}


def test_improvement_pays_for_the_best_so_far():
    pool = choice("pool", kind="improvement", scaling_factor=10.0)
    assert stepped(economy(pool=pool), of_round=facts(2, before=3.0, after=1.5, best=2.0)).paid.pool == 5_000_000
    each = choice("pool", kind="improvement_each_round", scaling_factor=10.0)
    assert stepped(economy(pool=each), of_round=facts(2, before=3.0, after=1.5, best=2.0)).paid.pool == 15_000_000


def test_nothing_is_measured_or_paid_where_the_valuation_is_none():
    done = stepped(economy(valuation=choice("valuation", kind="none")))
    assert (done.paid, done.measured, done.state) == (None, None, {})


def test_schemes_before_keep_no_money_and_their_evidence():
    done = stepped(economy(), scheme=2)
    assert done.state == {}
    assert done.measured.evidence.startswith(b"FEDGAME2")
    assert stepped(economy(), scheme=1).measured.evidence.startswith(b"FEDGAME1")
    assert stepped(economy(valuation=choice("valuation", kind="equal"))).measured.evidence is None


def test_the_label_is_no_part_of_an_economy_but_its_parameters_are():
    assert economy().hashed()["pool"] == {"kind": "fixed"}
    other = economy(pool=choice("pool", kind="fixed", tokens=11.0))
    assert stepped(economy()).paid.sha256(economy().hashed()) != stepped(other).paid.sha256(other.hashed())


@pytest.fixture
def counting():
    """A plugged-in rule that pays everybody who has less than the others, and counts the rounds."""

    def rule(seen, pool, state):
        from incentives.economy import Payment

        working = [place for place, worth in enumerate(seen.contributions) if worth]
        poorest = min(working, key=lambda place: (seen.balances[place], place))
        shares = [pool // 2 if place == poorest else 0 for place in range(len(seen.clients))]
        return Payment(shares, burned=1, state={"rounds": state.get("rounds", 0) + 1})

    catalogue.plug([Kind(family="rule", name="lab/poorest", help="the poorest", code=rule, source_sha256="2" * 64)])
    yield economy(
        reward_rule=kinds.checked(
            "rule", {"kind": "lab/poorest", "source_sha256": "2" * 64}, "reward_rule", recorded=True
        )
    )
    catalogue.plug([])


def test_a_plug_in_sees_balances_and_keeps_a_state(counting):
    state, poorest = {}, []
    for number in (1, 2, 3, 4):
        before = copy.deepcopy(state)
        done = stepped(counting, state, facts(number))
        assert state == before, "a step changes nothing that it is given"
        state = done.state
        poorest.append(done.paid.shares.index(5_000_000))
        assert done.paid.burned == 1
    assert poorest == [0, 2, 0, 2]
    assert state["reward_rule"] == {"rounds": 4}
    assert state["money"] == {
        "pools": 40_000_000,
        "treasury": 40_000_000 - 4 * 5_000_001,
        "balances": {"1": 10_000_000, "3": 10_000_000},
    }


def test_an_economys_hash_outlives_its_plug_in(counting):
    plugged = counting.hashed()
    catalogue.plug([])
    assert Specification.from_dict(counting.to_dict()).hashed() == plugged
    assert plugged["reward_rule"] == {"kind": "lab/poorest", "source_sha256": "2" * 64}


def test_who_sent_nothing_gets_nothing_whatever_the_rule_says():
    def rule(seen, pool, state):
        from incentives.economy import Payment

        return Payment([pool // 4] * 3, state=state)

    catalogue.plug([Kind(family="rule", name="lab/all", help="all", code=rule, source_sha256="4" * 64)])
    done = stepped(economy(reward_rule=kinds.checked("rule", {"kind": "lab/all"}, "reward_rule", recorded=True)))
    catalogue.plug([])
    assert done.paid.shares == (2_500_000, 0, 2_500_000)
    assert done.state["money"]["treasury"] == 5_000_000


@given(
    st.lists(st.floats(0.1, 3.0), min_size=1, max_size=6),
    st.sampled_from([0.0, 0.1, 1 / 3, 1.0]),
    st.sampled_from([None, 0.0, 7.3, 100.0]),
)
@settings(deadline=None, max_examples=60)
def test_every_micro_token_is_somewhere(losses, burn_share, budget):
    """minted = clients + burned + treasury, after every round."""
    pool = choice("pool", kind="improvement_each_round", scaling_factor=3.7)
    specification = economy(pool=pool, burn_share=burn_share, budget_tokens=budget)
    state, minted, burned, clients = {}, 0, 0, 0
    for number, (before, after) in enumerate(zip(losses, [*losses[1:], 0.05], strict=True), 1):
        done = stepped(specification, state, facts(number, before=before, after=after))
        minted, burned = minted + done.paid.minted, burned + done.paid.burned
        clients += sum(done.paid.shares)
        state = done.state
        assert minted == clients + burned + state["money"]["treasury"]
        assert budget is None or minted <= budget * 1_000_000


def test_it_says_which_kind_gave_what_it_may_not():
    def broken(seen, state):
        return "much", state

    catalogue.plug([Kind(family="pool", name="lab/much", help="much", code=broken, source_sha256="3" * 64)])
    wrong = economy(pool=kinds.checked("pool", {"kind": "lab/much"}, "pool", recorded=True))
    with pytest.raises(fold.EconomyError, match=r"^pool: lab/much gives 'much', not a whole number"):
        stepped(wrong)
    catalogue.plug([])


def test_a_coalition_that_has_no_loss_is_named_with_its_clients():
    class Broken(Additive):
        def __call__(self, coalitions):
            return np.where(coalitions[:, 1], np.inf, 0.0)

    game = Broken(cohort=(2, 5), players=(2, 5), worth=(0.0, 0.0))
    words = "the updates of clients 5 together give a model whose loss is not finite"
    with pytest.raises(NotFinite, match=words):
        fold.measure(economy(), {}, facts(), game, draw=np.random.default_rng(0), scheme=3, products={})
