"""A real browser: press Start, watch lines come, reload in mid-run, miss nothing."""

import time
from collections.abc import Callable, Iterator

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

PATIENCE_SECONDS = 120
# A wrong form is answered with 422. What a start would take is asked anew with each change of the form, and htmx notes
# on the console that it gave up the question before.
FINE = ("422", "htmx:sendAbort")
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
    assert not [text for text in complaints if not any(fine in text for fine in FINE)], complaints


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
    wait(page, lambda: "completed" in page.find_element(By.CSS_SELECTOR, "#recent tbody tr").text)
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


def text_of(page, name: str) -> str:
    return page.execute_script(f"return document.querySelector('#start [name={name}]').value")


def in_rows(page, name: str, what: str = "input, select") -> list:
    return page.find_elements(By.CSS_SELECTOR, f"[data-rows-of={name}] .row-chosen :is({what})")


def rows_of(page, name: str) -> list[list[str]]:
    """What each row shows, field by field."""
    rows = page.find_elements(By.CSS_SELECTOR, f"[data-rows-of={name}] .row-chosen")
    fields = [row.find_elements(By.CSS_SELECTOR, "input, select") for row in rows]
    return [[field.get_attribute("value") for field in row] for row in fields]


def press(page, name: str, words: str) -> None:
    buttons = page.find_elements(By.CSS_SELECTOR, f"[data-rows-of={name}] button")
    next(button for button in buttons if button.text == words).click()


def test_behaviours_are_chosen_in_rows_and_the_text_says_the_same(page):
    enter(page)
    assert not page.find_element(By.ID, "field-behaviours").is_displayed()
    press(page, "behaviours", "Add a behaviour")
    assert text_of(page, "behaviours") == "1: free_rider"
    assert page.switch_to.active_element == in_rows(page, "behaviours")[0]
    who = in_rows(page, "behaviours")[0]
    who.clear()
    who.send_keys("2, 4-6", Keys.TAB, "label")  # all of it by the keyboard
    fraction = in_rows(page, "behaviours")[2]
    fraction.clear()
    fraction.send_keys("0.5", Keys.TAB, Keys.TAB, "7")
    assert text_of(page, "behaviours") == "2, 4-6: label_flip fraction=0.5 to_round=7"
    press(page, "behaviours", "Add another")
    assert text_of(page, "behaviours") == "2, 4-6: label_flip fraction=0.5 to_round=7\n1: free_rider"
    press(page, "behaviours", "Remove")
    assert text_of(page, "behaviours") == "1: free_rider"
    press(page, "population", "Add a share")
    in_rows(page, "population")[0].clear()
    in_rows(page, "population")[0].send_keys("12.5")
    assert text_of(page, "population") == "12.5% free_rider"


def test_what_the_text_of_behaviours_says_shows_as_rows(page):
    enter(page)
    choose(page, "preset", "free_rider")
    assert rows_of(page, "behaviours") == [["3", "free_rider", "1", ""], ["5", "label_flip", "1.0", "1", ""]]
    assert text_of(page, "behaviours") == "3: free_rider\n5: label_flip"
    choose(page, "preset", "default")
    assert rows_of(page, "behaviours") == []
    press(page, "behaviours", "as text")
    page.switch_to.active_element.send_keys("3: sign flip scale = 2 from_round=4\n\nwhatever\n")
    assert rows_of(page, "behaviours") == [["3", "sign_flip", "2", "4", ""], ["whatever"]]
    press(page, "population", "as text")
    page.switch_to.active_element.send_keys("0.07 dropout")
    assert rows_of(page, "population") == [["7", "dropout", "0.5", "1", ""]]


