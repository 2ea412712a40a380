"""A kind that is in the catalogue is everywhere: in the form, the schema, the shell, the admin, on the page."""

import dataclasses
import re

import pytest
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.test import Client as Browser

import kinds
from kinds import Kind, number
from simulations.config import CHOICES
from simulations.models import Simulation
from simulations.showing import wording
from simulations.showing.forms import StartForm, texts_of
from simulations.tests.cast import config, queued, recorded

pytestmark = pytest.mark.django_db
PLUGGABLE = ("model", "behaviour", "strategy", "valuation", "pool", "rule")
FIELDS = {family: name for name, family in CHOICES.items()}


@pytest.fixture(params=PLUGGABLE)
def kind(request, monkeypatch):
    """One of a family that nobody knew before. It lies in no folder, so folders are not looked at."""
    monkeypatch.setattr(kinds.catalogue, "_before_reading", None)
    made = Kind(
        family=request.param,
        name="lab/pickled_herring",
        label="Herring, pickled",
        help="Does what no other does",
        parameters={"brine": number(0.25, "How salty it is", minimum=0.0, maximum=1.0)},
        code=lambda *facts, **parameters: None,
    )
    kinds.plug([made])
    yield made
    kinds.plug([])


def chosen(kind: Kind, **parameters) -> dict:
    """Fields of a configuration that choose it."""
    value = {"kind": kind.name, **parameters}
    return {"behaviours": {"3": value}} if kind.family == "behaviour" else {FIELDS[kind.family]: value}


@pytest.mark.parametrize("family", ["pool", "rule"])
def test_what_is_built_in_is_offered_with_its_parameters(family, client):
    html, document = client.get("/").content.decode(), client.get("/api/openapi.json").content.decode()
    for built_in in kinds.family(family).values():
        assert f'<option value="{built_in.name}"' in html
        assert f'"const":"{built_in.name}"' in document.replace('": "', '":"')
        for name, parameter in built_in.parameters.items():
            assert f'name="{FIELDS[family]}.{built_in.name}.{name}"' in html
            assert parameter.help in html
        texts = texts_of(config(**chosen(built_in)).to_dict())
        assert StartForm(query(texts)).config() == config(**chosen(built_in))


def test_the_configuration_takes_it_with_its_parameters_alone(kind):
    found = config(**chosen(kind)).to_dict()
    expected = {"kind": kind.name, "brine": 0.25}
    assert (found["behaviours"]["3"] if kind.family == "behaviour" else found[FIELDS[kind.family]]) == expected
    with pytest.raises(kinds.ConfigError, match=r"brine"):
        config(**chosen(kind, brine=2))
    kinds.plug([])
    with pytest.raises(kinds.ConfigError, match=r"herring"):
        config(**chosen(kind))


def test_the_form_offers_it(kind):
    html = Browser().get("/").content.decode()
    assert "pickled_herring" in html
    if kind.family != "behaviour":
        full = f"{FIELDS[kind.family]}.{kind.name}.brine"
        assert f'name="{full}"' in html
        assert "How salty it is" in html
        texts = texts_of(config(**chosen(kind, brine=0.5)).to_dict())
        assert texts[full] == "0.5"
        assert StartForm(query(texts)).config() == config(**chosen(kind, brine=0.5))


def query(texts: dict[str, str]):
    from django.http import QueryDict

    data = QueryDict(mutable=True)
    data.update(texts)
    return data


def test_the_api_describes_it(kind, client):
    document = client.get("/api/openapi.json").content.decode()
    assert '"lab/pickled_herring"' in document
    assert "How salty it is" in document
    families = {each["family"]: each["kinds"] for each in client.get("/api/catalogue/").json()}
    assert families[kind.family][-1]["parameters"]["brine"]["maximum"] == 1.0
    kinds.plug([])
    assert "herring" not in client.get("/api/openapi.json").content.decode()


def test_the_shell_names_it(kind, capsys):
    if kind.family == "behaviour":
        return
    with pytest.raises(SystemExit):
        call_command("run_simulation", "--help")
    assert "lab/pickled_herring" in re.sub(r"\s+", "", capsys.readouterr().out)


def test_the_admin_filters_by_it(kind):
    if kind.family == "behaviour":
        return
    browser = Browser()
    browser.force_login(get_user_model().objects.create_superuser("root"))
    other, mine = queued(), queued()
    Simulation.objects.filter(pk=mine.pk).update(config=config(**chosen(kind)).to_dict())
    name = FIELDS[kind.family]
    html = browser.get("/admin/simulations/simulation/", {name: kind.name}).content.decode()
    assert "Herring, pickled" in html
    assert f"/simulation/{mine.pk}/change/" in html
    assert f"/simulation/{other.pk}/change/" not in html


def test_the_page_shows_it_with_its_parameters_and_outlives_it(kind):
    simulation = recorded()
    Simulation.objects.filter(pk=simulation.pk).update(config=config(**chosen(kind, brine=0.5)).to_dict())
    simulation.refresh_from_db()
    html = Browser().get(f"/simulations/{simulation.pk}/").content.decode()
    assert "pickled_herring" in html or "pickled herring" in html
    assert "0.5" in html
    rows = {row["name"]: row for group in wording.configuration(simulation) for row in group["rows"]}
    if kind.family != "behaviour":
        assert rows[f"{FIELDS[kind.family]}.brine"]["value"] == "0.5"
        assert rows[FIELDS[kind.family]]["value"] == "Herring, pickled (lab/pickled_herring)"
    kinds.plug([])
    assert Browser().get(f"/simulations/{simulation.pk}/").status_code == 200
    assert Browser().get("/").status_code == 200
    assert Browser().get(f"/api/simulations/{simulation.pk}/").json()["config"] == simulation.config


def test_its_version_enters_the_hash_where_it_is_not_the_first(kind):
    first = config(**chosen(kind)).sha256()
    kinds.plug([dataclasses.replace(kind, version=2)])
    assert config(**chosen(kind)).sha256() != first
