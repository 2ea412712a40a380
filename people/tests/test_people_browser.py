"""Signing in and making a token, in a real browser on a real server with login access."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait

if TYPE_CHECKING:
    from fedsite.tests.browsers import Browser

MAKE = "from django.contrib.auth.models import User; User.objects.create_user('ada', password='long-enough-9')"


def press(browser: Browser, label: str) -> None:
    browser.find_element(By.XPATH, f"//button[contains(., '{label}')]").click()


def wait_for(browser: Browser, address: str) -> None:
    WebDriverWait(browser, 30).until(lambda driver: driver.current_url.endswith(address))


def test_one_signs_in_makes_a_token_and_a_program_uses_it(start_server, browser: Browser) -> None:
    site = start_server(FEDSITE_ACCESS="login")
    made = site.manage("shell", "-c", MAKE)
    assert made.returncode == 0, made.stderr
    browser.get(f"{site.url}/account/")
    browser.find_element(By.NAME, "username").send_keys("ada")
    browser.find_element(By.NAME, "password").send_keys("long-enough-9")
    browser.find_element(By.CSS_SELECTOR, "form.card button").click()
    wait_for(browser, "/account/")
    browser.find_element(By.NAME, "name").send_keys("lab")
    Select(browser.find_element(By.NAME, "scope")).select_by_value("write")
    press(browser, "Make a token")
    secret = WebDriverWait(browser, 30).until(lambda driver: driver.find_element(By.ID, "secret")).text
    with httpx.Client(base_url=site.url, headers={"Authorization": f"Bearer {secret}"}) as program:
        started = program.post("/api/simulations/", json={"dataset": "digits", "num_rounds": 1})
        assert (started.status_code, started.json()["owner"]) == (201, "ada")
        browser.get(f"{site.url}/simulations/{started.json()['id']}/")
        WebDriverWait(browser, 30).until(lambda driver: "by ada" in driver.page_source)
        browser.get(f"{site.url}/account/")
        press(browser, "Revoke")
        WebDriverWait(browser, 30).until(lambda driver: "You have none yet" in driver.page_source)
        assert program.get("/api/simulations/").status_code == 401
    press(browser, "Sign out")
    WebDriverWait(browser, 30).until(lambda driver: "/accounts/login/" in driver.current_url)
    assert [entry for entry in browser.get_log("browser") if "Content Security Policy" in entry["message"]] == []
