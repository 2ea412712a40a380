"""The database itself refuses to change history, on SQLite and PostgreSQL."""

import contextlib
import sqlite3

import pytest
from django.apps import apps
from django.db import DatabaseError, IntegrityError, connection, models, transaction

from fedsite.tests import servers
from incentives import ledger
from incentives.models import Account, Ledger, Transaction, Transfer
from incentives.tests.cast import execute, pay, three_rounds, triggers

ONE = "WHERE id = (SELECT max(id) FROM incentives_{0})"
UPDATES = [
    "UPDATE incentives_transfer SET amount = amount + 1",
    "UPDATE incentives_transfer SET code = 'other' " + ONE.format("transfer"),
    "UPDATE incentives_transaction SET description = 'other'",
    "UPDATE incentives_transaction SET memo = '{}' " + ONE.format("transaction"),
    "UPDATE incentives_transaction SET recorded_at = '2001-01-01'",
    "UPDATE incentives_transaction SET sequence = sequence + 100",
    "UPDATE incentives_account SET name = 'other' " + ONE.format("account"),
    "UPDATE incentives_account SET client = 9 " + ONE.format("account"),
    "UPDATE incentives_ledger SET name = 'other'",
    "UPDATE incentives_ledger SET is_shadow = NOT is_shadow",
]
DELETES = [
    "DELETE FROM incentives_transfer",
    "DELETE FROM incentives_transfer " + ONE.format("transfer"),
    "DELETE FROM incentives_transaction",
    "DELETE FROM incentives_transaction " + ONE.format("transaction"),
    "DELETE FROM incentives_account",
    "DELETE FROM incentives_ledger",
]
COPY = "INTO incentives_{0} ({1}) SELECT {2} FROM incentives_{0} WHERE id = (SELECT min(id) FROM incentives_{0})"
TRANSFER = "id, transaction_id, position, debit_account_id, credit_account_id, amount, code"
TRANSACTION = (
    "id, ledger_id, sequence, key, content_sha256, description, memo, previous_hash, hash, reverses_id, recorded_at"
)
ACCOUNT = "id, ledger_id, name, client, balance"
LEDGER = "id, name, head, length, created_at"
COPIES = {  # each takes the place of a row by one of its unique keys
    "transfer by id": COPY.format("transfer", TRANSFER, TRANSFER.replace("position", "77")),
    "transfer by position": COPY.format("transfer", TRANSFER, TRANSFER.replace("id,", "999,", 1)),
    "transaction by id": COPY.format("transaction", TRANSACTION, TRANSACTION.replace("sequence, key", "77, 'other'")),
    "transaction by sequence": COPY.format(
        "transaction", TRANSACTION, TRANSACTION.replace("id,", "999,", 1).replace(" key", " 'other'")
    ),
    "transaction by key": COPY.format(
        "transaction", TRANSACTION, TRANSACTION.replace("id,", "999,", 1).replace("sequence", "77")
    ),
    "transaction by what it reverses": COPY.format(
        "transaction",
        TRANSACTION,
        TRANSACTION.replace("id,", "999,", 1)
        .replace("sequence, key", "77, 'other'")
        .replace("reverses_id", "(SELECT max(reverses_id) FROM incentives_transaction)"),
    ),
    "account by id": COPY.format("account", ACCOUNT, ACCOUNT.replace("name", "'other'")),
    "account by name": COPY.format("account", ACCOUNT, ACCOUNT.replace("id,", "999,", 1)),
    "ledger by id": COPY.format("ledger", LEDGER, LEDGER.replace("name", "'other'")),
    "ledger by name": COPY.format("ledger", LEDGER, LEDGER.replace("id,", "999,", 1)),
}
TABLES = ("transfer", "transaction", "account", "ledger")
ALIASES = ("rowid", "oid", "_rowid_")
IS_SQLITE = connection.vendor == "sqlite"
on_sqlite = pytest.mark.skipif("not IS_SQLITE", reason="SQLite's own")
on_postgresql = pytest.mark.skipif("IS_SQLITE", reason="PostgreSQL's own")