def test_detectors_and_what_costs_stake_are_chosen_in_rows(page):
    enter(page)
    assert not page.find_element(By.ID, "field-slashing").is_displayed()
    press(page, "detectors", "Add a detector")
    press(page, "detectors", "Add another")
    assert text_of(page, "detectors") == "norm\nreplay"
    assert page.switch_to.active_element == in_rows(page, "detectors")[1]
    page.switch_to.active_element.send_keys("direction")  # by the keyboard
    assert text_of(page, "detectors") == "norm\ndirection"
    press(page, "slashing", "Add a threshold")
    page.switch_to.active_element.send_keys("replay", Keys.TAB, Keys.TAB, "0.5")
    assert text_of(page, "slashing") == "replay share=0.5"
    assert rows_of(page, "slashing") == [["replay", "0.99", "0.5"]]
    press(page, "slashing", "as text")
    page.switch_to.active_element.send_keys("\nnorm above = 0.8 share=1\nwhat=ever")
    assert rows_of(page, "slashing") == [["replay", "0.99", "0.5"], ["norm", "0.8", "1"], ["what=ever"]]
    press(page, "detectors", "Remove")
    assert text_of(page, "detectors") == "direction"


@pytest.mark.parametrize(
    ("name", "text", "row", "wrong"),
    [
        ("slashing", "replay\nnorm above=2", 1, "2"),
        ("slashing", "replay\n\nreplay: 3", 1, "replay: 3"),
        ("detectors", "norm\nreplay\nnorm", 2, "norm"),
    ],
)
def test_an_error_of_a_detector_stands_at_its_row(page, name, text, row, wrong):
    enter(page, stake="1", **{name: text})
    page.find_element(By.CSS_SELECTOR, "#start .button-main").click()
    wait(page, lambda: page.find_elements(By.ID, f"error-{name}"))
    error, focused = page.find_element(By.ID, f"error-{name}"), page.switch_to.active_element
    assert (focused.get_attribute("value"), focused.get_attribute("aria-describedby")) == (wrong, f"error-{name}")
    before = page.execute_script("return arguments[0].previousElementSibling", error)
    assert before == page.find_elements(By.CSS_SELECTOR, f"[data-rows-of={name}] .row-chosen")[row]


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("3: free_rider\n5: label_flip fraction=2", "2"),
        ("2: free_rider\n\n2: sign_flip", "2"),
        ("9: free_rider\n99: sign_flip", "99"),
    ],
)
def test_an_error_of_a_behaviour_stands_at_its_row(page, text, wrong):
    enter(page, behaviours=text)
    page.find_element(By.CSS_SELECTOR, "#start .button-main").click()
    wait(page, lambda: page.find_elements(By.ID, "error-behaviours"))
    error, focused = page.find_element(By.ID, "error-behaviours"), page.switch_to.active_element
    assert (focused.get_attribute("value"), focused.get_attribute("aria-describedby")) == (wrong, "error-behaviours")
    row = page.execute_script("return arguments[0].previousElementSibling", error)
    assert row == page.find_elements(By.CSS_SELECTOR, "[data-rows-of=behaviours] .row-chosen")[1]


def test_economies_are_chosen_in_rows_and_the_text_says_the_same(page):
    enter(page)
    assert not page.find_element(By.ID, "field-shadows").is_displayed()
    press(page, "shadows", "Add an economy")
    assert text_of(page, "shadows") == "economy 1:"
    label = in_rows(page, "shadows")[0]
    assert page.switch_to.active_element == label
    label.clear()
    label.send_keys("wage: half", Keys.TAB, "data size")  # all of it by the keyboard
    assert text_of(page, "shadows") == "wage: half: valuation=data_size"
    row = page.find_element(By.CSS_SELECTOR, "[data-rows-of=shadows] .row-chosen")
    Select(row.find_element(By.CSS_SELECTOR, "[data-field=reward_rule]")).select_by_visible_text("wage and bonus")
    share = row.find_element(By.CSS_SELECTOR, "[data-parameter='reward_rule.share']")
    share.clear()
    share.send_keys("0.5", Keys.TAB, "0.1", Keys.TAB, "none")
    said = "valuation=data_size reward_rule=wage_bonus reward_rule.share=0.5 burn_share=0.1 budget_tokens=none"
    assert text_of(page, "shadows") == f"wage: half: {said}"
    Select(row.find_element(By.CSS_SELECTOR, "[data-field=reward_rule]")).select_by_visible_text("as the paying one")
    assert text_of(page, "shadows") == "wage: half: valuation=data_size burn_share=0.1 budget_tokens=none"
    press(page, "shadows", "Add another")
    press(page, "shadows", "Remove")
    assert text_of(page, "shadows") == "economy 2:"
    choose(page, "preset", "six_ways")
    press(page, "shadows", "as text")
    page.switch_to.active_element.send_keys(Keys.CONTROL, "a", Keys.NULL, "x: reward_rule=tullock\nwhatever")
    rows = [[value for value in row if value] for row in rows_of(page, "shadows")]
    assert rows == [["x", "tullock", "2.0"], ["whatever"]]


