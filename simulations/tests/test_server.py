"""The site as one process with its worker: killed, cancelled, overlooked, and it loses nothing."""

import json
import subprocess
import sys
import time

import httpx
import psutil
import pytest

from fedsite.tests import servers
from fedsite.tests.machine import PROJECT
from simulations.tests.frames import parse, whole

RUN = {"dataset": "digits", "num_clients": 4, "num_rounds": 40}


def start(server, **fields) -> int:
    return httpx.post(f"{server.url}/api/simulations/", json=RUN | fields).json()["id"]


def get(server, number: int) -> dict:
    return httpx.get(f"{server.url}/api/simulations/{number}/").json()


def wait_for(server, number: int, condition) -> dict:
    deadline = time.monotonic() + servers.PATIENCE_SECONDS
    while not condition(record := get(server, number)):
        assert time.monotonic() < deadline, record
        time.sleep(0.1)
    return record


def finished(record: dict) -> bool:
    return record["status"] not in ("queued", "running")


def outcome(record: dict) -> dict:
    names = ("status", "config_sha256", "weights_sha256", "ledger_head", "clients", "pool_microtokens")
    rounds = [{key: row[key] for key in ("round", "loss", "cohort", "weights_sha256")} for row in record["rounds"]]
    return {name: record[name] for name in names} | {"rounds": rounds}


@pytest.fixture(scope="module")
def undisturbed(server):
    return outcome(wait_for(server, start(server), finished))


def test_kills_and_a_stop_end_as_if_nothing_had_happened(start_server, undisturbed):
    """Of the server twice, of the trainer once; a server that is stopped gives its run back."""
    server = start_server()
    number = start(server)
    for target, what in ((3, "kill -9"), (8, "trainer"), (13, "stop"), (18, "kill -9")):
        wait_for(server, number, lambda record, target=target: record["rounds_done"] >= target)
        if what == "trainer":
            trainers(server)[0].kill()
            continue
        server.stop() if what == "stop" else server.kill()
        server = start_server(server.folder, port=server.port)
    assert outcome(wait_for(server, number, finished)) == undisturbed
    wait_until_verified(server)
    assert "Verified 1 ledgers" in server.manage("verify_ledger").stdout
    events = httpx.get(f"{server.url}/api/simulations/{number}/events/?limit=1000").json()
    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
    kinds = [event["kind"] for event in events]
    assert (kinds.count("round"), kinds.count("resumed"), kinds.count("interrupted")) == (40, 4, 1)
    assert "The trainer ended without a word (signal SIGKILL)" in [event["message"] for event in events]


def test_a_run_that_takes_too_long_fails_with_its_reason(start_server):
    server = start_server(FEDSITE_MAX_SECONDS="3")
    refused = httpx.post(f"{server.url}/api/simulations/", json=RUN | {"num_rounds": 10_000})
    assert list(refused.json()["errors"]) == ["num_rounds"]
    # Whoever queued it knew no limit.
    fields = RUN | {"num_rounds": 10_000, "evaluate_every": 10_000}
    queue = (
        "from simulations.config import SimulationConfig; from simulations.running import lifecycle; "
        f"print(lifecycle.queue(SimulationConfig.from_dict({fields}), origin='api').pk)"
    )
    unlimited = server.environment | {"FEDSITE_MAX_SECONDS": "0"}
    queued = servers.run_manage("shell", "-v0", "-c", queue, environment=unlimited)
    record = wait_for(server, int(queued.stdout.split()[-1]), finished)
    assert record["status"] == "failed"
    assert "took longer than the 3 seconds that are allowed (FEDSITE_MAX_SECONDS)" in record["failure"]
    deadline = time.monotonic() + servers.STOP_SECONDS
    while trainers(server) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert trainers(server) == []
    assert "Verified 1 ledgers" in server.manage("verify_ledger").stdout


def wait_until_verified(server) -> None:
    """By the worker, in the background."""
    for _ in range(100):
        found = httpx.get(f"{server.url}/api/incentives/verify/").json()[0]
        if found["ok"] and found["transactions"] == found["length"] > 0:
            break
        time.sleep(0.3)
    assert f"Chain verified · {found['length']} transactions <" in httpx.get(f"{server.url}/ledger/state/").text


