"""axe-core (axe/, from the registry of npm, tests only) looks at every page of ours, and finds nothing. The admin's are
Django's, and so are their colours and sizes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from django.urls import URLPattern, URLResolver, get_resolver, resolve

from fedsite.tests import servers
from fedsite.tests.machine import PROJECT

AXE = (PROJECT / "fedsite" / "tests" / "axe" / "axe.min.js").read_text()
LOOK = """
const done = arguments[arguments.length - 1];
for (const details of document.querySelectorAll("details")) details.open = true;
const found = (rule) => rule.nodes.map((node) => `${rule.id}: ${node.target} ${node.failureSummary}`);
const scrolls = document.documentElement.scrollWidth > window.innerWidth ? ["scrolls sideways"] : [];
axe.run(document, {rules: {"target-size": {enabled: true}}, resultTypes: ["violations"]}).then(
  (results) => done([...results.violations.flatMap(found), ...scrolls]),
  (error) => done([`axe: ${error}`]),
);
"""
VIEWS = [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")]
MAKE = """
import json
from importlib import import_module
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import User
from django.contrib.auth.tokens import default_token_generator
from django.utils.encoding import force_bytes
from django.utils.http import urlsafe_base64_encode
from people import tokens
ada = User.objects.create_superuser("ada", password="long-enough-9")
session = import_module(settings.SESSION_ENGINE).SessionStore()
session[SESSION_KEY] = str(ada.pk)
session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
session[HASH_SESSION_KEY] = ada.get_session_auth_hash()
session.create()
tokens.create(ada, name="lab", scope="read", expires_at=None)
_, secret = tokens.create(ada, name="lab", scope="write", expires_at=None)
reset = f"/accounts/reset/{urlsafe_base64_encode(force_bytes(ada.pk))}/{default_token_generator.make_token(ada)}/"
print(json.dumps([session.session_key, secret, reset]))
"""
# Of a small simulation that is over, a large one, one that failed, one that runs and one that waits.
RUNS: dict[str, dict[str, Any]] = {
    "small": {
        "num_clients": 6,
        "num_rounds": 3,
        "behaviours": {
            "2": {"kind": "free_rider"},
            "3": {"kind": "sign_flip", "from_round": 2},
            "4": {"kind": "sybil_copy", "identities": 2},
        },
        "stake": 2.0,
        "detectors": ["norm", "replay"],
        "slashing": [{"detector": "direction", "above": 0.5, "share": 0.5}],
        "shadows": [
            {"label": "by size", "valuation": "data_size", "burn_share": 0.1},
            {"label": "wage", "reward_rule": {"kind": "wage_bonus", "share": 0.5}},
        ],
    },
    "crowd": {"num_clients": 60, "num_rounds": 2, "valuation": "loss_improvement"},
    "failed": {"num_rounds": 10, "lr": 100.0, "weight_decay": 1.0},
    "runs": {"num_clients": 2, "num_rounds": 50, "valuation": "none", "local_epochs": 100, "batch_size": 1},
    "waits": {},
}
OF_SIGNED_IN = [
    "/",
    "/?simulation={runs}",
    "/?simulation={waits}",
    "/simulations/",
    "/simulations/?status=failed",
    "/simulations/{small}/",
    "/simulations/{crowd}/",
    "/simulations/{failed}/",
    "/simulations/{runs}/",
    "/simulations/{waits}/",
    "/simulations/{small}/clients/",
    "/simulations/{crowd}/clients/?sort=tokens",
    "/simulations/{small}/economies/clients/?sort=1",
    "/simulations/{small}/marginals/?round=2&client=1",
    "/simulations/{small}/clients/1/",
    "/simulations/{small}/clients/2/",
    "/simulations/{small}/clients/3/",
    "/simulations/{small}/clients/7/",
    "/ledger/",
    "/ledger/?ledger=simulation-{small}",
    "/ledger/?ledger=manual",
    "/ledger/transactions/simulation-{small}/1/",
    "/ledger/transactions/simulation-{small}/2/?client=3",
    "/ledger/transactions/simulation-{small}-2/2/?client=2",
    "/account/",
    "/account/password/",
    "/account/password/changed/",
    "/simulations/999/",  # 404
]
OF_STRANGERS = [
    "/accounts/login/?next=/",
    "/accounts/reset/",
    "/accounts/reset/sent/",
    "{reset}",
    "/accounts/reset/1/wrong/",
    "/accounts/reset/set/",
]
NO_PAGES = {
    *("simulations:recent", "simulations:stream", "simulations:place", "ledger:state"),  # parts
    *("simulations:estimate", "simulations:split", "simulations:economies", "simulations:recompute"),
    *("simulations:reprice", "simulations:audit", "simulations:cancel_audit"),
    *("simulations:reprice", "simulations:detectors"),
    *("simulations:events", "ledger:export"),  # files
    *("simulations:cancel", "simulations:resume", "simulations:archive", "simulations:unarchive", "simulations:again"),
    *("create_token", "revoke_token", "logout"),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory, migrated_database) -> Iterator[tuple[servers.Server, dict[str, Any]]]:
    """A site with something on each page, and what its addresses are made of."""
    running = servers.start_site(
        tmp_path_factory.mktemp("site"), migrated_database, FEDSITE_ACCESS="login", FEDSITE_MAX_CONCURRENT="1"
    )
    session, secret, reset = json.loads(running.manage("shell", "-v0", "-c", MAKE).stdout)
    with httpx.Client(base_url=running.url, headers={"Authorization": f"Bearer {secret}"}, timeout=60) as program:
        numbers = {
            name: program.post("/api/simulations/", json={"dataset": "digits"} | fields).json()["id"]
            for name, fields in RUNS.items()
        }
        wanted = {"small": "completed", "crowd": "completed", "failed": "failed", "runs": "running", "waits": "queued"}
        deadline = time.monotonic() + 2 * servers.PATIENCE_SECONDS
        while {name: status(program, number) for name, number in numbers.items()} != wanted:
            assert time.monotonic() < deadline
            time.sleep(0.2)
    yield running, {"session": session, "reset": reset, **numbers}
    running.stop()


def status(program: httpx.Client, number: int) -> str:
    return str(program.get(f"/api/simulations/{number}/").json()["status"])


def findings(browser, address: str) -> list[str]:
    """What axe says of a page, with every `details` open, in light and dark, wide and narrow."""
    browser.get(address)
    browser.execute_script(AXE)
    found = []
    for width, scheme in VIEWS:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 1000}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        dark = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
        found += [f"{address} at {width} {scheme}: {text}" for text in browser.execute_async_script(LOOK)]
    return found


def test_axe_finds_nothing_on_any_page(browser, site) -> None:
    running, names = site
    browser.set_script_timeout(servers.PATIENCE_SECONDS)
    found = [line for path in OF_STRANGERS for line in findings(browser, running.url + path.format(**names))]
    browser.add_cookie({"name": "sessionid", "value": names["session"], "path": "/"})
    found += [line for path in OF_SIGNED_IN for line in findings(browser, running.url + path.format(**names))]
    assert found == []


def test_every_page_is_looked_at() -> None:
    numbers = dict.fromkeys(RUNS, 1)
    looked_at = {
        resolve(path.format(**numbers, reset="/accounts/reset/1/x/").partition("?")[0]).view_name
        for path in (*OF_SIGNED_IN, *OF_STRANGERS)
    }
    pages = {name for name in names(get_resolver().url_patterns) if not name.startswith(("admin:", "api-"))}
    assert pages - looked_at - NO_PAGES == set()


def names(patterns: list, space: str = "") -> Iterator[str]:
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            yield from names(pattern.url_patterns, f"{space}{pattern.namespace}:" if pattern.namespace else space)
        elif isinstance(pattern, URLPattern) and pattern.name:
            yield f"{space}{pattern.name}"
