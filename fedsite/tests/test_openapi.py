"""The API does what its OpenAPI document says: schemathesis draws requests from it, right ones and wrong ones."""

import re
import subprocess
import sys
from collections.abc import Callable

import httpx
import pytest

from fedsite.tests.servers import Server

EXAMPLES = 6  # of each operation, besides those that cover the bounds of every field
STREAMS = r"/stream/?$"
# Rules between fields, for which JSON schema has no words: these may refuse what the document allows.
RULES = """
[[operations]]
include-operation-id = [
    "simulations_api_start", "simulations_api_estimate", "incentives_api_transfers", "incentives_api_reward"
]
checks.positive_data_acceptance.expected-statuses = ["2xx", 409, 422, 429]
[[operations]]
include-operation-id = "simulations_api_reprice"
checks.positive_data_acceptance.expected-statuses = ["2xx", 404, 409, 422]
"""
SEED = """
from django.contrib.auth.models import User
from people import tokens
from simulations.running import lifecycle
from simulations.tests.cast import claimed, queued, recorded
recorded()
lifecycle.cancel(queued().pk)
lifecycle.fail(claimed(), "broken", "Traceback")
user = User.objects.create_superuser("ada", "ada@example.org", "long-enough-9")
print(tokens.create(user, name="lab", scope="write", expires_at=None)[1])
"""


@pytest.fixture
def start(start_server, redis_server) -> Callable[..., tuple[Server, str]]:
    """A site and a token for it. Its workers are elsewhere and none lives, so that what is queued stays queued."""

    def site_and_token(**settings: str) -> tuple[Server, str]:
        room = {"FEDSITE_MAX_QUEUED": "100000", "FEDSITE_MAX_PER_USER": "100000", "FEDSITE_MAX_PER_ADDRESS": "100000"}
        site = start_server(REDIS_URL=redis_server, **room, **settings)
        seeded = site.manage("shell", "-v0", "-c", SEED)
        assert seeded.returncode == 0, seeded.stderr
        return site, seeded.stdout.split()[-1]

    return site_and_token


def fuzz(site: Server, *options: str, token: str = "") -> str:
    """Every check that schemathesis has, on every operation but for what `options` leave out; what it says."""
    (site.folder / "schemathesis.toml").write_text(RULES)
    command = [sys.executable, "-W", "ignore", "-m", "schemathesis.cli", "run", f"{site.url}/api/openapi.json"]
    command += [
        "--checks",
        "all",
        "--max-examples",
        str(EXAMPLES),
        "--generation-deterministic",
        "--continue-on-failure",
    ]
    command += ["--no-color", "--warnings", "off", "--request-timeout", "20"]
    command += ["--header", f"Authorization: Bearer {token}"] if token else []
    done = subprocess.run([*command, *options], cwd=site.folder, env=site.environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    return done.stdout


def test_operations_keep_their_names(client):
    """Of the release before: clients are generated from them."""
    paths = client.get("/api/openapi.json").json()["paths"]
    named = {operation["operationId"] for operations in paths.values() for operation in operations.values()}
    assert {"simulations_api_start", "simulations_api_clone", "incentives_api_reward", "incentives_api_verify"} <= named


def operations(site: Server, token: str = "") -> int:
    """How many the document has, streams aside."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    paths = httpx.get(f"{site.url}/api/openapi.json", headers=headers).json()["paths"]
    return sum(len(methods) for path, methods in paths.items() if not re.search(STREAMS, path))


def test_in_open_access_it_does_what_its_document_says(start):
    site, _ = start()
    fuzz(site, "--include-path-regex", r"}/stream/$")  # these end, since all simulations have
    assert f"Tested: {operations(site)}" in fuzz(site, "--exclude-path-regex", STREAMS)


def test_in_login_access_it_does_what_its_document_says(start):
    site, token = start(FEDSITE_ACCESS="login")
    fuzz(site, "--include-path-regex", r"}/stream/$", token=token)
    drawn = ("--phases", "examples,fuzzing,stateful")  # the bounds of every field are the same in both accesses
    assert f"Tested: {operations(site, token)}" in fuzz(site, "--exclude-path-regex", STREAMS, *drawn, token=token)


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("num_rounds=0", 422),
        ("num_rounds=many", 422),
        ("nonsense=1", 422),
        ("lr=1e999", 422),
        ("num_clients=2&num_clients=x", 422),
        ("behaviours=[]", 422),
        ("behaviours={", 422),
        ("num_rounds=%00", 400),  # no address may hold it
        ("seed=-1", 422),
    ],
)
def test_the_stream_that_starts_something_refuses_what_is_wrong(server, query, status):
    """It cannot be drawn at random: each right request would start a run and follow it to its end."""
    answer = httpx.get(f"{server.url}/api/simulations/stream?{query}", headers={"Accept": "text/event-stream"})
    told = ["detail", "errors"] if status == 422 else ["detail"]
    assert (answer.status_code, list(answer.json())) == (status, told)


@pytest.mark.parametrize("last", ["x", "0-0", "1", "1-", "-1-1", "999999-0", "9" * 19 + "-1", "1-2-3", "\xe9"])
def test_the_stream_that_starts_something_starts_nothing_for_an_odd_reconnect(server, last):
    headers = {"Last-Event-ID": last.encode("latin-1")}
    assert httpx.get(f"{server.url}/api/simulations/stream?num_rounds=1", headers=headers).status_code == 204
