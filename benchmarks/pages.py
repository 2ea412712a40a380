"""How long pages and JSON take with much in the database: `python -m benchmarks.pages [LEDGERS] [ROUNDS]`.

On a SQLite file of its own: a ledger of a crowd run (20 rounds, 100 clients paid in each), then LEDGERS (200), then
one run of ROUNDS rounds (10,000) with cohorts of 100. Each figure is the median of seven requests.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from fedsite.tests import servers

PAID_ROUNDS, COHORT = 20, 100
PAGES = ("/ledger/state/", "/ledger/", "/", "/api/incentives/verify/")


def main(many: int, num_rounds: int) -> None:
    from django.conf import settings

    from incentives import verified
    from incentives.models import Transfer

    settings.ALLOWED_HOSTS = ["testserver"]
    fill(1)
    report("one ledger, nothing verified yet")
    fill(many)
    report(f"{many:,} ledgers, nothing verified yet")
    began = time.perf_counter()
    verify_all()
    print(f"reading every chain takes {time.perf_counter() - began:.2f} s, in the background")
    report(f"{many:,} ledgers, verified")
    began = time.perf_counter()
    verify_all()
    print(f"a look with nothing new takes {1000 * (time.perf_counter() - began):.1f} ms")
    began = time.perf_counter()
    assert not verified.changed()
    print(f"counting {Transfer.objects.count():,} transfers takes {1000 * (time.perf_counter() - began):.1f} ms")
    address = f"/api/simulations/{long_run(num_rounds)}/"
    for path in (address, f"{address}rounds/?limit=1000&cursor={num_rounds // 2}"):
        seconds, size = timed(path)
        print(f"{path}: {size / 1e6:.2f} MB in {seconds:.3f} s")


def fill(many: int) -> None:
    """Ledgers up to so many."""
    from django.db import transaction

    from incentives import ledger
    from incentives.chain import Entry

    rewards = [Entry("treasury", f"client:{number}", 1, "reward") for number in range(1, COHORT + 1)]
    for number in range(1, many + 1):
        opened = ledger.open_ledger(f"crowd-{number}")
        with transaction.atomic():
            for round_number in range(1, PAID_ROUNDS + 1):
                pool = Entry("mint", "treasury", COHORT, "pool")
                ledger.post(opened.pk, key=f"round:{round_number}", transfers=[pool, *rewards])


def verify_all() -> None:
    from simulations.running import verifier

    while verifier.look(lambda seconds: False):
        pass


def report(name: str) -> None:
    times = ", ".join(f"{page} {1000 * timed(page)[0]:.1f} ms" for page in PAGES)
    print(f"{name}: {times}")


def timed(path: str) -> tuple[float, int]:
    """Seconds and bytes."""
    from django.test import Client

    client, seconds = Client(), []
    for _ in range(7):
        began = time.perf_counter()
        answer = client.get(path)
        seconds.append(time.perf_counter() - began)
        if answer.status_code != 200:
            raise SystemExit(f"{path}: {answer.status_code}")
    return statistics.median(seconds), len(answer.content)


def long_run(num_rounds: int) -> int:
    """The number of a simulation with so many recorded rounds."""
    from simulations.config import SimulationConfig
    from simulations.models import Client, Contribution, Round, Simulation
    from simulations.running import lifecycle

    config = SimulationConfig.from_dict({"num_rounds": num_rounds, "num_clients": COHORT, "dataset": "digits"})
    simulation = lifecycle.queue(config, origin="shell")
    shares = {"num_examples": 14, "label_counts": [14], "behaviour": "honest"}
    clients = Client.objects.bulk_create(Client(simulation=simulation, number=n + 1, **shares) for n in range(COHORT))
    seconds = ("train_seconds", "evaluate_seconds", "valuation_seconds", "duration_seconds")
    figures = dict.fromkeys(seconds, 0.5) | {"pool_microtokens": 0, "treasury_microtokens": 0}
    figures |= {"weights_sha256": "0" * 64, "cohort_size": COHORT, "loss": 0.5, "accuracy": 0.5}
    for start in range(1, num_rounds + 1, 500):
        numbers = range(start, min(start + 500, num_rounds + 1))
        rounds = Round.objects.bulk_create(Round(simulation=simulation, number=n, **figures) for n in numbers)
        parts = ((row, client) for row in rounds for client in clients)
        Contribution.objects.bulk_create(
            Contribution(round=row, client=client, reward_microtokens=0, update_norm=1.0) for row, client in parts
        )
    Simulation.objects.filter(pk=simulation.pk).update(rounds_done=num_rounds)
    return simulation.pk


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        own = {"DEBUG": "1", "SECRET_KEY": "benchmark" * 8, "FEDSITE_REQUESTS_PER_MINUTE": "0"}
        os.environ.update(own, FEDSITE_ENV_FILE=os.devnull, DJANGO_SETTINGS_MODULE="fedsite.settings")
        servers.migrate(Path(folder))
        os.environ |= servers.site_environment(Path(folder))
        import django

        django.setup()
        main(*(int(text) for text in (*sys.argv[1:], "200", "10000")[:2]))
