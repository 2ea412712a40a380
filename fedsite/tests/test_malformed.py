"""Whatever comes in, nothing breaks: no 5xx and no traceback, on both databases, in every place of a request."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import socket
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from fedsite.tests import servers
from simulations.models import Simulation
from simulations.tests.cast import recorded

pytestmark = [pytest.mark.database, pytest.mark.django_db]

TEXTS = {
    "nul": "%00",
    "nul within": "a%00b",
    "line break": "a%0d%0ab",
    "escape": "%1b%5b2J",
    "delete": "%7f",
    "a control character of Latin-1": "%c2%85",
    "no UTF-8": "%ff",
    "half a character": "%e2%82",
    "a surrogate": "%ed%a0%80",
    "an overlong NUL": "%c0%80",
    "the replacement sign": "%ef%bf%bd",
    "a bare percent": "%",
    "a broken percent": "%zz",
    "twice escaped": "%2500",
    "brackets": "[" * 3_000,
    "braces": "{" * 3_000,
    "braces in brackets": '[{"a":' * 1_000,
    "a quote": "'",
    "a script": "%3Cscript%3Ealert(1)%3C/script%3E",
    "SQL": "1'%20OR%20'1'='1",
    "a path": "../../../../etc/passwd",
    "a formula": "=1+1",
    "beyond 64 bits": "9" * 19,
    "beyond 64 bits, below": "-" + "9" * 19,
    "beyond 32 bits": "4294967296",
    "beyond a float": "9" * 400,
    "beyond Python": "9" * 5_000,
    "minus one": "-1",
    "not finite": "1e999",
    "no number": "NaN",
    "a fraction": "1.5",
    "other digits": "%D9%A1%D9%A2",
    "superscript": "%C2%B2",
    "underscores": "1_0",
    "many words": "a+" * 3_000,
    "a list": "1,2,,x",
    "null": "null",
    "a key twice": '{"a":1,"a":2}',
    "nothing": "",
    "a blank": "%20",
    "long": "x" * 8_000,
    "emoji": "%F0%9F%92%A9",
    "right to left": "%E2%80%AE",
    "separator": "%E2%80%A8",
    "a percent of SQL": "%25_%25",
    "a date beyond": "99999-99-99",
}
REFUSED = ("nul", "nul within", "line break", "escape", "delete", "a control character of Latin-1", "no UTF-8",
           "half a character", "a surrogate", "an overlong NUL", "the replacement sign", "brackets", "braces",
           "braces in brackets", "beyond Python", "many words", "long")  # fmt: skip  # wherever they stand
CONTROLS = ("nul", "nul within", "line break", "escape", "delete", "a control character of Latin-1")
SOME = (
    "/",
    "/api/simulations/",
    "/api/simulations/stream",
    "/admin/",
    "/static/css/app.css",
    "/nowhere",
    "/accounts/login/",
)
# Every parameter that any address takes; in one request where one that is refused does not hide the others.
QUERIES = (
    *("/ledger/?ledger&client&accounts&page", "/ledger/export/?ledger", "/ledger/export/?format"),
    *("/ledger/export/?simulation_id", "/ledger/simulation-{id}/1/?page", "/?simulation&page"),
    *("/simulations/?status&dataset&model&sort&archived&page", "/simulations/{id}/clients/?sort&page"),
    *("/api/simulations/?limit&cursor&archived", "/api/simulations/?cursor", "/api/simulations/?status"),
    *("/api/simulations/{id}/events/?after", "/api/simulations/{id}/events/?limit"),
    *("/api/incentives/ledger?user_id", "/api/incentives/ledger?client&simulation_id&cursor"),
    *("/api/incentives/ledger?account", "/api/incentives/ledger?ledger", "/api/incentives/ledger?limit"),
    *("/api/incentives/accounts/?client", "/api/incentives/verify/?ledger", "/accounts/login/?next"),
)
ADMIN = "/admin/simulations/simulation/"
QUERIES_OF_ADMIN = (
    *(f"{ADMIN}?q&o&p&all&_facets", f"{ADMIN}?id__exact", f"{ADMIN}?id__in", f"{ADMIN}?owned_by__id__exact"),
    *(f"{ADMIN}?created_at__gte", f"{ADMIN}?created_at__year", f"{ADMIN}?status__exact", f"{ADMIN}?_to_field"),
    *("/admin/simulations/event/?q&simulation__id__exact", "/admin/simulations/contribution/?q"),
    *("/admin/incentives/transaction/?q", "/admin/auth/user/?q&groups__id__exact", "/admin/login/?next"),
)
TEXTS_FOR_ADMIN = ("a quote", "SQL", "beyond 64 bits", "beyond 64 bits, below", "beyond 32 bits", "beyond a float",
                   "minus one", "not finite", "no number", "a fraction", "other digits", "a list", "nothing", "emoji",
                   "a percent of SQL", "a date beyond")  # fmt: skip


@pytest.fixture
def visitor(caplog: pytest.LogCaptureFixture) -> Iterator[Client]:
    """Somebody who may do everything. What the site logged about him must not hold a fault of ours."""
    client = Client(raise_request_exception=False)
    client.force_login(User.objects.create(username="ada", is_staff=True, is_superuser=True, password="!"))
    yield client
    faults = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [record.getMessage() for record in faults if not record.name.startswith("django.security")] == []


def fine(response: HttpResponse, *, refused: bool = False) -> None:
    content = b"" if response.streaming else response.content
    assert response.status_code < 500, content[-2_000:]
    assert b"Traceback" not in content
    if refused:
        assert response.status_code in (400, 414)
    if response.status_code >= 400 and response.request["PATH_INFO"].startswith("/api/"):
        assert json.loads(content)["detail"]
    let_go(response)


def let_go(response: HttpResponse) -> None:
    """Its files: `close` would close the test's own connection too."""
    for close in response._resource_closers:
        close()


