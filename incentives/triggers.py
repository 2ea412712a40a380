"""The triggers by which SQLite and PostgreSQL themselves refuse to change what was posted, and whether all are there.

Besides those of migration 0002: a transfer is added to no transaction that is posted. Whoever posts inserts a
transaction with its transfers and then raises its ledger's length to the transaction's number, so a transaction is
posted as soon as that length reaches it; and the length never falls. A ledger pays, or is a shadow's, from its opening
to its end.

A later migration that alters one of these tables begins with `remove` and ends with `install`: SQLite drops a table's
triggers when Django rebuilds the table, and renames no table that the trigger of another one reads while it is away.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

guards = import_module("incentives.migrations.0002_append_only")

SEALED = (  # dropped by name, so each statement begins with CREATE TRIGGER and the name
    "CREATE TRIGGER incentives_transfer_sealed AFTER INSERT ON incentives_transfer WHEN EXISTS ("
    "SELECT 1 FROM incentives_transaction JOIN incentives_ledger ON incentives_ledger.id = ledger_id "
    "WHERE incentives_transaction.id = NEW.transaction_id AND sequence <= length) "
    "BEGIN SELECT RAISE(ABORT, 'append-only: INSERT into a posted transaction refused'); END",
    "CREATE TRIGGER incentives_ledger_no_shortening BEFORE UPDATE ON incentives_ledger WHEN NEW.length < OLD.length "
    "BEGIN SELECT RAISE(ABORT, 'append-only: UPDATE of incentives_ledger refused'); END",
)
MARKED = (  # since migration 0008
    "CREATE TRIGGER incentives_ledger_same_kind BEFORE UPDATE ON incentives_ledger "
    "WHEN NEW.is_shadow IS NOT OLD.is_shadow "
    "BEGIN SELECT RAISE(ABORT, 'append-only: UPDATE of incentives_ledger refused'); END",
)
MARKED_ON_POSTGRESQL = (
    "CREATE TRIGGER incentives_ledger_same_kind BEFORE UPDATE OF is_shadow ON incentives_ledger "
    "FOR EACH ROW WHEN (NEW.is_shadow IS DISTINCT FROM OLD.is_shadow) EXECUTE FUNCTION incentives_append_only()",
)
SEALED_ON_POSTGRESQL = (  # once a statement, however many transfers it has
    "CREATE OR REPLACE FUNCTION incentives_sealed() RETURNS trigger LANGUAGE plpgsql AS $$ "
    "BEGIN IF EXISTS (SELECT 1 FROM incentives_transaction JOIN incentives_ledger ON incentives_ledger.id = ledger_id "
    "WHERE incentives_transaction.id IN (SELECT DISTINCT transaction_id FROM added) AND sequence <= length) "
    "THEN RAISE EXCEPTION 'append-only: INSERT into a posted transaction refused' "
    "USING ERRCODE = 'integrity_constraint_violation'; END IF; RETURN NULL; END $$",
    "CREATE TRIGGER incentives_transfer_sealed AFTER INSERT ON incentives_transfer REFERENCING NEW TABLE AS added "
    "FOR EACH STATEMENT EXECUTE FUNCTION incentives_sealed()",
    "CREATE TRIGGER incentives_ledger_no_shortening BEFORE UPDATE OF length ON incentives_ledger "
    "FOR EACH ROW WHEN (NEW.length < OLD.length) EXECUTE FUNCTION incentives_append_only()",
)


def statements(vendor: str, *, marked: bool = True) -> Iterator[str]:
    """All that make the triggers, functions before whatever calls them. Before migration 0007 no ledger is `marked`."""
    yield from guards.INSTALL[vendor]()
    yield from SEALED if vendor == "sqlite" else SEALED_ON_POSTGRESQL
    if marked:
        yield from MARKED if vendor == "sqlite" else MARKED_ON_POSTGRESQL


def install(connection: Any, *, marked: bool = True) -> None:
    guards.run(connection, {vendor: lambda: statements(connection.vendor, marked=marked) for vendor in guards.INSTALL})


def remove_sealed(connection: Any) -> None:
    of_table = (
        "" if connection.vendor == "sqlite" else " ON incentives_transfer",
        "" if connection.vendor == "sqlite" else " ON incentives_ledger",
    )
    with connection.cursor() as cursor:
        cursor.execute(f"DROP TRIGGER IF EXISTS incentives_transfer_sealed{of_table[0]}")
        cursor.execute(f"DROP TRIGGER IF EXISTS incentives_ledger_no_shortening{of_table[1]}")
        cursor.execute(f"DROP TRIGGER IF EXISTS incentives_ledger_same_kind{of_table[1]}")
        if connection.vendor == "postgresql":
            cursor.execute("DROP FUNCTION IF EXISTS incentives_sealed()")


def remove(connection: Any) -> None:
    remove_sealed(connection)
    guards.remove(connection)


def missing(connection: Any) -> list[str]:
    """Names of the triggers that are not there, are disabled, or do not say what they said when they were made."""
    expected: dict[str, str] = {}
    bodies: dict[str, str] = {}
    for statement in statements(connection.vendor):
        words = statement.split()
        if words[1] == "TRIGGER":
            expected[words[2]] = statement
        else:
            bodies[words[4].removesuffix("()")] = statement.split("$$")[1]
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND name LIKE 'incentives_%'")
            found = dict(cursor.fetchall())
            return [name for name, statement in expected.items() if found.get(name) != statement]
        cursor.execute(
            "SELECT tgname, proname, prosrc FROM pg_trigger JOIN pg_proc ON pg_proc.oid = tgfoid "
            "JOIN pg_class ON pg_class.oid = tgrelid WHERE relnamespace = current_schema()::regnamespace "
            "AND NOT tgisinternal AND tgenabled IN ('O', 'A')"
        )
        found = {name for name, function, body in cursor.fetchall() if bodies.get(function) == body}
    return [name for name in expected if name not in found]


def sentence(names: list[str]) -> str:
    """What an operator is to know of triggers that are missing."""
    listed = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return (
        "The database does not refuse any more to change what was posted: triggers are missing or changed "
        f"({listed}); `manage.py verify_ledger --restore-triggers` puts them back"
    )
