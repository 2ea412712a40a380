"""A real browser: press Start, watch lines come, reload in mid-run, miss nothing."""

import time
from collections.abc import Callable, Iterator

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait

PATIENCE_SECONDS = 120
LINES = "return [...document.querySelectorAll('#log li')].map((line) => line.lastChild.textContent)"
STATUS = "return document.getElementById('status')?.dataset.status"
SHOWN = """
const ids = ["status", "facts", "actions", "outcome", "summary"];
ids.push("rounds-rows", "clients", "labels", "log", "log-count");
return ids.map((id) => document.getElementById(id).innerHTML.replace(/ class="[^"]*"| style="[^"]*"|\\s+/g, ""));
"""


@pytest.fixture
def page(browser, server) -> Iterator:
    browser.get(server.url)
    yield browser
    complaints = [entry["message"] for entry in browser.get_log("browser")]
    assert not [text for text in complaints if "422" not in text], complaints


def wait(page, condition: Callable[[], object]) -> None:
    WebDriverWait(page, PATIENCE_SECONDS, poll_frequency=0.05).until(lambda _: condition())


def enter(page, **fields: str) -> None:
    page.execute_script("document.getElementById('more').open = true")
    for name, value in fields.items():
        script = "document.querySelector(`#start [name=${arguments[0]}]`).value = arguments[1]"
        page.execute_script(script, name, value)


def start(page, **fields: str) -> None:
    enter(page, dataset="digits", **fields)
    page.find_element(By.CSS_SELECTOR, "#start .button-main").click()
    wait(page, lambda: page.execute_script(LINES))


def test_it_shows_a_run_from_the_first_line_to_the_last(page):
    start(page, num_clients="5", num_rounds="60", behaviours="2: free_rider")
    seen = set()
    while page.execute_script(STATUS) not in ("completed", "failed"):
        seen.add(len(page.execute_script(LINES)))
        time.sleep(0.05)
    assert page.execute_script(STATUS) == "completed"
    assert len(seen) >= 4, "lines came one after another"
    wait(page, lambda: page.execute_script("return document.getElementById('live').dataset.stream") == "over")
    streamed = page.execute_script(SHOWN)
    page.refresh()
    wait(page, lambda: page.execute_script("return document.querySelectorAll('.has-chart svg').length"))
    assert page.execute_script(SHOWN) == streamed


def test_a_reload_in_the_middle_misses_nothing(page):
    start(page, num_clients="6", num_rounds="15")
    wait(page, lambda: page.execute_script("return document.querySelectorAll('#rounds-rows tr').length") >= 2)
    page.refresh()
    wait(page, lambda: page.execute_script(STATUS) == "completed")
    lines = page.execute_script(LINES)
    page.refresh()
    assert page.execute_script(LINES) == lines
    assert len(lines) == int(page.find_element(By.ID, "log-count").text.split()[0])
    assert page.execute_script("return document.querySelectorAll('#rounds-rows tr').length") == 16


def choose(page, name: str, value: str) -> None:
    """As somebody does with the keyboard or a click."""
    Select(page.find_element(By.CSS_SELECTOR, f"#start [name={name}]")).select_by_value(value)


def shown_parameters(page, name: str) -> list[str]:
    """The names of the fields that are seen below a choice."""
    fields = page.find_elements(By.CSS_SELECTOR, f"fieldset[data-of={name}] input")
    return [field.get_attribute("name") for field in fields if field.is_displayed()]


def test_only_the_parameters_of_the_chosen_kind_are_shown(page):
    enter(page)
    assert shown_parameters(page, "partition") == shown_parameters(page, "strategy") == []
    choose(page, "partition", "dirichlet")
    choose(page, "strategy", "fedprox")
    assert shown_parameters(page, "partition") == ["partition.dirichlet.alpha"]
    assert shown_parameters(page, "strategy") == ["strategy.fedprox.proximal_mu"]
    button = page.find_element(By.CSS_SELECTOR, "#start .button-main")
    place = button.location
    choose(page, "partition", "iid")
    assert (shown_parameters(page, "partition"), button.location) == ([], place)
    choose(page, "preset", "uneven")
    assert shown_parameters(page, "partition") == ["partition.quantity.alpha"]
    page.find_element(By.NAME, "strategy.fedprox.proximal_mu").send_keys("x")
    button.click()
    wait(page, lambda: page.find_elements(By.ID, "error-strategy-fedprox-proximal_mu"))
    assert page.switch_to.active_element.get_attribute("name") == "strategy.fedprox.proximal_mu"
    assert shown_parameters(page, "partition") == ["partition.quantity.alpha"]


def test_a_preset_fills_fields_in_but_not_over_what_was_entered(page):
    enter(page, num_rounds="4")
    value = "return document.querySelector(`#start [name=${arguments[0]}]`).value"
    choose(page, "preset", "free_rider")
    assert page.execute_script(value, "behaviours") == "3: free_rider\n5: label_flip"
    choose(page, "preset", "specialists")
    assert [page.execute_script(value, name) for name in ("behaviours", "partition", "num_rounds", "filled")] == [
        "",
        "pathological",
        "4",
        "specialists",
    ]


def test_a_wrong_field_is_shown_and_focused(page):
    enter(page, lr="fast")
    page.find_element(By.CSS_SELECTOR, "#start .button-main").click()
    wait(page, lambda: page.find_elements(By.ID, "error-lr"))
    assert page.switch_to.active_element.get_attribute("name") == "lr"
    assert page.find_element(By.ID, "more").get_attribute("open")


@pytest.mark.parametrize("width", [390, 1280])
def test_no_page_scrolls_sideways(page, server, width):
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 1000}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    start(page, num_clients="3", num_rounds="2", behaviours="1: label_flip fraction=0.5")
    wait(page, lambda: page.execute_script(STATUS) == "completed")
    here = page.find_element(By.CSS_SELECTOR, "#live h2 a").get_attribute("href")
    name = f"simulation-{here.rstrip('/').rpartition('/')[2]}"
    ledger = [f"{server.url}/ledger/", f"{server.url}/ledger/transactions/{name}/1/"]
    others = [f"{server.url}/simulations/", f"{server.url}/accounts/login/", server.url]
    for address in (here, f"{here}clients/", f"{here}clients/1/", *ledger, *others):
        page.get(address)
        assert page.execute_script("return document.documentElement.scrollWidth") <= width, address