def addresses(resolver: URLResolver | None = None, before: str = "/") -> Iterator[str]:
    """Every address of the site as a pattern: `/simulations/<int:simulation_id>/`."""
    for pattern in (resolver or get_resolver()).url_patterns:
        path = before + str(pattern.pattern).lstrip("^/")
        if isinstance(pattern, URLResolver):
            yield from addresses(pattern, path)
        elif not path.endswith("/stream/"):  # these close their thread's connection, which is the test's own
            assert isinstance(pattern, URLPattern)
            yield path


def filled(query: str, text: str, number: int) -> str:
    """The address with the text in each of its parameters."""
    path, _, names = query.partition("?")
    return f"{path.replace('{id}', str(number))}?{'&'.join(f'{name}={text}' for name in names.split('&'))}"


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_address_may_hold_is_refused_everywhere(visitor: Client, name: str) -> None:
    for path in SOME:
        fine(visitor.get(f"{path}?x={TEXTS[name]}"), refused=True)
        fine(visitor.post(f"{path}?{TEXTS[name]}=x"), refused=True)
        # Django's client escapes what is no UTF-8 once more, so that it is an address that is not there.
        below = visitor.get(f"{path.rstrip('/')}/{TEXTS[name]}")
        assert below.status_code == 400 if name in CONTROLS else below.status_code < 500


@pytest.mark.parametrize("name", [name for name in TEXTS if name not in REFUSED])
def test_every_parameter_of_an_address(visitor: Client, name: str) -> None:
    number = recorded().pk
    for query in QUERIES + (QUERIES_OF_ADMIN if name in TEXTS_FOR_ADMIN else ()):
        fine(visitor.get(filled(query, TEXTS[name], number)))


