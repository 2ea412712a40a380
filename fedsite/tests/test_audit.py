"""Whether known holes, none, and no list of them are told apart."""

from __future__ import annotations

import pytest

from fedsite.tests import audit

CLEAN = {"name": "django", "version": "5.2.19", "vulns": []}
HOLE = {
    "name": "a",
    "version": "1",
    "vulns": [{"id": "CVE-1", "fix_versions": ["2", "3"]}, {"id": "CVE-2", "fix_versions": []}],
}
ELSEWHERE = {"name": "torch", "skip_reason": "not on PyPI: torch (2.14.1+cpu)"}


def test_it_names_each_hole_and_where_it_is_mended() -> None:
    assert audit.verdict([CLEAN, HOLE]) == (
        1,
        "Known holes:\na 1: CVE-1, mended in 2, 3\na 1: CVE-2, mended in none yet",
    )


def test_it_names_what_the_list_does_not_know() -> None:
    assert audit.verdict([CLEAN]) == (0, "Audited 1 packages: no known hole.")
    assert audit.verdict([CLEAN, ELSEWHERE]) == (0, "Audited 1 packages: no known hole. Not on the list: torch.")


@pytest.mark.parametrize(("required", "status"), [("", 0), ("mnist", 0), ("mnist,advisories", 1)])
def test_not_to_have_reached_the_list_is_said(monkeypatch: pytest.MonkeyPatch, required: str, status: int) -> None:
    monkeypatch.setenv("FEDSITE_TEST_REQUIRE", required)
    assert audit.verdict(None) == (status, "Not audited: the list of known holes could not be reached.")


def test_it_sees_that_there_is_no_network(capsys: pytest.CaptureFixture[str]) -> None:
    """On the real pip-audit: conftest.py points it at a closed port."""
    assert not audit.reaches_advisories()
    assert audit.main() == 0
    assert capsys.readouterr().out.startswith("Not audited")


def test_a_list_that_does_not_know_a_known_hole_is_not_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """As some mirrors answer: every package unknown, and so no hole anywhere."""
    monkeypatch.setattr(audit, "report", lambda *options: [{"name": "django", "skip_reason": "not found"}])
    assert not audit.reaches_advisories()
    monkeypatch.setattr(audit, "report", lambda *options: [HOLE])
    assert audit.reaches_advisories()
