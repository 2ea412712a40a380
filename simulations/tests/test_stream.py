"""The streams of a real server: no gap, no repeat, in order, to the end."""

import json
import random
import time

import httpx
import pytest

from simulations.tests.cast import FIELDS
from simulations.tests.frames import chunks, parse, whole

RUN = {"dataset": "digits", "num_clients": 4, "num_rounds": 12, "valuation": "shapley"}
FRONT_END = "http://localhost:3000"
CUTS = 40  # at most, of one run's stream
AS_EVENT_SOURCE = {"Accept": "text/event-stream", "Origin": FRONT_END}


def start(server, **fields) -> int:
    response = httpx.post(f"{server.url}/api/simulations/", json=RUN | fields)
    assert response.status_code == 201, response.text
    return response.json()["id"]


@pytest.fixture(scope="module")
def followed(server):
    """A run followed live from its first event."""
    number = start(server)
    return number, whole(f"{server.url}/api/simulations/{number}/stream/")


def test_a_program_sees_every_event_once_and_the_end(server, followed):
    _, frames = followed
    assert [int(frame.id) for frame in frames[:-1]] == list(range(1, len(frames)))
    assert (frames[-1].event, frames[-1].data) == ("close", ["closed"])
    for frame in frames[:-1]:
        event = json.loads("\n".join(frame.data))
        assert (event["kind"], event["sequence"]) == (frame.event, int(frame.id))
        assert {"at", "message"} <= set(event)
    assert [frame.event for frame in frames[:4]] == ["queued", "starting", "resolved", "started"]
    assert frames[-2].event == "completed"


def test_after_the_end_there_is_nothing_to_come_back_for(server, followed):
    number, frames = followed
    url = f"{server.url}/api/simulations/{number}/stream/"
    assert httpx.get(url, headers={"Last-Event-ID": frames[-2].id}).status_code == 204
    assert httpx.get(f"{url}?after={frames[-2].id}").status_code == 204


def test_it_goes_on_after_a_number(server, followed):
    number, frames = followed
    url = f"{server.url}/api/simulations/{number}/stream/"
    assert whole(f"{url}?after=5") == frames[5:]
    assert whole(f"{url}?after=5", Last_Event_ID="9") == frames[9:]  # a reconnect knows better than the page's address


def test_the_headers_let_nobody_hold_frames_back(server, followed):
    with httpx.stream("GET", f"{server.url}/api/simulations/{followed[0]}/stream/") as response:
        assert response.headers["cache-control"] == "no-cache, no-transform"
        assert response.headers["x-accel-buffering"] == "no"
        assert response.headers["content-encoding"] == "identity"


@pytest.mark.parametrize("path", ["/api/simulations/{}/stream/", "/simulations/{}/stream/"])
def test_many_disconnects_lose_and_repeat_nothing(server, path):
    number = start(server, num_rounds=20)
    dice = random.Random(number)
    seen, cuts, closed = [], 0, False
    while not closed:
        headers = {"Last_Event_ID": str(seen[-1])} if seen else {}
        text, limit = "", dice.randrange(50, 4000) if cuts < CUTS else 10**9
        for chunk in chunks(server.url + path.format(number), **headers):
            text += chunk
            if len(text) >= limit:  # cut anywhere, in the middle of a frame too
                text, cuts = text[:limit], cuts + 1
                break
        for frame in parse(text):
            closed = closed or frame.event == "close"
            seen += [int(frame.id)] if frame.id else []
    last = httpx.get(f"{server.url}/api/simulations/{number}/").json()
    events = httpx.get(f"{server.url}/api/simulations/{number}/events/?limit=1000").json()
    assert last["status"] == "completed"
    assert seen == sorted(set(seen))
    assert seen[-1] == events[-1]["sequence"] == len(events)
    if path.startswith("/api"):
        assert seen == list(range(1, len(events) + 1))
        assert cuts >= 20


def test_lines_arrive_while_the_run_goes_on(server):
    number = start(server)
    arrivals = [time.monotonic() for _ in chunks(f"{server.url}/api/simulations/{number}/stream/")]
    assert len(arrivals) > 5
    assert arrivals[-1] - arrivals[0] > 1  # PyTorch alone takes longer to load


def test_the_compatible_front_end_can_start_and_follow_from_another_origin(server):
    url = f"{server.url}/api/simulations/stream?num_rounds=2&num_clients=2&fraction_fit=0.5&dataset=digits"
    with httpx.stream("GET", url, headers=AS_EVENT_SOURCE, timeout=60) as response:
        assert response.headers["access-control-allow-origin"] == FRONT_END
        assert response.headers["access-control-allow-credentials"] == "true"
        text = "".join(response.iter_text())
    record = httpx.get(f"{server.url}/api/simulations/", params={"limit": 1}).json()[0]
    number = record["id"]
    assert (record["num_rounds"], record["num_clients"], record["fraction_fit"]) == (2, 2, 0.5)
    assert text.split("\n\n")[0].split("\n")[-1] == f"id: {number}-0"
    frames = parse(text)
    assert [frame.id for frame in frames[:-1]] == [f"{number}-{place}" for place in range(1, len(frames))]
    assert {frame.event for frame in frames[:-1]} == {""}
    assert all(len(frame.data) == 1 for frame in frames)
    lines = [frame.data[0] for frame in frames]
    assert sum(line.startswith("Calculated reward:") for line in lines) == 2
    assert f"Simulation record saved with ID: {number}" in lines
    assert (frames[-1].event, frames[-1].data) == ("close", ["closed"])

    rest = whole(url, Origin=FRONT_END, Last_Event_ID=f"{number}-4")
    assert [frame.id for frame in rest] == [frame.id for frame in frames[4:]]
    again = httpx.get(url, headers={"Origin": FRONT_END, "Last-Event-ID": frames[-2].id})
    assert again.status_code == 204
    assert httpx.get(f"{server.url}/api/simulations/", params={"limit": 1}).json()[0]["id"] == number


def test_the_compatible_ledger_and_reward_answer_another_origin(server, followed):
    headers = {"Origin": FRONT_END}
    preflight = httpx.options(
        f"{server.url}/api/incentives/reward",
        headers=headers | {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"},
    )
    assert preflight.headers["access-control-allow-origin"] == FRONT_END
    before = httpx.get(f"{server.url}/api/incentives/ledger?user_id=1", headers=headers).json()
    assert before["balance"] > 0
    asked = {"user_id": 1, "previous_metric": 0.5, "current_metric": 0.4, "scaling_factor": 10.0}
    paid = httpx.post(f"{server.url}/api/incentives/reward", json=asked, headers=headers).json()
    assert (paid["user_id"], paid["reward"]) == (1, 1.0)
    assert paid["new_balance"] == pytest.approx(before["balance"] + 1.0)
    after = httpx.get(f"{server.url}/api/incentives/ledger?user_id=1", headers=headers).json()
    assert after["balance"] == paid["new_balance"]
    assert {"timestamp", "amount", "description"} == set(after["transactions"][0])
    evil = httpx.get(f"{server.url}/api/incentives/ledger?user_id=1", headers={"Origin": "http://evil.example"})
    assert "access-control-allow-origin" not in evil.headers


def test_free_riders_are_seen_in_the_stream(server):
    number = start(server, behaviours=FIELDS["behaviours"], num_rounds=1)
    events = [json.loads(frame.data[0]) for frame in whole(f"{server.url}/api/simulations/{number}/stream/")[:-1]]
    assert {"Client 2 sent no update"} == {event["message"] for event in events if event.get("level") == "warning"}
