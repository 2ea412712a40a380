"""One reader of JSON for bodies, files, addresses and the command line."""

import codecs
import json

import pytest

from simulations import reading


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_it_reads_what_editors_and_shells_write(encoding):
    values = {"num_rounds": 3, "name": "Zoë"}
    assert reading.value(json.dumps(values, ensure_ascii=False).encode(encoding)) == values


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ('{"a": 1,}', "is not JSON"),
        (b"\xff\xfe\x00", "is not text in utf-16"),
        (b'{"a": "\xe9"}', "is not text in utf-8"),
        (codecs.BOM_UTF8 + b"\xff", "is not text in utf-8"),
    ],
)
def test_it_says_what_is_no_json(given, problem):
    with pytest.raises(reading.NotJson, match=f"^{problem}"):
        reading.value(given)


@pytest.mark.parametrize(
    ("given", "field", "problem"),
    [
        ('{"a": 1, "b": 2, "a": 1}', "a", "'a' is given twice"),
        ('{"a": {"b": 1, "b": 1}}', "b", "'b' is given twice"),
        ('{"a": NaN}', "a", "not finite"),
        ('{"a": [1, {"b": -Infinity}]}', "a", "not finite"),
        ('{"a": 1e999}', "a", "not finite"),
        ('{"a": %s}' % ("9" * 401), "a", "not finite"),
        ('{"a": %s}' % ("9" * 100_000), "a", "not finite"),
        ('{"a": "\\u0000"}', "a", "no text may have"),
        ('{"a": "\\ud800"}', "a", "no text may have"),
        ('{"a": {"\\u0000": 1}}', "a", "no text may have"),
        ('{"\\udfff": 1}', "\udfff", "no text may have"),
        ("[" * 3_000, None, "nested too deeply"),
        ("[" * 100_000, None, "nested too deeply"),
        ('{"a": ' + "[" * 900 + "0" + "]" * 900 + "}", "a", "nested too deeply"),
        ("[" * 33 + "0" + "]" * 33, None, "nested too deeply"),
    ],
)
def test_it_refuses_what_nobody_may_send(given, field, problem):
    with pytest.raises(reading.Unreadable, match=problem) as refused:
        reading.value(given)
    assert not isinstance(refused.value, reading.NotJson)
    assert refused.value.field == field


def test_what_is_no_json_is_text_on_the_command_line_and_in_an_address():
    assert [reading.value_or_text(text) for text in ("1", "mnist", "", "[1")] == [1, "mnist", "", "[1"]
