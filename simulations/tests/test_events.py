"""Events through the pipe: what comes out is what went in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulations.running import events

number = st.floats(allow_nan=False, allow_infinity=False)
loss = st.none() | number
shares = st.builds(
    events.ClientShare,
    client=st.integers(1, 10_000),
    num_examples=st.integers(0, 60_000),
    label_counts=st.lists(st.integers(0, 6000), max_size=10).map(tuple),
    behaviour=st.text(max_size=10),
)
parts = st.builds(
    events.ClientRound,
    client=st.integers(1, 10_000),
    num_examples=st.integers(0, 60_000),
    loss_before=loss,
    loss_after=loss,
    update_norm=number,
    contribution=loss,
    error=loss,
    true_examples=st.integers(0, 60_000),
    effort=st.integers(0, 60_000),
    reward_microtokens=st.integers(0, 2**53),
)
plain = st.dictionaries(st.text(), st.integers() | st.text())
of_shadows = st.builds(
    events.ShadowRound,
    number=st.integers(1, 16),
    contributions=st.lists(number, max_size=3).map(tuple),
    errors=st.none() | st.lists(number, max_size=3).map(tuple),
    rewards=st.lists(st.integers(0, 2**53), max_size=3).map(tuple),
    economy_state=plain,
)
rounds = st.builds(
    events.Round,
    round_number=st.integers(1, 1000),
    message=st.text(),
    clients=st.lists(parts, max_size=3).map(tuple),
    evidence=st.none() | st.binary(max_size=100),
    others=st.lists(st.binary(max_size=10), max_size=2).map(tuple),
    shadows=st.lists(of_shadows, max_size=2).map(tuple),
    economy_state=st.dictionaries(st.text(), st.lists(number | st.integers() | st.text(), max_size=3), max_size=2),
    **dict.fromkeys(("loss", "accuracy", "validation_loss", "previous_validation_loss", "best_validation_loss"), loss),
    carried=loss,
    **dict.fromkeys(("train_seconds", "evaluate_seconds", "valuation_seconds", "duration_seconds"), number),
)
others = st.one_of(
    st.builds(events.Log, message=st.text()),
    st.builds(events.Started, clients=st.lists(shares, max_size=3).map(tuple), loss=number, accuracy=number),
    st.builds(events.Completed),
    st.builds(events.Failed),
    st.builds(events.Resolved, config=plain, manifest=plain),
)


@given(rounds | others)
def test_an_event_survives_the_pipe(event):
    line = events.encode(event)
    assert "\n" not in line
    assert events.decode(line) == event


def test_what_is_no_event_is_refused():
    with pytest.raises(ValueError, match="unknown kind"):
        events.decode('{"kind": "surprise"}')


def test_a_number_that_is_none_never_travels():
    with pytest.raises(ValueError, match="not JSON compliant"):
        events.encode(
            events.Started(
                message="",
                dataset="",
                num_parameters=1,
                num_validation=0,
                num_test=1,
                weights_sha256="",
                loss=float("nan"),
                accuracy=0.0,
                clients=(),
            )
        )
