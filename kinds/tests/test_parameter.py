"""What a parameter takes, what it says of anything else, and its ways through JSON."""

import json
import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinds import Parameter, choice, clients, flag, number, whole
from kinds.parameter import stretches

SHARE = number(0.5, "a share", minimum=0.0, below=1.0)
RADIUS = number(None, "a radius; empty: the median", above=0.0)
COUNT = whole(2, "how many", minimum=1, maximum=1_000)
WORD = choice("mean", "which", choices=("mean", "median"))
SWITCH = flag(False, "whether")
LISTED = clients("which clients")
ALL = (SHARE, RADIUS, COUNT, WORD, SWITCH, LISTED)


@pytest.mark.parametrize(
    ("parameter", "given", "taken"),
    [
        (SHARE, 0, 0.0),
        (RADIUS, None, None),
        (RADIUS, 3, 3.0),
        (COUNT, 7.0, 7),
        (WORD, "median", "median"),
        (SWITCH, True, True),
        (LISTED, [5, 1, 5], (1, 5)),
        (LISTED, " 1, 4-6 ", (1, 4, 5, 6)),
        (LISTED, 3, (3,)),
        (LISTED, "", ()),
    ],
)
def test_it_takes_a_value_in_its_own_type(parameter, given, taken):
    found = parameter.check(given)
    assert (found, type(found)) == (taken, type(taken))
    assert parameter.check(parameter.plain(found)) == found


@pytest.mark.parametrize(
    ("parameter", "given", "says"),
    [
        (SHARE, 1, "1.0 is not at least 0 and below 1"),
        (SHARE, None, "None is not a number"),
        (SHARE, True, "True is not a number"),
        (SHARE, math.nan, "nan is not a finite number"),
        (SHARE, 10**400, "is not a finite number"),
        (SHARE, "0.5", "'0.5' is not a number"),
        (RADIUS, 0, "0.0 is not above 0"),
        (COUNT, 1.5, "1.5 is not a whole number"),
        (COUNT, 1001, "1001 is not at least 1 and at most 1,000"),
        (WORD, "mode", "'mode' is not one of mean, median"),
        (WORD, ["mean"], "is not one of mean, median"),
        (SWITCH, 1, "1 is not true or false"),
        (LISTED, [0], "0 is not a client number"),
        (LISTED, [True], "True is not a client number"),
        (LISTED, "6-4", "'6-4' is not a client number or a stretch of them"),
        (LISTED, "1-999999999999", "is not a client number or a stretch of them"),
        (LISTED, {"1": 2}, "is not a list of client numbers"),
    ],
)
def test_it_says_what_it_expected(parameter, given, says):
    with pytest.raises(ValueError, match="is not") as raised:
        parameter.check(given)
    assert says in str(raised.value)
    assert len(str(raised.value)) < 200


def test_a_short_text_that_names_millions_is_refused_before_it_is_written_out():
    began = time.perf_counter()
    with pytest.raises(ValueError, match="names more than the 100,000 clients that a list may name"):
        LISTED.check("1-1000000," * 10_000)
    assert time.perf_counter() - began < 1


@pytest.mark.parametrize("text", ["", "1", "1, 4-6", "2-3, 9"])
def test_stretches_are_read_as_they_are_written(text):
    assert stretches(LISTED.check(text)) == text


@pytest.mark.parametrize("parameter", ALL)
def test_it_survives_json(parameter):
    again = Parameter.from_dict(json.loads(json.dumps(parameter.to_dict())))
    assert again.schema() == parameter.schema()
    assert again.check(again.default) == parameter.check(parameter.default)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"type": "number"},
        {"type": "tensor", "default": 1, "help": ""},
        {"type": "whole", "default": 1.5, "help": ""},
        {"type": "whole", "default": 3, "help": "", "maximum": 2},
        {"type": "flag", "default": True, "help": "", "code": "import os"},
    ],
)
def test_what_is_no_parameter_is_refused(values):
    with pytest.raises((ValueError, TypeError)):
        Parameter.from_dict(values)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_there_is_one_zero(value):
    found = number(0.0, "any").check(value)
    assert found == value
    assert math.copysign(1.0, found) == (math.copysign(1.0, value) if value else 1.0)