def rows() -> list[list[tuple]]:
    return [list(model.objects.order_by("pk").values_list()) for model in (Ledger, Account, Transaction, Transfer)]


def refused(statement: str, match: str = "append-only") -> None:
    before = rows()
    with pytest.raises(IntegrityError, match=match), transaction.atomic():
        execute(statement)
    assert rows() == before


MORE = "INSERT " + COPY.format("transfer", TRANSFER, TRANSFER.replace("id,", "999,", 1).replace("position", "77"))


@pytest.mark.django_db
@pytest.mark.database
@pytest.mark.parametrize(
    "statement",
    [
        MORE,
        MORE.replace("min(id)", "max(id)"),  # of the newest transaction
        "UPDATE incentives_ledger SET length = length - 1",
        "UPDATE incentives_ledger SET length = 0 WHERE name = 'simulation-1'",
    ],
)
def test_it_refuses_to_add_to_what_was_posted(statement):
    three_rounds()
    refused(statement)


@pytest.mark.django_db
@pytest.mark.database
def test_it_refuses_to_add_to_what_was_posted_along_with_what_is_being_posted():
    opened = three_rounds()
    mint, treasury = Account.objects.order_by("pk").values_list("pk", flat=True)[:2]
    columns = TRANSFER.removeprefix("id, ")
    newest = opened.transactions.get(sequence=4)
    new = Transaction.objects.create(
        ledger=opened, sequence=5, key="new", content_sha256="0" * 64, previous_hash=newest.hash, hash="0" * 64
    )
    insert = f"INSERT INTO incentives_transfer ({columns}) VALUES ({new.pk}, 77, {mint}, {treasury}, 5, 'pool')"
    refused(f"{insert}, ({newest.pk}, 78, {mint}, {treasury}, 5, 'pool')", match="posted transaction")
    execute(insert)
    execute("UPDATE incentives_ledger SET length = 5")
    refused(insert.replace("77", "78"), match="posted transaction")


@pytest.mark.django_db
@pytest.mark.database
@pytest.mark.parametrize("statement", UPDATES + DELETES)
def test_it_refuses_to_change_history(statement):
    three_rounds()
    refused(statement)


@pytest.mark.django_db
@pytest.mark.database
def test_it_refuses_it_to_django_too():
    three_rounds()
    for attack in (
        lambda: Transfer.objects.update(amount=1),
        lambda: Transaction.objects.all()._raw_delete("default"),
        lambda: Transfer.objects.bulk_update([Transfer.objects.first()], ["code"]),
        lambda: Account.objects.filter(name="client:1").update(name="client:9"),
        lambda: Ledger.objects.first().save(),
    ):
        before = rows()
        with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
            attack()
        assert rows() == before


@on_sqlite
@pytest.mark.django_db
@pytest.mark.parametrize("recursive", ["ON", "OFF"])
@pytest.mark.parametrize("statement", COPIES.values(), ids=COPIES)
def test_it_refuses_to_replace_rows_of_sqlite(statement, recursive):
    three_rounds()
    execute(f"PRAGMA recursive_triggers = {recursive}")
    try:
        refused(f"INSERT OR REPLACE {statement}")
    finally:
        execute("PRAGMA recursive_triggers = ON")


ROUND_ABOUT = [  # what changes a row without naming the column, or without an UPDATE or DELETE of one's own
    *(f"UPDATE incentives_{table} SET {alias} = id + 5000" for table in TABLES for alias in ALIASES),
    *(f"UPDATE incentives_{table} SET {alias} = id + 5000 WHERE id > 0" for table in TABLES for alias in ALIASES[:1]),
    "UPDATE OR REPLACE incentives_account SET rowid = id + 1",
    "UPDATE OR IGNORE incentives_ledger SET _rowid_ = 0",
    "UPDATE incentives_account SET oid = other.id + 5000 FROM incentives_account AS other",
    "UPDATE incentives_account SET balance = balance, name = 'other' FROM (SELECT 1)",
    *(f"REPLACE {COPIES['transfer by id'].replace('(id,', f'({alias},', 1)}" for alias in ALIASES),
    f"INSERT {COPIES['ledger by name']} ON CONFLICT DO UPDATE SET name = 'other'",
    f"INSERT {COPIES['account by id']} ON CONFLICT (id) DO UPDATE SET client = 9",
]


