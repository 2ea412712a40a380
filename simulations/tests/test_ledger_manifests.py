"""An export of a run's ledger says on what the run was trained, where the format has a place for it."""

import json
import subprocess
import sys
from io import StringIO

import pytest
from asgiref.sync import async_to_sync
from django.core.management import call_command
from django.test import Client

from incentives import ledger
from incentives.chain import Entry
from incentives.tests.test_ledger_pages import body
from simulations.models import Simulation
from simulations.tests.cast import recorded

pytestmark = [pytest.mark.django_db, pytest.mark.database]


@pytest.fixture
def simulation() -> Simulation:
    """Beside it the ledger of no run. It went on on another machine, whose processor's name tries to be a line."""
    ledger.post(ledger.open_ledger("manual").pk, key="a", transfers=[Entry("mint", "treasury", 5, "pool")])
    simulation = recorded()
    first = simulation.manifests[0]
    simulation.manifests = [first, first | {"after_round": 2, "processor": 'One "other"\\\n2026-01-01 open Assets:X'}]
    simulation.save()
    return simulation


def exported(format: str) -> list[str]:
    """By the shell and by the page alike."""
    out = StringIO()
    call_command("export_ledger", format=format, stdout=out)
    page = async_to_sync(body)(Client().get(f"/ledger/export/?format={format}"))
    assert page == out.getvalue()
    return page.splitlines()


def test_beancount_has_it_in_comments(simulation, tmp_path):
    lines = exported("beancount")
    begin = lines.index(next(line for line in lines if line.startswith(f"; simulation-{simulation.pk}: ")))
    told = [json.loads(line.removeprefix("; manifest: ")) for line in lines[begin + 1 : begin + 3]]
    assert told == simulation.manifests
    assert sum("manifest" in line for line in lines) == 2
    file = tmp_path / "ledger.beancount"
    file.write_text("\n".join(lines))
    checked = subprocess.run([sys.executable, "-m", "beancount.scripts.check", "--no-cache", str(file)])
    assert checked.returncode == 0


def test_json_lines_have_it_with_the_first_transaction(simulation):
    lines = [json.loads(line) for line in exported("jsonl")]
    told = {(line["ledger"], line["sequence"]): line["manifests"] for line in lines if "manifests" in line}
    assert told == {(f"simulation-{simulation.pk}", 1): simulation.manifests}


def test_a_table_has_its_columns_alone(simulation):
    assert {line.count(",") for line in exported("csv")} == {11}
    told = Client().get(f"/api/simulations/{simulation.pk}/").json()["manifests"]
    assert told == simulation.manifests
