"""A chosen kind: checked, canonical, hashed; and what a catalogue takes."""

import pytest

import kinds
from kinds import Choice, ConfigError, Kind, number, whole

TUNED = Kind(
    family="rule",
    name="lab/tuned",
    help="a rule of somebody's",
    version=2,
    parameters={"share": number(0.2, "share", minimum=0.0, maximum=1.0), "k": whole(None, "how many; empty: all")},
    source_sha256="ab" * 32,
)


@pytest.fixture
def plugged():
    kinds.plug([TUNED])
    yield
    kinds.plug([])


def errors(value, **more) -> dict[str, str]:
    with pytest.raises(ConfigError) as raised:
        kinds.checked("rule", value, "reward_rule", **more)
    return raised.value.errors


def test_it_fills_in_all_parameters_of_its_kind_and_no_others(plugged):
    bare = kinds.checked("rule", "lab/tuned", "reward_rule")
    assert bare.to_dict() == {"kind": "lab/tuned", "share": 0.2, "k": None}
    assert kinds.checked("rule", {"kind": "lab/tuned", "share": None}, "reward_rule") == bare
    assert kinds.checked("rule", bare, "reward_rule") == bare
    assert kinds.checked("rule", "proportional", "reward_rule").to_dict() == {"kind": "proportional"}


def test_it_names_the_choice_or_the_parameter(plugged):
    assert errors("lab/tune")["reward_rule"].startswith("'lab/tune' is not one of proportional, ")
    assert errors("lab/tune")["reward_rule"].endswith(", lab/tuned")
    assert errors({"kind": "lab/tuned", "share": 2, "k": "x", "rate": 1}) == {
        "reward_rule.rate": "lab/tuned has no 'rate'; it has share, k",
        "reward_rule.share": "2.0 is not at least 0 and at most 1",
        "reward_rule.k": "'x' is not a whole number",
    }
    assert errors({"share": 0.1}) == {"reward_rule": 'expected a name or {"kind": ...}'}
    assert list(errors(["lab/tuned"])) == ["reward_rule"]


def test_only_what_is_not_usual_is_hashed_with_the_version_and_the_source(plugged):
    usual = kinds.checked("rule", "lab/tuned", "reward_rule")
    assert usual.hashed() == {"kind": "lab/tuned", "version": 2}
    told = kinds.checked("rule", {"kind": "lab/tuned", "k": 3, "source_sha256": "ab"}, "reward_rule", recorded=True)
    assert told.hashed() == {"kind": "lab/tuned", "k": 3, "version": 2, "source_sha256": "ab"}
    assert list(errors({"kind": "lab/tuned", "source_sha256": "ab"})) == ["reward_rule.source_sha256"]


def test_an_earlier_version_is_meant_where_it_is_asked_for():
    today = kinds.checked("rule", "proportional", "reward_rule")
    earlier = kinds.checked("rule", today, "reward_rule", versions={("rule", "proportional"): 1, ("rule", "rank"): 3})
    assert (today.description.version, earlier.description.version) == (2, 1)
    assert today.load() is not earlier.load()
    assert earlier.load() is today.description.load(version=1)
    assert today.to_dict() == earlier.to_dict() == {"kind": "proportional"}
    assert today.hashed() == {"kind": "proportional", "version": 2}
    assert earlier.hashed() == {"kind": "proportional"}
    assert kinds.checked("rule", earlier, "reward_rule") == today  # the version is its configuration's to say
    with pytest.raises(ValueError, match="proportional: there is no version 3"):
        today.description.at(3)
    with pytest.raises(ValueError, match="not all below 2"):
        Kind(family="rule", name="mine", help="", version=2, older={2: "a:b"})


def test_a_record_outlives_its_plug_in():
    gone = {"kind": "lab/gone", "share": 0.3, "source_sha256": "cd"}
    choice = kinds.checked("rule", gone, "reward_rule", recorded=True)
    assert choice == Choice("rule", "lab/gone", {"share": 0.3}, "cd")
    assert choice.to_dict() == choice.hashed() == gone
    assert list(errors("lab/gone")) == ["reward_rule"]
    with pytest.raises(ValueError, match="is not one of"):
        choice.load()


def test_a_plug_in_shadows_nothing_and_goes_when_it_is_taken_out(plugged):
    assert next(iter(kinds.family("rule"))) == "proportional"
    kinds.plug([])
    assert "lab/tuned" not in kinds.family("rule")
    for wrong in (
        Kind(family="rule", name="proportional", help=""),
        Kind(family="sampler", name="lab/mine", help=""),
    ):
        with pytest.raises(ValueError, match="cannot be plugged in"):
            kinds.plug([wrong])
    with pytest.raises(ValueError, match="already"):
        kinds.register(Kind(family="rule", name="proportional", help=""))


@pytest.mark.parametrize("name", ["Wage", "lab/", "/wage", "a/b/c", "wage!", "", "x" * 61])
def test_a_name_is_one_that_every_place_can_hold(name):
    with pytest.raises(ValueError, match="no name of a kind"):
        Kind(family="rule", name=name, help="")


@pytest.mark.parametrize("name", ["kind", "share", "from_round", "source_sha256", "a-b"])
def test_a_parameter_has_no_name_that_is_taken(name):
    with pytest.raises(ValueError, match="cannot be the name of a parameter"):
        Kind(family="behaviour", name="wage", help="", parameters={name: number(1.0, "")})


def test_every_built_in_kind_has_code_and_says_what_it_is():
    import incentives.catalogue
    import training.catalogue

    assert training.catalogue.DATASETS
    assert incentives.catalogue.SCALING
    for family in kinds.FAMILIES:
        for kind in kinds.family(family).values():
            assert kind.help, kind.name
            assert kind.label, kind.name
            if family != "dataset" and kind.name not in ("auto", "none"):
                assert kind.load() is not None, kind.name
