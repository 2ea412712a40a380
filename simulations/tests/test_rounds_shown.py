"""Charts and tables of long runs keep every evaluated round where they can, and say so where they cannot."""

import pytest
from django.test import Client

from simulations.models import Round, Simulation
from simulations.showing import fragments
from simulations.tests.cast import queued

pytestmark = pytest.mark.django_db


def long_run(num_rounds: int, evaluate_every: int) -> Simulation:
    simulation = queued(num_rounds=num_rounds, evaluate_every=evaluate_every)
    seconds = ("train_seconds", "evaluate_seconds", "valuation_seconds", "duration_seconds")
    figures = dict.fromkeys(seconds, 0.5) | {"pool_microtokens": 0, "treasury_microtokens": 0, "cohort_size": 4}
    Round.objects.bulk_create(
        Round(simulation=simulation, number=n, loss=None if n % evaluate_every and n != num_rounds else 0.5, **figures)
        for n in range(1, num_rounds + 1)
    )
    Simulation.objects.filter(pk=simulation.pk).update(rounds_done=num_rounds)
    simulation.refresh_from_db()
    return simulation


def evaluated(rows: list[dict]) -> list[int]:
    return [row["number"] for row in rows if row["loss"] is not None]


def test_every_evaluated_round_is_shown_where_there_is_room():
    simulation = long_run(1000, 7)
    assert evaluated(fragments.recorded_rows(simulation)) == [*range(7, 1000, 7), 1000]
    page = Client().get(f"/simulations/{simulation.pk}/").content.decode()
    assert "by round; each round that was evaluated" in page


def test_else_a_sample_of_them_and_the_page_says_so():
    simulation = long_run(3507, 3)
    rows = fragments.recorded_rows(simulation)
    assert len(rows) <= fragments.ROUND_ROWS + 2
    assert evaluated(rows) == [*range(9, 3507, 9), 3507]
    page = Client().get(f"/simulations/{simulation.pk}/").content.decode()
    assert "by round; a sample: one round in 9 of 3,507" in page


def test_a_short_run_is_whole_and_says_nothing():
    simulation = long_run(20, 7)
    assert len(fragments.recorded_rows(simulation)) == 20
    assert "by round</span>" in Client().get(f"/simulations/{simulation.pk}/").content.decode()
