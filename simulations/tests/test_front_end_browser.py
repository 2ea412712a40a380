"""A front end of the first system's kind, on an origin of its own, in a real browser."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from selenium.webdriver.support.ui import WebDriverWait

PAGE = """<!doctype html><title>front end</title><ol id="log"></ol>
<p id="record"></p><p id="rewards"></p><p id="state"></p><p id="ledger"></p><p id="paid"></p>
<script>
const site = "%(site)s", query = "num_rounds=2&num_clients=2&fraction_fit=0.5&dataset=digits";
const show = (id, text) => document.getElementById(id).textContent = text;
const source = new EventSource(site + "/api/simulations/stream?" + query);
let rewards = 0;
source.onmessage = ({data}) => {
  document.getElementById("log").append(Object.assign(document.createElement("li"), {textContent: data}));
  if (data.startsWith("Calculated reward:")) show("rewards", ++rewards);
  if (data.startsWith("Simulation record saved with ID:")) show("record", data.split(": ")[1]);
};
source.onerror = () => show("state", "error");
source.addEventListener("close", async () => {
  source.close();
  const records = await (await fetch(site + "/api/simulations/")).json();
  const ledger = await (await fetch(site + "/api/incentives/ledger?user_id=1")).json();
  const reward = {user_id: 1, previous_metric: 0.5, current_metric: 0.4, scaling_factor: 10.0};
  const headers = {"Content-Type": "application/json"};
  const paid = await fetch(site + "/api/incentives/reward", {method: "POST", headers, body: JSON.stringify(reward)});
  show("ledger", ledger.balance);
  show("paid", JSON.stringify(await paid.json()));
  show("state", "done with " + records[0].id);
});
</script>"""


@pytest.fixture
def front_end(start_server):
    """The address of a page on another origin that the site allows; and the site."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write((PAGE % {"site": site.url}).encode())

        def log_message(self, *arguments) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as other:
        origin = f"http://localhost:{other.server_port}"
        site = start_server(CORS_ALLOWED_ORIGINS=origin)
        thread = threading.Thread(target=other.serve_forever)
        thread.start()
        yield origin, site
        other.shutdown()
        thread.join()


def text(browser, name: str) -> str:
    return browser.find_element("id", name).text


def test_it_starts_follows_and_pays_from_another_origin(browser, front_end):
    origin, site = front_end
    browser.get(origin)
    WebDriverWait(browser, 90).until(lambda _: text(browser, "state"))
    assert text(browser, "state") == "done with 1"
    assert (text(browser, "record"), text(browser, "rewards")) == ("1", "2")
    assert float(text(browser, "ledger")) > 0
    assert '"reward":1' in text(browser, "paid").replace(" ", "")
    lines = [item.text for item in browser.find_elements("css selector", "#log li")]
    events = httpx.get(f"{site.url}/api/simulations/1/events/").json()
    assert lines == [event["message"] for event in events]


def test_an_origin_that_is_not_allowed_starts_nothing(browser, start_server, front_end):
    origin, site = front_end
    browser.get(origin.replace("localhost", "127.0.0.1"))  # the same page, but another origin to the browser
    WebDriverWait(browser, 30).until(lambda _: text(browser, "state") == "error")
    assert site.manage("verify_ledger").stdout.startswith("Verified 0 ledgers")
