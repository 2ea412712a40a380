"""Many tabs of a browser look at one running simulation: one stream, no tab that waits, the same on all of them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import httpx
import pytest
from selenium.common.exceptions import WebDriverException

from fedsite.tests import servers

RUN = {"dataset": "digits", "num_clients": 2, "num_rounds": 500, "valuation": "none", "local_epochs": 100}
LINES = "return [...document.querySelectorAll('#log li')].map((line) => Number(line.dataset.sequence))"
ROUNDS = "return [...document.querySelectorAll('#rounds-rows th')].map((cell) => Number(cell.dataset.value))"
HANGS_SECONDS = 60  # a window that waits for a connection of another one waits for ever
STATE = "return document.getElementById('live').dataset.stream"
HIDE = """
Object.defineProperty(document, "hidden", {value: arguments[0], configurable: true});
document.dispatchEvent(new Event("visibilitychange"));
"""
NO_LOCKS = "Object.defineProperty(Navigator.prototype, 'locks', {value: undefined})"


def streams(site: servers.Server) -> int:
    lines = httpx.get(f"{site.url}/metrics").text.splitlines()
    return int(float(next(line.split()[1] for line in lines if line.startswith("fedsite_streams_open "))))


def settles(condition: Callable[[], object], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def rounds_done(page: str) -> int:
    return httpx.get(page.replace("/simulations/", "/api/simulations/")).json()["rounds_done"]


@pytest.fixture
def running(start_server) -> tuple[servers.Server, str]:
    """A site, and the page of a simulation that goes on for as long as the test."""
    site = start_server()
    number = httpx.post(f"{site.url}/api/simulations/", json=RUN).json()["id"]
    page = f"{site.url}/simulations/{number}/"
    settles(lambda: rounds_done(page))
    return site, page


def open_all(browser, page: str, kind: str, number: int) -> list[float]:
    """Seconds until each had loaded. Of tabs one is visible, of windows all."""
    seconds = []
    for place in range(number):
        if place:
            browser.switch_to.new_window(kind)
        begin = time.monotonic()
        browser.get(page)
        seconds.append(time.monotonic() - begin)
    return seconds


def rounds(browser, tab: str) -> list[int]:
    browser.switch_to.window(tab)
    return browser.execute_script(ROUNDS)


def cancel_and_see_the_same(browser, page: str, tabs: list[str]) -> None:
    """Every line and every round on every tab, once."""
    httpx.post(page.replace("/simulations/", "/api/simulations/") + "cancel/", json={}).raise_for_status()
    shown = []
    for tab in tabs:
        browser.switch_to.window(tab)
        settles(lambda: browser.execute_script(STATE) == "over")
        lines, numbers = browser.execute_script(LINES), browser.execute_script(ROUNDS)
        assert lines == list(range(1, len(lines) + 1))
        assert numbers == list(range(len(numbers)))
        shown.append((len(lines), len(numbers)))
        assert browser.get_log("browser") == []
    assert shown == [shown[0]] * len(tabs)


@pytest.mark.parametrize(("kind", "number"), [("tab", 9), ("window", 7)])
def test_all_load_and_show_the_same(browser, running, kind, number):
    site, page = running
    seconds = open_all(browser, page, kind, number)
    assert max(seconds) < HANGS_SECONDS, seconds  # the seventh never came
    settles(lambda: streams(site) == 1)
    cancel_and_see_the_same(browser, page, browser.window_handles)
    settles(lambda: streams(site) == 0)


def test_one_that_is_hidden_closed_or_dies_hands_the_stream_on(browser, running):
    site, page = running
    open_all(browser, page, "window", 4)
    first, second, third, fourth = browser.window_handles

    def goes_on(tab: str) -> None:
        before = rounds(browser, tab)
        settles(lambda: len(rounds(browser, tab)) > len(before))
        assert streams(site) == 1

    goes_on(fourth)
    for tab in browser.window_handles:
        browser.switch_to.window(tab)
        browser.execute_script(HIDE, True)
    settles(lambda: streams(site) == 0)
    before = len(rounds(browser, second))
    settles(lambda: rounds_done(page) > before + 1)
    assert len(rounds(browser, second)) == before
    for tab in (second, third, fourth, first):
        browser.switch_to.window(tab)
        browser.execute_script(HIDE, False)
    goes_on(second)
    goes_on(first)
    browser.switch_to.window(second)
    browser.close()
    goes_on(third)
    with contextlib.suppress(WebDriverException):
        browser.execute_cdp_cmd("Page.crash", {})
    goes_on(fourth)
    cancel_and_see_the_same(browser, page, [fourth, first])


OVERLAP = """
const [after] = document.getElementById("live").getAttribute("sse-connect").match(/\\d+$/);
const line = (sequence) => `<li data-sequence="${sequence}">line</li>`;
const row = (number) => `<tr><th data-value="${number}"></th></tr>`;
const rows = `<template><tbody hx-swap-oob="beforeend:#rounds-rows">${row(0)}${row(400)}</tbody></template>`;
const data = line(1) + line(after) + line(Number(after) + 1) + rows;
const channel = new BroadcastChannel(`fedsite ${location.pathname}stream/`);
channel.postMessage({name: "update", data, from: 0, to: Number(after) + 1});
return Number(after);
"""


def test_of_frames_that_overlap_nothing_is_shown_twice(browser, server):
    """Another tab's frames begin and end elsewhere than this one's page."""
    fields = RUN | {"local_epochs": 1, "num_rounds": 2}
    busy, waits = (httpx.post(f"{server.url}/api/simulations/", json=RUN | more).json()["id"] for more in ({}, fields))
    browser.get(f"{server.url}/simulations/{waits}/")
    settles(lambda: browser.execute_script(STATE) == "on")
    after = browser.execute_script(OVERLAP)
    settles(lambda: len(browser.execute_script(LINES)) > after)
    assert browser.execute_script(LINES) == list(range(1, after + 2))
    assert browser.execute_script(ROUNDS) == [0, 400]
    for number in (waits, busy):
        httpx.post(f"{server.url}/api/simulations/{number}/cancel/", json={}).raise_for_status()


HOLD_ANSWERS = "navigator.locks.query = () => new Promise((resolve) => (window.answer = resolve))"
OTHERS_WAIT = "window.answer({pending: [1, 2, 3, 0].map((place) => ({name: `fedsite slot ${place}`}))})"


def test_who_else_waits_is_no_news_when_the_turn_is_over(browser, running):
    """The answer came when the tab was visible again, and closed its new stream for good."""
    site, page = running
    browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": HOLD_ANSWERS})
    browser.get(page)
    settles(lambda: browser.execute_script("return Boolean(window.answer)"))
    browser.execute_script(HIDE, True)
    settles(lambda: streams(site) == 0)
    browser.execute_script(HIDE, False)
    settles(lambda: streams(site) == 1)
    browser.execute_script(OTHERS_WAIT)
    before = len(browser.execute_script(ROUNDS))
    settles(lambda: len(browser.execute_script(ROUNDS)) > before + 1)
    cancel_and_see_the_same(browser, page, browser.window_handles)


def test_without_locks_each_that_is_visible_has_its_own(browser, running):
    """As over plain HTTP, where a browser has none."""
    site, page = running
    browser.switch_to.new_window("window")
    for tab in browser.window_handles:
        browser.switch_to.window(tab)
        browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": NO_LOCKS})
        browser.get(page)
    settles(lambda: streams(site) == 2)
    browser.execute_script(HIDE, True)
    settles(lambda: streams(site) == 1)
    browser.execute_script(HIDE, False)
    settles(lambda: streams(site) == 2)
    cancel_and_see_the_same(browser, page, browser.window_handles)
