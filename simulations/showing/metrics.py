"""What Prometheus reads of a site: the queue, its workers, rounds and ledgers from the database, streams and memory
of this process. Numbers are read when they are asked for, in a few queries; nothing counts along.
"""

import logging
from collections.abc import Iterator
from datetime import datetime

from django.conf import settings
from django.db import Error, connection
from django.db.models import Count, Sum
from django.utils import timezone
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from incentives.models import Ledger
from simulations import disk
from simulations.models import Audit, AuditStatus, Simulation, Status
from simulations.running import bell, leases, lifecycle, workers
from simulations.showing import stream

log = logging.getLogger(__name__)


class SiteCollector(Collector):
    """The site's own numbers. Where the database does not answer, those of this process, and 0 for the database."""

    def collect(self) -> Iterator[Metric]:
        yield gauge("streams_open", "Streams that this process has open", len(stream.taken))
        yield counter("streams_refused", "Streams that this process answered with 429 or 503", stream.refused)
        yield redis_up()
        try:
            at = leases.now()
            recorded = [*simulations(at), audits(), *queue(), *who_is_there(at), held(at), *ledgers(), *on_disk()]
        except Error:
            log.exception("The database does not answer; its metrics are left out")
            recorded = []
            connection.close()
        yield gauge("database_up", "1 where the database answers", bool(recorded))
        yield from recorded

    def describe(self) -> list[Metric]:
        """Nothing: or the registry would read the database to learn the names."""
        return []


def gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"fedsite_{name}", text, value=value)


def counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"fedsite_{name}", text, value=value)


def simulations(at: datetime) -> Iterator[Metric]:
    """An interrupted one counts as such, and not as queued or running, which it would seem to be for ever."""
    sums = {"number": Count("id"), "rounds": Sum("rounds_done"), "events": Sum("last_sequence")}
    sums |= {"interrupted": Count("id", filter=lifecycle.interrupted(at))}
    rows = list(Simulation.objects.values("status").annotate(**sums))
    numbers = dict.fromkeys([*Status.values, "interrupted"], 0)
    numbers |= {row["status"]: row["number"] - row["interrupted"] for row in rows}
    numbers["interrupted"] = sum(row["interrupted"] for row in rows)
    by_status = GaugeMetricFamily("fedsite_simulations", "Simulations by status", labels=["status"])
    for status, number in numbers.items():
        by_status.add_metric([status], number)
    yield by_status
    yield counter("rounds", "Rounds recorded", sum(row["rounds"] for row in rows))
    yield counter("events", "Events recorded", sum(row["events"] for row in rows))


def audits() -> Metric:
    by_status = GaugeMetricFamily("fedsite_audits", "Audits by status", labels=["status"])
    numbers = dict.fromkeys(AuditStatus.values, 0)
    numbers |= dict(Audit.objects.order_by().values_list("status").annotate(Count("id")))
    for status, number in numbers.items():
        by_status.add_metric([status], number)
    return by_status


def queue() -> Iterator[Metric]:
    waits = workers.queue()
    yield gauge("queue_length", "Simulations that wait for a worker", waits["waiting"])
    yield gauge("queue_oldest_wait_seconds", "How long the longest of them has waited", seconds_since(waits["oldest"]))


def seconds_since(moment: datetime | None) -> float:
    return (timezone.now() - moment).total_seconds() if moment else 0.0


def redis_up() -> Metric:
    """Without REDIS_URL there is nothing to be up, and no number."""
    up = GaugeMetricFamily("fedsite_redis_up", "1 where Redis answers; only with REDIS_URL")
    if settings.REDIS_URL:
        up.add_metric([], bell.problem() is None)
    return up


def who_is_there(at: datetime) -> Iterator[Metric]:
    text = "Seconds since a worker was heard of; left out an hour after the last time"
    silence = GaugeMetricFamily("fedsite_worker_heartbeat_seconds", text, labels=["worker"])
    there = workers.present(at)
    for name, _, seconds in there:
        silence.add_metric([name], seconds)
    alive = sum(seconds <= settings.FEDSITE_LEASE_SECONDS for _, _, seconds in there)
    yield gauge("workers", "Workers that were heard of within FEDSITE_LEASE_SECONDS", alive)
    yield silence


def held(at: datetime) -> Metric:
    """Who runs what."""
    text = "Seconds that the lease of a running simulation's worker still has; below 0 the worker is lost"
    left = GaugeMetricFamily("fedsite_worker_lease_seconds", text, labels=["worker", "simulation"])
    running = Simulation.objects.filter(status=Status.RUNNING, lease_expires_at__isnull=False).order_by("id")
    for number, claimant, expires in running.values_list("id", "claimed_by", "lease_expires_at"):
        left.add_metric([claimant.rpartition(":")[0], str(number)], (expires - at).total_seconds())
    return left


def ledgers() -> Iterator[Metric]:
    sums = Ledger.objects.aggregate(number=Count("id"), height=Sum("length", default=0))
    yield gauge("ledgers", "Ledgers", sums["number"])
    yield counter("ledger_transactions", "Transactions in all ledgers: their height", sums["height"])


def on_disk() -> Iterator[Metric]:
    size = GaugeMetricFamily("fedsite_disk_bytes", "What database, checkpoints and data take", labels=["what"])
    free = GaugeMetricFamily("fedsite_disk_free_bytes", "What is left on the disk that they lie on", labels=["what"])
    for use in disk.use():
        size.add_metric([use.what], use.bytes)
        if use.free_bytes is not None:
            free.add_metric([use.what], use.free_bytes)
    yield size
    yield free


registry = CollectorRegistry()
for make in (ProcessCollector, PlatformCollector, GCCollector):
    make(registry=registry)
registry.register(SiteCollector())