@on_sqlite
@pytest.mark.django_db
@pytest.mark.parametrize("recursive", ["ON", "OFF"])
def test_it_refuses_the_ways_round_of_sqlite(recursive):
    three_rounds()
    execute(f"PRAGMA recursive_triggers = {recursive}")
    try:
        for statement in ROUND_ABOUT:
            refused(statement)
    finally:
        execute("PRAGMA recursive_triggers = ON")


@on_sqlite
@pytest.mark.django_db
def test_it_takes_no_fraction_for_an_amount_in_sqlite():
    three_rounds()
    half = COPY.format("transfer", TRANSFER, "NULL, transaction_id, 77, debit_account_id, credit_account_id, 0.5, code")
    refused(f"INSERT {half}", match="amount is not an integer")


@on_sqlite
@pytest.mark.django_db
def test_it_sets_the_pragmas_that_the_triggers_rely_on():
    with connection.cursor() as cursor:
        assert cursor.execute("PRAGMA recursive_triggers").fetchone() == (1,)
        assert cursor.execute("PRAGMA foreign_keys").fetchone() == (1,)


@on_postgresql
@pytest.mark.django_db
@pytest.mark.database
@pytest.mark.parametrize("table", triggers.guards.TABLES)
def test_it_refuses_to_truncate_in_postgresql(table):
    three_rounds()
    connection.check_constraints()  # a TRUNCATE would be refused for pending checks otherwise
    refused(f"TRUNCATE {table} CASCADE")


@on_postgresql
@pytest.mark.django_db
@pytest.mark.database
def test_it_refuses_an_upsert_in_postgresql():
    three_rounds()
    copy = COPY.format("transfer", TRANSFER, TRANSFER.replace("position", "77"))
    refused(f"INSERT {copy} ON CONFLICT (id) DO UPDATE SET amount = 1")


@pytest.mark.django_db
@pytest.mark.database
def test_it_lets_heads_and_balances_move():
    opened = three_rounds()
    pay(opened, "round:4", 1)
    assert ledger.verify(opened).ok


@pytest.mark.django_db
@pytest.mark.database
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE incentives_account SET balance = -1 WHERE name = 'client:1'",
        "UPDATE incentives_account SET balance = -9007199254740992 WHERE name = 'mint'",
        "INSERT " + COPY.format("transfer", TRANSFER, TRANSFER.replace("id,", "999,", 1).replace("position", "0")),
        "INSERT "
        + COPY.format(
            "transfer", TRANSFER, TRANSFER.replace("id,", "999,", 1).replace("position", "77").replace("amount", "0")
        ),
        "INSERT "
        + COPY.format(
            "transfer",
            TRANSFER,
            TRANSFER.replace("id,", "999,", 1)
            .replace("position", "77")
            .replace("credit_account_id", "debit_account_id"),
        ),
    ],
)
def test_it_checks_numbers_in_the_data_base(statement):
    three_rounds()
    refused(statement, match="constraint")


@pytest.mark.django_db
@pytest.mark.database
def test_it_keeps_its_triggers_through_every_migration():
    """SQLite loses them when a table is rebuilt; then the newest migration has to install them again."""
    source = "SELECT name FROM sqlite_master WHERE type = 'trigger' AND name LIKE 'incentives_%%'"
    if not IS_SQLITE:
        source = "SELECT tgname FROM pg_trigger WHERE tgname LIKE 'incentives_%%'"
    with connection.cursor() as cursor:
        cursor.execute(source.replace("%%", "%"))
        found = {name for (name,) in cursor.fetchall()}
    first, ends = triggers.guards, "replace" if IS_SQLITE else "truncate"
    expected = {name for name, _, _ in first.guards()} | {f"{table}_no_{ends}" for table in first.TABLES}
    expected |= {f"incentives_{name}" for name in ("transfer_sealed", "ledger_no_shortening", "ledger_same_kind")}
    of_sqlite = {"incentives_transfer_integer", *(f"{table}_no_move" for table in first.STATE)}
    assert found == (expected | of_sqlite if IS_SQLITE else expected)
    assert triggers.missing(connection) == []


