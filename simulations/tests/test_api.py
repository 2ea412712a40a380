"""Simulations over JSON."""

import json

import pytest
from django.db.models import Model

from simulations.config import SimulationConfig
from simulations.models import Event, Simulation
from simulations.origins import may_start_by_get
from simulations.running import lifecycle
from simulations.tests.cast import FIELDS, config, queued, recorded

pytestmark = pytest.mark.django_db
URL = "/api/simulations/"
AS_EVENT_SOURCE = {"accept": "text/event-stream"}


def post(client, path=URL, values=None, **headers):
    body = values if isinstance(values, str) else json.dumps(values or {})
    return client.post(path, body, content_type="application/json", headers=headers)


def nothing_left_behind() -> bool:
    models: list[type[Model]] = [Simulation, Event]
    return not any(model.objects.exists() for model in models)


def test_it_starts_a_simulation_of_defaults(client):
    response = post(client)
    assert response.status_code == 201
    record = response.json()
    assert response["Location"] == f"{URL}{record['id']}/"
    assert (record["status"], record["num_rounds"], record["num_clients"], record["fraction_fit"]) == (
        "queued",
        10,
        10,
        1.0,
    )
    assert (record["started_at"], record["finished_at"]) == (None, None)


def test_it_takes_every_field(client):
    values = config().to_dict()
    response = post(client, values=values)
    assert response.status_code == 201
    assert client.get(response["Location"]).json()["config"] == values


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"num_rounds": 0}, "num_rounds"),
        ({"num_rounds": "10"}, "num_rounds"),
        ({"num_rounds": True}, "num_rounds"),
        ('{"lr": NaN}', "lr"),
        ('{"lr": 1e999}', "lr"),
        ({"rounds": 3}, "rounds"),
        ({"behaviours": {"11": {"kind": "free_rider"}}}, "behaviours"),
        ({"behaviours": [1]}, "behaviours"),
        ({"dataset": None}, "dataset"),
        ('{"num_rounds": 2, "num_rounds": 2}', "num_rounds"),
        ('{"dataset": "\\u0000"}', "dataset"),
        ('{"behaviours": %s}' % ("[" * 3_000 + "]" * 3_000), "body"),
        ('{"behaviours": %s}' % ("[" * 300 + "]" * 300), "behaviours"),
    ],
)
def test_a_bad_field_is_named_and_leaves_nothing_behind(client, values, field):
    response = post(client, values=values)
    assert response.status_code == 422
    assert list(response.json()["errors"]) == [field]
    assert field in response.json()["detail"]
    assert nothing_left_behind()


@pytest.mark.parametrize(
    ("body", "status"), [("{", 400), ("[1]", 422), ("[" * 100_000, 422), ('"x"', 422), ("\xff", 400)]
)
def test_a_body_that_is_no_object_is_refused(client, body, status):
    assert post(client, values=body).status_code == status
    assert nothing_left_behind()


def test_a_repeat_with_the_same_key_is_harmless(client):
    first = post(client, values=FIELDS, idempotency_key="once")
    again = post(client, values=FIELDS, idempotency_key="once")
    assert (again.status_code, again.json()["id"]) == (201, first.json()["id"])
    other = post(client, values={}, idempotency_key="once")
    assert other.status_code == 409
    assert Simulation.objects.count() == 1


def test_a_full_queue_answers_429(client, settings):
    settings.FEDSITE_MAX_QUEUED = 1
    post(client)
    response = post(client)
    assert response.status_code == 429
    assert int(response["Retry-After"]) > 0
    assert Simulation.objects.count() == 1


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "http://evil.example"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"origin": "http://localhost:3000"}, 201),
        ({"origin": "http://testserver"}, 201),
        ({"origin": "null"}, 403),
    ],
)
def test_another_site_may_not_write(client, headers, status):
    assert post(client, **headers).status_code == status
    assert Simulation.objects.count() == (status == 201)


def test_a_form_of_another_site_cannot_pass_for_json(client):
    for content_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        assert client.post(URL, "{}", content_type=content_type).status_code == 415
    assert nothing_left_behind()


def test_a_list_is_newest_first_and_tells_the_next_page(client):
    made = [queued().pk for _ in range(5)]
    page = client.get(URL, {"limit": 2})
    assert [record["id"] for record in page.json()] == made[:-3:-1]
    seen = page.json()
    while "Link" in page:
        address = page["Link"].split(">")[0].lstrip("<")
        assert page["Link"].endswith('; rel="next"')
        page = client.get(address)
        seen += page.json()
    assert [record["id"] for record in seen] == made[::-1]


