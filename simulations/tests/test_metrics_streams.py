"""Streams in the metrics. In process, so on SQLite alone: a stream lets go of its thread's connection, which in
process is the test's own; on PostgreSQL fedsite/tests/test_many.py watches real ones."""

import gc

import pytest

from simulations.showing import stream
from simulations.tests.cast import queued
from simulations.tests.test_metrics import read

pytestmark = pytest.mark.django_db


def test_it_counts_the_streams_of_this_process(client, settings):
    settings.FEDSITE_MAX_STREAMS = 2
    number = queued().pk
    refused = read(client)["streams_refused_total"]
    held = [client.get(f"/api/simulations/{number}/stream/") for _ in range(2)]
    assert read(client)["streams_open"] == 2
    answer = client.get(f"/api/simulations/{number}/stream/")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, str(stream.RETRY_AFTER_SECONDS))
    assert "2 streams open" in answer.json()["detail"]
    assert read(client)["streams_refused_total"] == refused + 1
    del held[0]
    gc.collect()  # a test client's response refers to itself
    assert client.get(f"/simulations/{number}/stream/").status_code == 200