WEAKENED = {
    "sqlite": [
        "DROP TRIGGER incentives_transfer_no_update",
        "CREATE TRIGGER incentives_transfer_no_update BEFORE UPDATE ON incentives_transfer WHEN 0 BEGIN SELECT 1; END",
    ],
    "postgresql": [
        "ALTER TABLE incentives_transfer DISABLE TRIGGER incentives_transfer_no_update",
        "DROP TRIGGER incentives_transfer_no_update ON incentives_transfer",
    ],
}


@pytest.mark.django_db
@pytest.mark.database
def test_it_names_what_is_missing_disabled_or_changed():
    for statement in WEAKENED[connection.vendor]:
        execute(statement)
        assert triggers.missing(connection) == ["incentives_transfer_no_update"]
    triggers.remove(connection)
    triggers.install(connection)
    assert triggers.missing(connection) == []
    triggers.remove(connection)
    everything = triggers.missing(connection)
    assert len(everything) > 12
    assert f"and {len(everything) - 3} more" in triggers.sentence(everything)


@on_postgresql
@pytest.mark.django_db
@pytest.mark.database
def test_it_names_triggers_whose_function_was_emptied():
    head = "CREATE OR REPLACE FUNCTION incentives_sealed() RETURNS trigger LANGUAGE plpgsql"
    execute(f"{head} AS $$ BEGIN RETURN NULL; END $$")
    assert triggers.missing(connection) == ["incentives_transfer_sealed"]


@pytest.mark.django_db
@pytest.mark.database
def test_it_can_take_the_triggers_away_and_bring_them_back():
    three_rounds()
    connection.check_constraints()
    triggers.remove(connection)
    with transaction.atomic():
        execute("UPDATE incentives_transfer SET code = 'other'")
    triggers.install(connection)
    refused(UPDATES[0])


def test_it_migrates_back_and_forth(migrated_database, tmp_path):
    (tmp_path / "db.sqlite3").write_bytes(migrated_database.read_bytes())
    environment = servers.site_environment(tmp_path)

    def migrated_to(target: str) -> set[str]:
        done = servers.run_manage("migrate", "incentives", target, "--verbosity", "0", environment=environment)
        assert done.returncode == 0, done.stderr
        return changed_by("SELECT name FROM sqlite_master WHERE type = 'trigger'")

    def changed_by(statement: str) -> set[str]:
        with contextlib.closing(sqlite3.connect(tmp_path / "db.sqlite3")) as database, database:
            return {name for (name,) in database.execute(statement)}

    assert not migrated_to("0001")
    everything = migrated_to("0002")
    changed_by("DROP TRIGGER incentives_account_no_move")  # as the first release left it
    assert migrated_to("0003") == everything
    assert migrated_to("0006") - everything == {"incentives_transfer_sealed", "incentives_ledger_no_shortening"}
    assert migrated_to("0005") == everything


def test_it_says_so_where_there_are_no_triggers_for_a_data_base():
    class Other:
        vendor = "mysql"

    with pytest.raises(NotImplementedError, match="mysql"):
        triggers.install(Other())


def test_it_has_no_column_for_a_float():
    inexact = (models.FloatField, models.DecimalField)
    columns = [field for model in apps.get_app_config("incentives").get_models() for field in model._meta.fields]
    assert len(columns) > 20
    assert not [field for field in columns if isinstance(field, inexact)]


@pytest.mark.django_db
@pytest.mark.database
def test_it_has_unique_keys_in_the_data_base():
    """Were the service to fail, no second transaction takes a place."""
    opened = three_rounds()
    first = opened.transactions.get(sequence=1)
    for same in ({"sequence": 1, "key": "x"}, {"sequence": 9, "key": "round:1"}):
        with pytest.raises(DatabaseError), transaction.atomic():
            Transaction.objects.create(ledger=opened, previous_hash=first.hash, hash=first.hash, **same)