@pytest.mark.parametrize("key", ["", "x" * 201, "two words", "caf\xe9", "nul\0"])
def test_an_idempotency_key_is_of_visible_characters(client, key):
    answer = post(client, **{"Idempotency-Key": key})
    assert (answer.status_code, list(answer.json()["errors"])) == (422, ["Idempotency-Key"])
    assert not Simulation.objects.exists()


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "limit=x", "cursor=0", "cursor=9223372036854775808", "status=odd"]
)
def test_a_bad_query_names_its_parameter(client, query):
    response = client.get(f"{URL}?{query}")
    assert response.status_code == 422
    assert query.partition("=")[0] in response.json()["detail"]


def test_lists_cost_a_fixed_number_of_queries(client, django_assert_max_num_queries):
    for _ in range(5):
        queued()
    with django_assert_max_num_queries(2):
        client.get(URL)


def test_a_record_has_its_rounds_and_clients(client, django_assert_max_num_queries):
    simulation = recorded()
    with django_assert_max_num_queries(7):
        result = client.get(f"{URL}{simulation.pk}/").json()
    assert (result["status"], result["ledger_head"]) == ("completed", simulation.ledger_head)
    assert [row["round"] for row in result["rounds"]] == [1, 2, 3]
    assert result["rounds"][0]["cohort"] == [1, 2, 3, 4]
    assert sum(row["pool_microtokens"] for row in result["rounds"]) == result["pool_microtokens"]
    assert sum(row["reward_microtokens"] for row in result["clients"]) == result["pool_microtokens"]
    assert [row["behaviour"] for row in result["clients"]] == ["honest", "free_rider", "honest", "honest"]
    assert result["finished_at"].endswith("Z")


@pytest.mark.parametrize("path", ["", "events/"])
@pytest.mark.parametrize("number", ["999999999", "9223372036854775807"])
def test_what_is_not_there_is_a_404(client, path, number):
    response = client.get(f"{URL}{number}/{path}")
    assert response.status_code == 404
    assert number in response.json()["detail"]


@pytest.mark.parametrize("debug", [True, False])
def test_what_django_refuses_is_told_as_the_api_does(client, settings, debug):
    settings.DEBUG = debug
    nothing = client.get("/api/nothing/here/")
    assert (nothing.status_code, nothing.json()) == (404, {"detail": "There is nothing at /api/nothing/here/"})
    deleted = client.delete(URL)
    assert (deleted.status_code, deleted.json()) == (
        405,
        {"detail": f"DELETE is not allowed here, only {deleted['Allow']}"},
    )
    assert "POST" in deleted["Allow"]


def test_it_cancels_resumes_and_clones(client):
    number = queued().pk
    assert post(client, f"{URL}{number}/resume/").status_code == 409
    assert post(client, f"{URL}{number}/cancel/").json()["status"] == "cancelled"
    assert post(client, f"{URL}{number}/cancel/").status_code == 409
    assert post(client, f"{URL}{number}/resume/").json()["status"] == "queued"
    again = post(client, f"{URL}{number}/clone/")
    assert again.status_code == 201
    assert again["Location"] == f"{URL}{again.json()['id']}/"
    assert Simulation.objects.get(pk=again.json()["id"]).config == Simulation.objects.get(pk=number).config
    for act in ("cancel", "resume", "clone"):
        assert post(client, f"{URL}999999/{act}/").status_code == 404