NUL = "\\000"  # as a quoted cookie spells it
HEADERS = {
    "Origin": ("http://[", "null", "http://", "//", "http://a:b:c", "http://[::1", "\xff", "javascript:alert(1)", " "),
    "Referer": ("http://[", "http://testserver:x/", "\xff"),
    "Host": ("[", "a b", "a:b:c", "evil.example", "", "[::1", "testserver:99999", "\xe9", "a" * 300),
    "Authorization": ("Bearer", "Bearer ", "Bearer \xff", "Basic \xff", "Bearer " + "x" * 8_000, "\xe9"),
    "Cookie": (f'sessionid="{NUL * 8}"', f'csrftoken="{NUL}"', "=;=;", "sessionid=\xff" * 9),
    "Content-Type": ("application/json; charset=utf-16", "text/html; charset=rot13", "a/b; charset=undefined",
                     "multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=\xff",
                     "\xff", "application/x-www-form-urlencoded; charset=idna", ";;;"),
    "Content-Length": ("-1", "x", "1e3", "9" * 30, "2097153", "\xb2"),
    "X-Forwarded-For": ("x", ",,,", "1.2.3.4:99", "\xff", "a" * 4_000),
    "X-Forwarded-Proto": ("x", "\xff"),
    "X-Forwarded-Host": ("[",),
    "Idempotency-Key": ("\xff", "x" * 1_000, " ", "\x7f"),
    "If-Modified-Since": ("x", "Mon, 99 Xxx 9999 99:99:99 GMT"),
    "Range": ("bytes=x", "bytes=-", "bytes=9-1", "bytes=" + "9" * 400 + "-"),
    "Accept": ("\xff", "*/*;q=x", "," * 1_000, "a/b;q=" + "9" * 400),
    "HX-Request": ("true", "\xff"),
    "HX-Current-URL": ("http://[", "%ff"),
    "X-CSRFToken": ("\xff", "x" * 64),
    "Sec-Fetch-Mode": ("\xff",),
}  # fmt: skip


@pytest.mark.parametrize("header", HEADERS)
def test_every_header(visitor: Client, header: str) -> None:
    for value in HEADERS[header]:
        for path in ("/", "/api/simulations/", "/api/simulations/stream", "/ledger/", "/static/css/app.css", "/readyz"):
            fine(visitor.get(path, headers={header: value}))
        for path in ("/simulations/", "/api/simulations/", "/api/incentives/reward", "/accounts/login/"):
            # A first visit, as foreign pages would let browsers make it.
            name = (
                "content_type" if header == "Content-Type" else "CONTENT_LENGTH" if header == "Content-Length" else ""
            )
            given = {name: value} if name else {"headers": {header: value}}
            fine(visitor.generic("POST", path, b"x=1", **({"content_type": "application/json"} | given)))


BODIES: dict[str, bytes | str] = {
    "empty": b"",
    "no JSON": "{",
    "a number": "1",
    "null": "null",
    "a list": "[]",
    "brackets": "[" * 3_000,
    "more brackets": "[" * 100_000,
    "objects": '{"a":' * 3_000,
    "a name twice": '{"num_rounds": 2, "num_rounds": 2}',
    "a name twice, inside": '{"behaviours": {"1": {"kind": "honest"}, "1": {"kind": "honest"}}}',
    "NaN": '{"lr": NaN}',
    "infinite": '{"lr": 1e999}',
    "long digits": '{"seed": %s}' % ("9" * 5_000),
    "NUL": '{"dataset": "\\u0000"}',
    "half a pair": '{"dataset": "\\ud800", "\\ud800": 1}',
    "no UTF-8": b'{"dataset": "\xff"}',
    "UTF-16": '{"dataset": "x"}'.encode("utf-16"),
    "half of UTF-16": b"\xff\xfe{",
    "a byte order mark": b"\xef\xbb\xbf{}",
    "unlike types": json.dumps({name: {"a": [None]} for name in ("dataset", "num_rounds", "behaviours", "user_id")}),
    "true for all": json.dumps(dict.fromkeys(("dataset", "num_rounds", "behaviours", "user_id", "lr"), True)),
    "odd clients": json.dumps({"behaviours": {"": {}, "0": {}, "x": 1, "1": {"kind": []}}}),
    "many names": json.dumps({f"x{place}": place for place in range(5_000)}),
    "a form": "num_rounds=%00&preset=%ff&filled=%ed%a0%80",
    "too many fields": "&".join(f"x{place}=1" for place in range(2_000)),
    "nothing but NUL": b"\0" * 100,
}