@pytest.mark.parametrize(
    ("text", "row", "wrong"),
    [
        ("a: burn_share=0.5\nb: reward_rule=wage_bonus reward_rule.share=2", 1, "2"),
        ("a:\na: valuation=data_size", 0, "a"),
        ("a:\nb: burn_share=7", 1, "7"),
        ("a:\nnonsense", 1, "nonsense"),
    ],
)
def test_an_error_of_an_economy_stands_at_its_row_and_field(page, text, row, wrong):
    enter(page, shadows=text)
    page.find_element(By.CSS_SELECTOR, "#start .button-main").click()
    wait(page, lambda: page.find_elements(By.ID, "error-shadows"))
    error, focused = page.find_element(By.ID, "error-shadows"), page.switch_to.active_element
    assert (focused.get_attribute("value"), focused.get_attribute("aria-describedby")) == (wrong, "error-shadows")
    before = page.execute_script("return arguments[0].previousElementSibling", error)
    assert before == page.find_elements(By.CSS_SELECTOR, "[data-rows-of=shadows] .row-chosen")[row]


def test_economies_are_shown_priced_again_and_recomputed(page, server):
    start(page, num_clients="3", num_rounds="3", shadows="by size: valuation=data_size")
    wait(page, lambda: page.execute_script(STATUS) == "completed")
    page.find_element(By.CSS_SELECTOR, "#live h2 a").click()
    charts = "return document.querySelectorAll('#economies .has-chart svg').length"
    wait(page, lambda: page.execute_script(charts) == 3)
    labels = "return [...document.querySelectorAll('#economies-rows th a')].map((each) => each.textContent)"
    assert page.execute_script(labels) == ["paying", "by size"]
    page.find_element(By.CSS_SELECTOR, "#reprice > summary").click()
    row = page.find_element(By.CSS_SELECTOR, "#reprice .row-chosen")
    burn = row.find_element(By.CSS_SELECTOR, "[data-field=burn_share]")
    burn.send_keys("3")
    page.find_element(By.CSS_SELECTOR, "#reprice .button-main").click()
    wait(page, lambda: page.find_elements(By.ID, "error-economy"))
    assert page.switch_to.active_element.get_attribute("value") == "3"
    page.switch_to.active_element.send_keys(Keys.BACKSPACE, "0.5")
    page.find_element(By.CSS_SELECTOR, "#reprice .button-main").click()
    wait(page, lambda: page.execute_script(labels) == ["paying", "by size", "economy 2"])
    flow = Select(page.find_element(By.ID, "flow-of"))
    assert "Burned" not in page.find_element(By.ID, "flow-rows").get_attribute("textContent")
    flow.select_by_visible_text("economy 2")
    wait(page, lambda: "Burned" in page.find_element(By.ID, "flow-rows").get_attribute("textContent"))
    page.find_element(By.CSS_SELECTOR, "#economies-rows th a").click()
    page.find_element(By.CSS_SELECTOR, "tbody th a.link").click()
    wait(page, lambda: page.find_elements(By.ID, "recomputed"))
    page.find_element(By.XPATH, "//button[text()='Recompute']").click()
    wait(page, lambda: "Equal." in page.find_element(By.ID, "recomputed").text)
    page.find_element(By.CSS_SELECTOR, ".steps details > summary").click()
    wait(page, lambda: "its exact Shapley value" in page.find_element(By.CSS_SELECTOR, ".steps details").text)