def trainers(server) -> list[psutil.Process]:
    return [child for child in servers.descendants(server.process) if servers.lives(child)]


def test_cancel_ends_the_trainer(start_server):
    server = start_server()
    number = start(server, num_rounds=5000, evaluate_every=5000)
    wait_for(server, number, lambda record: record["rounds_done"] >= 1)
    assert len(trainers(server)) == 1
    deadline = time.monotonic() + servers.PATIENCE_SECONDS
    assert httpx.post(f"{server.url}/api/simulations/{number}/cancel/", json={}).json()["status"] == "cancelled"
    while trainers(server):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    rounds = get(server, number)["rounds_done"]
    assert whole(f"{server.url}/api/simulations/{number}/stream/?after=1")[-2].event == "cancelled"
    assert get(server, number)["rounds_done"] == rounds


def test_a_run_that_was_not_rung_for_is_found(server):
    queue = (
        "from simulations.running import lifecycle; from simulations.config import SimulationConfig; "
        f"print(lifecycle.queue(SimulationConfig.from_dict({RUN | {'num_rounds': 2}}), origin='api').pk)"
    )
    done = subprocess.run(
        [sys.executable, "manage.py", "shell", "-v0", "-c", queue],
        cwd=PROJECT,
        env=server.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert wait_for(server, int(done.stdout.split()[-1]), finished)["status"] == "completed"


def test_the_queue_is_served_in_order(server):
    numbers = [start(server, num_rounds=2) for _ in range(3)]
    records = [wait_for(server, number, finished) for number in numbers]
    starts = [record["started_at"] for record in records]
    ends = [record["finished_at"] for record in records]
    assert starts == sorted(starts)
    assert all(end <= begin for end, begin in zip(ends, starts[1:], strict=False))


def test_a_run_that_fails_says_why_and_keeps_the_traceback(server):
    number = start(server, lr=100, weight_decay=1)
    record = wait_for(server, number, finished)
    assert (record["status"], "not finite" in record["failure"]) == ("failed", True)
    page = httpx.get(f"{server.url}/simulations/{number}/").text
    assert "not finite" in page
    assert "Traceback (most recent call last)" in page


def test_the_same_configuration_gives_the_same_from_page_json_and_shell(server, undisturbed):
    with httpx.Client(base_url=server.url) as page:
        page.get("/")
        form = RUN | {"csrfmiddlewaretoken": page.cookies["csrftoken"], "preset": "default"}
        response = page.post("/simulations/", data=form, headers={"Referer": f"{server.url}/"})
    assert response.status_code == 302, response.text
    number = int(response.headers["location"].strip("/").split("/")[-1])
    assert outcome(wait_for(server, number, finished)) == undisturbed
    arguments = [part for name, value in RUN.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    done = server.manage("run_simulation", "--json", *arguments)
    assert outcome(json.loads(done.stdout)) == undisturbed


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell what a process has mapped")
def test_the_server_loads_no_pytorch(server):
    loaded = [mapped.path for mapped in psutil.Process(server.process.pid).memory_maps()]
    assert not [path for path in loaded if "/torch/" in path]


def test_a_viewer_sees_the_run_through_a_restart(start_server):
    server = start_server()
    number = start(server)
    wait_for(server, number, lambda record: record["rounds_done"] >= 5)
    url = f"{server.url}/api/simulations/{number}/stream/"
    text = ""
    try:
        with httpx.stream("GET", url, timeout=30) as response:
            for chunk in response.iter_text():
                text += chunk
                if len(parse(text)) > 30 and server.process.poll() is None:
                    server.kill()
    except httpx.HTTPError:
        pass
    seen = [int(frame.id) for frame in parse(text)]
    start_server(server.folder, port=server.port)
    rest = whole(url, Last_Event_ID=str(seen[-1]))
    assert seen + [int(frame.id) for frame in rest[:-1]] == list(range(1, len(seen) + len(rest)))
