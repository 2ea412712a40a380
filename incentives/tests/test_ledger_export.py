"""Ledgers as text that other programs accept."""

import csv
import io
import json
import subprocess
import sys
from datetime import datetime, timedelta, timezone

import pytest
from django.core.management import CommandError, call_command
from django.db.models import prefetch_related_objects

from incentives import ledger
from incentives.export import _beancount_transaction, beancount_lines
from incentives.models import Ledger, Transaction
from incentives.tests.cast import pay, three_rounds

pytestmark = pytest.mark.django_db


def exported(form: str, **options: str) -> str:
    out = io.StringIO()
    call_command("export_ledger", format=form, stdout=out, **options)
    return out.getvalue()


def bean_check(text: str, tmp_path) -> subprocess.CompletedProcess[str]:
    (tmp_path / "ledger.beancount").write_text(text)
    command = [sys.executable, "-m", "beancount.scripts.check", "--no-cache", str(tmp_path / "ledger.beancount")]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture
def two_ledgers() -> list[Ledger]:
    first = three_rounds("simulation-1")
    ledger.ensure_accounts(first, [9])
    manual = ledger.open_ledger("manual")
    ledger.post(
        manual.pk,
        key='reward:"quoted"',
        transfers=[ledger.Entry("mint", "client:1", 2**53 - 1, "pool")],
        description='A "reward", with \\ and é',
        memo={"why": "é"},
    )
    return list(Ledger.objects.order_by("pk"))


@pytest.mark.database
def test_it_writes_a_csv_line_for_every_transfer(two_ledgers):
    lines = list(csv.DictReader(io.StringIO(exported("csv"))))
    assert len(lines) == 13
    last = two_ledgers[1].transactions.get()
    assert lines[-1] == {
        "ledger": "manual",
        "sequence": "1",
        "position": "1",
        "debit": "mint",
        "credit": "client:1",
        "amount_microtokens": str(2**53 - 1),
        "code": "pool",
        "key": 'reward:"quoted"',
        "description": 'A "reward", with \\ and é',
        "reverses": "",
        "recorded_at": last.recorded_at.isoformat(),
        "hash": last.hash,
    }
    assert [line["reverses"] for line in lines].count("2") == 3


@pytest.mark.database
def test_it_writes_a_json_line_for_every_transaction(two_ledgers):
    lines = [json.loads(line) for line in exported("jsonl").splitlines()]
    assert [(line["ledger"], line["sequence"]) for line in lines] == [
        *(("simulation-1", n) for n in range(1, 5)),
        ("manual", 1),
    ]
    assert lines[2]["reverses"] == 2
    assert lines[2]["transfers"][0] == ["treasury", "mint", 2, "reversal"]
    assert lines[4]["memo"] == {"why": "é"}


@pytest.mark.database
def test_it_writes_what_bean_check_accepts(two_ledgers, tmp_path):
    text = exported("beancount")
    done = bean_check(text, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert text.count(" open ") == text.count(" balance ") == 6 + 3
    assert "balance Assets:Simulation-1:Client-1 12 MICROTOKEN" in text
    assert f'hash: "{two_ledgers[0].head}"' in text


def test_it_writes_balances_that_bean_check_derives_again(two_ledgers, tmp_path):
    text = exported("beancount")
    changed = text.replace("Assets:Simulation-1:Client-1 5 MICROTOKEN", "Assets:Simulation-1:Client-1 6 MICROTOKEN")
    assert changed != text
    assert bean_check(changed, tmp_path).returncode == 1
    wrong = text.replace("balance Assets:Simulation-1:Client-1 12", "balance Assets:Simulation-1:Client-1 13")
    assert wrong != text
    assert bean_check(wrong, tmp_path).returncode == 1


@pytest.mark.database
def test_what_is_posted_while_it_is_written_is_left_out_altogether(tmp_path):
    opened = three_rounds("simulation-1")
    lines = beancount_lines(Ledger.objects.all())
    text = "".join(next(lines) for _ in range(4))  # the options, the ledger's name, its first accounts
    pay(opened, "round:4", 1, 1, 1, 1)
    text += next(lines)
    pay(opened, "round:5", 9)
    text += "".join(lines)
    done = bean_check(text, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert "round:3" in text
    assert "round:4" not in text


@pytest.mark.parametrize("typed", ["=1+1", "+1", "-1", "@SUM(A1)", "\uff1d1"])
def test_no_spreadsheet_computes_what_somebody_typed(typed):
    posted = pay(three_rounds(), "round:4", 1)
    ledger.reverse(posted, typed)
    assert list(csv.DictReader(io.StringIO(exported("csv"))))[-1]["description"] == f"'{typed}"
    assert json.loads(exported("jsonl").splitlines()[-1])["description"] == typed


def test_it_dates_transactions_by_the_day_in_utc():
    opened = ledger.open_ledger("simulation-1")
    posted = pay(opened, "round:1", 5)
    posted.recorded_at = datetime(2026, 3, 2, 0, 30, tzinfo=timezone(timedelta(hours=1)))
    assert _beancount_transaction(opened, history_of(posted)).startswith('\n2026-03-01 * "Reward of round:1"')


def history_of(posted: Transaction) -> Transaction:
    """The same row with its transfers read, as the export has it."""
    prefetch_related_objects([posted], "transfers__debit_account", "transfers__credit_account")
    return posted


def test_it_writes_a_ledger_that_has_no_transactions(tmp_path):
    ledger.open_ledger("manual")
    assert bean_check(exported("beancount"), tmp_path).returncode == 0
    assert len(exported("csv").splitlines()) == 1
    assert exported("jsonl") == ""


def test_it_writes_one_ledger_by_name(two_ledgers):
    assert {json.loads(line)["ledger"] for line in exported("jsonl", ledger="manual").splitlines()} == {"manual"}


def test_it_names_an_unknown_ledger():
    with pytest.raises(CommandError, match="no ledger 'nowhere'"):
        exported("csv", ledger="nowhere")


def test_it_reads_a_long_ledger_in_pieces(django_assert_max_num_queries):
    opened = ledger.open_ledger("simulation-1")
    for n in range(130):
        pay(opened, f"round:{n}", 1, 2)
    with django_assert_max_num_queries(12):
        lines = exported("csv").splitlines()
    assert len(lines) == 1 + 130 * 3