def test_who_points_at_whom_is_shown_while_it_runs_and_leads_to_a_time_line(page):
    watched = {"detectors": "norm\nreplay", "slashing": "direction above=0.5 share=0.25", "stake": "2"}
    start(page, num_clients="4", num_rounds="40", behaviours="2: sign_flip scale=2", **watched)
    page.find_element(By.CSS_SELECTOR, "#live h2 a").click()
    heads = "return [...document.querySelectorAll('#scores thead th')].length"
    wait(page, lambda: page.execute_script(heads))
    Select(page.find_element(By.ID, "detector-of")).select_by_visible_text("direction")
    outlined = "return document.querySelectorAll('#scores .heat-named-cell').length"
    wait(page, lambda: page.execute_script(outlined))
    wait(page, lambda: page.execute_script(STATUS) == "completed")
    wait(page, lambda: page.execute_script(heads) == 41)
    assert Select(page.find_element(By.ID, "detector-of")).first_selected_option.text == "direction"
    page.find_element(By.CSS_SELECTOR, "#losses tbody td a").click()
    wait(page, lambda: page.execute_script("return document.querySelectorAll('.has-chart svg').length"))
    names = page.find_element(By.CSS_SELECTOR, "[data-chart=timeline] svg").get_attribute("textContent")
    for panel in ("examples", "loss", "contribution", "scores", "tokens", "stake left"):
        assert panel in names


def test_what_a_start_would_take_and_its_split_follow_the_form(page):
    estimate = page.find_element(By.ID, "estimate")
    wait(page, lambda: "About" in estimate.text)
    before = estimate.text
    enter(page, dataset="digits", num_clients="6", num_rounds="1")
    choose(page, "partition", "dirichlet")
    wait(page, lambda: estimate.text != before)
    page.find_element(By.CSS_SELECTOR, "#split summary").click()
    cells = "return [...document.querySelectorAll(`${arguments[0]} .heat td`)].map((cell) => cell.title)"
    wait(page, lambda: page.execute_script(cells, "#split"))
    first = page.execute_script(cells, "#split")
    alpha = page.find_element(By.NAME, "partition.dirichlet.alpha")
    alpha.clear()
    alpha.send_keys("0.1")
    wait(page, lambda: page.execute_script(cells, "#split") not in ([], first))
    shown = page.execute_script(cells, "#split")
    page.find_element(By.CSS_SELECTOR, "#start .button-main").click()
    wait(page, lambda: page.execute_script(cells, "#labels"))
    assert page.execute_script(cells, "#labels") == shown


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


CUT = """
const pen = document.createElement("canvas").getContext("2d");
for (const closed of document.querySelectorAll("details")) closed.open = true;
return [...document.querySelectorAll("select")].filter((select) => select.offsetParent).flatMap((select) => {
  const style = getComputedStyle(select);
  const room = select.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight) - 18;  // its arrow
  pen.font = style.font;
  return [...select.options].map((option) => option.text.trim()).filter((text) => pen.measureText(text).width > room);
});
"""


def test_on_a_phone_no_choice_is_cut(browser, server):
    """Of the form, with a row of each chooser, and of an economy that is added."""
    size = {"width": 390, "height": 900, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(server.url)
    assert browser.execute_script(CUT) == []
    for button in browser.find_elements(By.CSS_SELECTOR, ".row-chooser .button"):
        browser.execute_script("arguments[0].click()", button)
    assert browser.execute_script("return document.querySelectorAll('.row-chosen select').length") >= 2
    assert browser.execute_script(CUT) == []