def test_events_come_after_a_number_in_pages(client):
    simulation = recorded()
    page = client.get(f"{URL}{simulation.pk}/events/", {"after": 2, "limit": 3})
    assert [event["sequence"] for event in page.json()] == [3, 4, 5]
    assert {"kind", "sequence", "at", "message"} <= set(page.json()[0])
    seen = page.json()
    while "Link" in page:
        page = client.get(page["Link"].split(">")[0].lstrip("<"))
        seen += page.json()
    assert [event["sequence"] for event in seen] == list(range(3, simulation.last_sequence + 1))


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-mode": "navigate"},
        {"sec-fetch-mode": "no-cors"},
        {"origin": "http://evil.example"},
        {"sec-fetch-site": "cross-site"},
        {"accept": "*/*"},  # a program, or a script's fetch
        {"accept": "text/*"},
        {"accept": "text/event-stream;q=0, */*"},
        {"accept": "image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5"},  # a picture
        {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"},  # a link
        {"origin": "null"},
        {"last-event-id": "", "accept": "*/*"},
        # What a script elsewhere can send to a host's name over plain HTTP: `fetch` without CORS, of this type.
        {"user-agent": "Mozilla/5.0", "referer": "http://evil.example:9999/page.html"},
        {"user-agent": "Mozilla/5.0", "referer": "http://testserver.evil.example/"},
        {"user-agent": "Mozilla/5.0"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_the_compatible_stream_starts_nothing_by_accident(client, headers):
    """Over plain HTTP browsers send no Sec-Fetch headers, and with a picture no Origin."""
    headers = AS_EVENT_SOURCE | headers
    assert client.get(f"{URL}stream?num_rounds=1", headers=headers).status_code == 403
    assert nothing_left_behind()


@pytest.mark.parametrize(
    ("headers", "starts"),
    [
        ({"User-Agent": "Mozilla/5.0", "Referer": "http://testserver/simulations/1/"}, True),
        ({"User-Agent": "Mozilla/5.0", "Origin": "http://localhost:3000"}, True),
        ({"User-Agent": "Mozilla/5.0", "Sec-Fetch-Site": "same-origin"}, True),
        ({"User-Agent": "curl/8.5.0"}, True),
        ({"User-Agent": "Mozilla/5.0", "Sec-Fetch-Site": "same-site", "Referer": "http://testserver/"}, False),
        ({"User-Agent": "Mozilla/5.0", "Referer": "nonsense"}, False),
    ],
)
def test_a_page_of_ours_and_a_program_may_start_by_get(rf, headers, starts):
    assert may_start_by_get(rf.get("/", headers={"Host": "testserver"} | headers)) is starts


def test_the_compatible_stream_answers_head_without_starting_or_streaming(client):
    assert client.head(f"{URL}stream?num_rounds=1", headers=AS_EVENT_SOURCE).status_code == 403
    assert nothing_left_behind()
    reconnect = AS_EVENT_SOURCE | {"last-event-id": f"{queued().pk}-0"}
    assert client.head(f"{URL}stream?num_rounds=1", headers=reconnect).status_code == 403


@pytest.mark.parametrize("query", ["num_rounds=0", "num_rounds=x", "fraction_fit=2", "num_rounds=1&colour=red"])
def test_the_compatible_stream_names_a_bad_field(client, query):
    response = client.get(f"{URL}stream?{query}", headers=AS_EVENT_SOURCE)
    assert response.status_code == 422
    assert nothing_left_behind()


@pytest.mark.parametrize("last", ["999999-3", "nonsense", "1-", "-1-2", "99999999999999999999999-1"])
def test_the_compatible_stream_never_starts_another_for_a_reconnect(client, last):
    response = client.get(f"{URL}stream?num_rounds=1", headers={"last-event-id": last})
    assert response.status_code == 204
    assert nothing_left_behind()


def test_a_finished_stream_is_not_reconnected(client):
    simulation = recorded()
    end = simulation.last_sequence
    assert client.get(f"{URL}{simulation.pk}/stream/", headers={"last-event-id": str(end)}).status_code == 204
    compatible = client.get(f"{URL}stream", headers={"last-event-id": f"{simulation.pk}-{end}"})
    assert compatible.status_code == 204
    assert client.get(f"{URL}{simulation.pk}/stream/?after=x").status_code == 400
    assert client.get(f"{URL}999999/stream/").status_code == 404


def test_login_access_keeps_strangers_out(client, settings, django_user_model):
    simulation = queued()
    settings.FEDSITE_ACCESS = "login"
    assert client.get(URL).status_code == 401
    assert post(client).status_code == 401
    assert client.get(f"{URL}stream?num_rounds=1").status_code == 401
    assert client.get("/").status_code == 302
    assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200
    client.force_login(django_user_model.objects.create_user("ada", password="long-enough-9"))
    assert client.get(f"{URL}{simulation.pk}/").status_code == 200
    assert post(client).status_code == 201


def test_login_access_wants_the_csrf_token(django_user_model, settings):
    from django.test import Client

    settings.FEDSITE_ACCESS = "login"
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(django_user_model.objects.create_user("ada", password="long-enough-9"))
    assert post(strict).status_code == 403
    strict.get("/")
    token = strict.cookies["csrftoken"].value
    assert post(strict, **{"x-csrftoken": token}).status_code == 201


def test_the_document_describes_every_field(client):
    document = client.get("/api/openapi.json").json()
    body = document["paths"]["/api/simulations/"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(body["properties"]) == {*config().to_dict(), *SimulationConfig.FLAT}
    either = body["properties"]["strategy"]["oneOf"]
    assert "fedadam" in either[0]["enum"]
    (adam,) = [kind for kind in either[1]["oneOf"] if kind["properties"]["kind"] == {"const": "fedadam"}]
    assert adam["properties"]["server_lr"]["default"] == 0.03
    assert not adam["additionalProperties"]
    assert body["properties"]["num_rounds"]["maximum"] == 10_000
    assert client.get("/api/docs").status_code == 200


def test_the_queue_is_told_on_a_conflict_in_plain_words(client):
    number = queued().pk
    lifecycle.cancel(number)
    assert (
        post(client, f"{URL}{number}/cancel/")
        .json()["detail"]
        .endswith("only a queued or running one can be cancelled")
    )