@pytest.mark.parametrize(
    "kind", ["application/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
)
@pytest.mark.parametrize("name", BODIES)
def test_every_body(visitor: Client, name: str, kind: str) -> None:
    number = recorded().pk
    before = Simulation.objects.count()
    for path in ("/api/simulations/", "/api/incentives/reward", "/simulations/", "/accounts/login/", "/account/tokens/",
                 f"{ADMIN}", f"/api/simulations/{number}/cancel/", "/accounts/password_reset/"):  # fmt: skip
        fine(visitor.post(path, BODIES[name], content_type=kind))
    assert Simulation.objects.count() - before <= 2  # an empty body and a form without our fields ask for the defaults


@pytest.mark.parametrize("choice", ["x", "", "%00", "9" * 19, "9" * 400, "-1", "1.5", "\0"])
def test_what_is_chosen_in_the_admin(visitor: Client, choice: str) -> None:
    recorded()
    for path in (ADMIN, "/admin/incentives/transaction/", "/admin/auth/user/"):
        for action in ("cancel", "reverse", "delete_selected", "", "\0"):
            fine(visitor.post(path, {"action": action, "_selected_action": choice, "index": choice}))


@pytest.mark.parametrize(
    "text", ["0", "9" * 19, "9" * 400, "9" * 5_000, "x", "-1", "%5b" * 900, "%F0%9F%92%A9", "a%2Fb", "..%2f..%2f"]
)
def test_every_address(visitor: Client, text: str) -> None:
    for pattern in sorted(set(addresses())):
        path = re.sub(r"<[^>]*>|\(\?P<[^)]*\)|\.\*", text, pattern)
        fine(visitor.get(re.sub(r"[\\^$?]", "", path)))


@pytest.mark.parametrize(
    "method", ["PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "TRACE", "PROPFIND", "get", "X" * 2_000]
)
def test_every_method(visitor: Client, method: str) -> None:
    for path in (*SOME, "/ledger/export/", "/simulations/", "/api/incentives/reward", "/readyz", "/metrics"):
        response = visitor.generic(method, path, "[", content_type="application/json")
        assert response.status_code < 500
        let_go(response)


def test_with_debug_no_refusal_shows_our_insides(visitor: Client, settings: Any) -> None:
    """As `make run` has it. Django would answer with a page of its settings, and ninja with a traceback and 500."""
    settings.DEBUG = True
    many = "&".join(f"x{place}=1" for place in range(2_000))
    form, parts = "application/x-www-form-urlencoded", "multipart/form-data; boundary="
    for path in ("/simulations/", "/api/simulations/", "/api/incentives/reward", "/accounts/login/"):
        assert visitor.post(path, headers={"Host": "evil.example"}).status_code == 400
        assert visitor.generic("POST", path, b"x" * 2_097_153, content_type="application/json").status_code == 413
        for response in (
            visitor.post(path, headers={"Host": "["}),
            visitor.post(path, many, content_type=form),
            visitor.post(f"{path}?{many}", many, content_type=form),
            visitor.post(path, "x", content_type=parts),
        ):
            fine(response)
            assert b"MIDDLEWARE" not in response.content


def test_a_body_that_says_nothing_of_its_length_is_refused_by_the_api_too(visitor: Client, settings: Any) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 100
    given = visitor.generic("POST", "/api/incentives/reward", b"x" * 101, content_type="application/json")
    assert (given.status_code, given.json()) == (413, {"detail": "The body is too large: at most 100 bytes are taken"})


HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
POST = b"POST /api/simulations/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
WEBSOCKET = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
RAW = {  # what no client in this process can send
    "nothing": b"\r\n\r\n",
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "an unknown version": b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n",
    "no path": b"GET\r\n\r\n",
    "a bare line": b"GET / HTTP/1.1\n\n",
    "no host": b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
    "two hosts": HEAD + b"Host: evil.example\r\n\r\n",
    "a method of Latin-1": b"G\xc9T / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a path of Latin-1": b"GET /\xe9 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a path of bytes": b"GET /%ff/%00 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    "no UTF-8 in the path": b"GET /simulations/%ff HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    "an address of its own": b"GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    "a broken address": b"GET http://[ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    "a star": b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    "a proxy's": b"CONNECT evil.example:443 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    "a long line": b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "many headers": HEAD + b"X: y\r\n" * 2_000 + b"\r\n",
    "a NUL in a header": HEAD + b"X: a\0b\r\n\r\n",
    "a line break in a header": HEAD + b"X: a\rb\r\n\r\n",
    "no colon": HEAD + b"nonsense\r\n\r\n",
    "no name": HEAD + b": x\r\n\r\n",
    "a name of Latin-1": HEAD + b"\xe9: x\r\n\r\n",
    "a root": HEAD + b"Daphne-Root-Path: /accounts\r\n\r\n",
    "a root of Latin-1": HEAD + b"Daphne-Root-Path: \xe9\xff\r\n\r\n",
    "a WebSocket": HEAD + WEBSOCKET + b"Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n\r\n",
    "a WebSocket without a key": b"GET /api/simulations/ HTTP/1.1\r\nHost: localhost\r\n" + WEBSOCKET + b"\r\n",
    "a WebSocket of protocols": HEAD + WEBSOCKET + b"Sec-WebSocket-Protocol: \xe9\r\n\r\n",
    "a WebSocket with a body": POST + WEBSOCKET + b"Content-Length: 2\r\n\r\n{}",
    "an upgrade to HTTP/2": HEAD + b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n",
    "two lengths": POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}x",
    "a length and chunks": POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a signed length": POST + b"Content-Length: +2\r\n\r\n{}",
    "a length in words": POST + b"Content-Length: two\r\n\r\n{}",
    "a length of 30 digits": POST + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n",
    "a byte too many": POST + b"Content-Length: 2097153\r\nExpect: 100-continue\r\n\r\n",
    "a byte too many, and all of them": POST + b"Content-Length: 2097153\r\n\r\n" + b" " * 2_097_153,
    "a form that is too large": b"POST /simulations/ HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; "
    b"boundary=x\r\nContent-Length: 400000000\r\n\r\n--x\r\n",
    "chunks without end": POST + b"Transfer-Encoding: chunked\r\n\r\n" + (b"10000\r\n" + b" " * 65_536 + b"\r\n") * 40,
    "a broken chunk": POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "an unknown encoding": POST + b"Transfer-Encoding: gzip\r\n\r\n",
    "a multipart form without parts": POST.replace(b"application/json", b"multipart/form-data; boundary=x")
    + b"Content-Length: 4\r\n\r\n--x\r",
    "cookies of NUL": HEAD + b'Cookie: sessionid="\\000\\000\\000\\000\\000\\000\\000\\000\\000"\r\n\r\n',
    "a broken origin": POST + b"Origin: http://[\r\nContent-Length: 2\r\n\r\n{}",
}  # fmt: skip


def test_every_request_that_is_none(start_server: Callable[..., servers.Server]) -> None:
    """And streams, with all texts."""
    site = start_server()
    with httpx.Client(base_url=site.url, timeout=60) as client:
        for text in TEXTS.values():
            for path in ("/api/simulations/1/stream/", "/simulations/1/stream/"):
                assert client.get(f"{path}?after={text}").status_code < 500
                assert client.get(path.replace("1", text or "0")).status_code < 500
        for last in ("x", "-1", "9" * 19, "9" * 400, b"\xb2", "1-1-1", "99-1", b"\xff", "0-0"):
            for path in ("/api/simulations/1/stream/", "/simulations/1/stream/", "/api/simulations/stream"):
                assert client.get(path, headers={"Last-Event-ID": last}).status_code < 500
    for name, request in RAW.items():
        status = told(site.port, request)
        assert status in (b"", b"101") or status < b"500", f"{name}: {status!r}"
        assert status != b"101", name
        if name.startswith(("a byte too many", "chunks without end", "a form that is too large")):
            assert status == b"413", name
    assert servers.answers(f"{site.url}/healthz")
    assert "Traceback" not in site.log
    assert not re.search(" (ERROR|CRITICAL) (?!django.security)", site.log)


def told(port: int, request: bytes) -> bytes:
    """The status that a server answers; nothing where it hangs up, or waits for the rest, as it may."""
    seconds = 20 if b"\r\n\r\n" in request else 1
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(request)
        with contextlib.suppress(ConnectionError, TimeoutError):
            return b"".join(connection.recv(4096).split(b" ", 2)[1:2])
    return b""
