"""What goes by itself, what `manage.py prune` lets go of, and what stays for ever."""

import hashlib
from datetime import timedelta
from io import StringIO
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import Client as Browser
from django.utils import timezone

from incentives.models import Evidence
from simulations import disk
from simulations.models import Contribution, Event, Round, Simulation, Status
from simulations.running import lifecycle
from simulations.tests.cast import claimed, recorded
from simulations.tests.test_verify_ledger import verify

pytestmark = [pytest.mark.django_db, pytest.mark.database]


@pytest.fixture(autouse=True)
def checkpoints(settings, tmp_path) -> Path:
    settings.FEDSITE_CHECKPOINT_DIR = tmp_path
    return tmp_path


def old(**values) -> Simulation:
    """A completed run of a hundred days ago, with what a killed worker left of its checkpoints."""
    simulation = recorded()
    values = {"finished_at": timezone.now() - timedelta(days=100)} | values
    Simulation.objects.filter(pk=simulation.pk).update(**values)
    folder = disk.checkpoint_folder(simulation.pk)
    folder.mkdir(parents=True)
    for name in ("round-000002.pt", "round-000003.pt", "round-000003.pt.0a.tmp"):
        (folder / name).write_bytes(b"x" * 1000)
    simulation.refresh_from_db()
    return simulation


def resting_on_its_own(simulation: Simulation) -> Simulation:
    """With evidence that no other run has, though all of the cast are equal."""
    for row in simulation.rounds.all():
        sha256 = hashlib.sha256(str(row.number).encode()).hexdigest()
        Evidence.objects.create(pk=sha256, content=str(row.number).encode())
        simulation.rounds.filter(pk=row.pk).update(evidence_sha256=sha256)
    return simulation


def prune(*options: str) -> str:
    out = StringIO()
    call_command("prune", *options, stdout=out)
    return out.getvalue()


def everything() -> list:
    rows = [list(model.objects.order_by("pk").values_list()) for model in (Event, Round, Contribution, Simulation)]
    return [*rows, sorted(path.name for path in disk.settings.FEDSITE_CHECKPOINT_DIR.rglob("*"))]


def test_without_yes_nothing_changes_and_all_is_said():
    old(), old(archived=True), resting_on_its_own(recorded())
    before = everything()
    said = prune()
    assert everything() == before
    assert "Of 2 simulations that finished more than 90 days ago" in said
    assert "3 rounds' evidence" in said  # the two are equal and share it
    assert "5 checkpoints (4.9 KB)" in said  # two of the first, all three of the archived one
    assert "Nothing was changed" in said


def test_it_lets_go_of_old_text_and_evidence_and_no_more():
    simulation, young = old(), resting_on_its_own(recorded())
    rounds = list(simulation.rounds.order_by("number").values("number", "loss", "evidence_sha256", "weights_sha256"))
    numbers = list(simulation.events.order_by("sequence").values_list("sequence", "kind"))
    assert "Pruned 1 simulations." in prune("--yes")
    simulation.refresh_from_db()
    assert simulation.pruned_at is not None
    assert set(Evidence.objects.values_list("pk", flat=True)) == set(
        young.rounds.values_list("evidence_sha256", flat=True)
    )
    assert set(simulation.events.filter(kind="log").values_list("message", flat=True)) == {""}
    assert list(simulation.rounds.order_by("number").values(*rounds[0])) == rounds
    assert list(simulation.events.order_by("sequence").values_list("sequence", "kind")) == numbers
    assert Contribution.objects.filter(round__simulation=simulation).exists()
    assert [path.name for path in disk.checkpoint_folder(simulation.pk).iterdir()] == ["round-000003.pt"]
    assert verify("--simulation", str(simulation.pk))[0] == 0
    assert "  0 log lines" in prune("--yes")
    assert "let go of on" in Browser().get(f"/simulations/{simulation.pk}/").content.decode()


def test_evidence_that_another_run_rests_on_stays():
    simulation, young = old(), recorded()
    before = Evidence.objects.count()
    prune("--yes")
    assert (Evidence.objects.count(), before) == (3, 3)
    assert verify()[0] == 0
    Simulation.objects.filter(pk=young.pk).update(finished_at=timezone.now() - timedelta(days=100))
    prune("--yes")
    assert (Evidence.objects.count(), verify()[0]) == (0, 0)
    assert Simulation.objects.filter(pruned_at=None).count() == 0
    assert simulation.pk != young.pk


def test_evidence_in_the_rounds_of_older_schemes_goes_too():
    simulation = old()
    simulation.rounds.update(evidence=b"as it was")
    assert "6 rounds' evidence" in prune("--yes")
    assert not simulation.rounds.filter(evidence__isnull=False).exists()


def test_an_archived_run_keeps_sums_and_ledger():
    simulation = old(archived=True)
    sums = list(simulation.clients.order_by("number").values("number", "rounds", "contribution", "reward_microtokens"))
    prune("--yes", "--older-than", "30")
    assert not Contribution.objects.filter(round__simulation=simulation).exists()
    assert list(disk.checkpoint_folder(simulation.pk).iterdir()) == []
    assert list(simulation.clients.order_by("number").values(*sums[0])) == sums
    record = Browser().get(f"/api/simulations/{simulation.pk}/").json()
    assert record["pruned_at"] is not None
    assert [(row["cohort"], row["cohort_size"]) for row in record["rounds"]] == [([], 4)] * 3
    assert "was let go of" in Browser().get(f"/simulations/{simulation.pk}/clients/1/").content.decode()
    assert verify()[0] == 0


def test_what_is_not_finished_or_young_is_left_alone():
    simulation = Simulation.objects.get(pk=claimed().simulation_id)
    Simulation.objects.filter(pk=simulation.pk).update(finished_at=timezone.now() - timedelta(days=100))
    old(finished_at=timezone.now() - timedelta(days=89))
    before = everything()[:4]
    prune("--yes")
    assert everything()[:4] == before


@pytest.mark.parametrize("days", ["-1", "x", "1.5", "99999999999"])
def test_it_names_a_wrong_age(days):
    with pytest.raises(CommandError, match="older-than"):
        prune(f"--older-than={days}")


def test_a_pruned_run_that_failed_goes_on():
    """The sums that it goes on from are its clients', not the rows that are gone."""
    simulation = old(status=Status.FAILED, archived=True)
    prune("--yes")
    assert lifecycle.resume(simulation.pk).status == Status.QUEUED


def test_operators_see_what_the_disk_holds(monkeypatch):
    monkeypatch.setattr(disk, "_counted", None)
    old()
    uses = {use.what: use for use in disk.use()}
    assert uses["checkpoints"].bytes == 3000
    assert uses["database"].bytes > 10_000
    User.objects.create_superuser("root", password="x")
    browser = Browser()
    browser.force_login(User.objects.get())
    assert "2.9\xa0KB" in browser.get("/admin/simulations/simulation/disk/").content.decode()
    assert Browser().get("/admin/simulations/simulation/disk/").status_code == 302
