"""History is append-only in the database itself, on SQLite and PostgreSQL.

Transactions and transfers: no UPDATE, no DELETE. Ledgers and accounts: no DELETE, and an UPDATE of nothing but head, length
and balance. PostgreSQL: no TRUNCATE of any. SQLite: its INSERT OR REPLACE deletes whatever row is in the way of *any* unique
key, and fires delete triggers for it only under PRAGMA recursive_triggers; so inserts into an occupied place are refused too.
And `SET rowid = 7` (or oid, or _rowid_) changes an id without being an UPDATE OF it; so ids are compared as well.

Whoever may change the schema goes round any trigger (DROP TRIGGER, PRAGMA writable_schema; in PostgreSQL the tables' owner
by DISABLE TRIGGER, a superuser by session_replication_role): that is what the hash chain is for.

These are the first ones; incentives/triggers.py has all, and says what a later migration that alters one of these tables
must do. incentives/tests/test_ledger_triggers.py notices if it does not.
"""

from django.db import migrations

HISTORY = ("incentives_transaction", "incentives_transfer")
STATE = {
    "incentives_ledger": ("id", "name", "created_at"),
    "incentives_account": ("id", "ledger_id", "name", "client"),
}
TABLES = (*HISTORY, *STATE)
OCCUPIED = {
    "incentives_ledger": "id = NEW.id OR name = NEW.name",
    "incentives_account": "id = NEW.id OR (ledger_id = NEW.ledger_id AND name = NEW.name)",
    "incentives_transaction": "id = NEW.id OR (ledger_id = NEW.ledger_id AND sequence = NEW.sequence)"
    " OR (ledger_id = NEW.ledger_id AND key = NEW.key) OR reverses_id = NEW.reverses_id",
    "incentives_transfer": "id = NEW.id OR (transaction_id = NEW.transaction_id AND position = NEW.position)",
}


def guards():
    """(trigger, "BEFORE what", table) of the guards that both databases have."""
    for table in TABLES:
        yield f"{table}_no_delete", "DELETE", table
    for table in HISTORY:
        yield f"{table}_no_update", "UPDATE", table
    for table, columns in STATE.items():
        yield f"{table}_no_update", f"UPDATE OF {', '.join(columns)}", table


def sqlite_install():
    for trigger, event, table in guards():
        yield (
            f"CREATE TRIGGER {trigger} BEFORE {event} ON {table} "
            f"BEGIN SELECT RAISE(ABORT, 'append-only: {event.split()[0]} of {table} refused'); END"
        )
    for table in STATE:
        yield (
            f"CREATE TRIGGER {table}_no_move BEFORE UPDATE ON {table} WHEN NEW.id IS NOT OLD.id "
            f"BEGIN SELECT RAISE(ABORT, 'append-only: UPDATE of {table} refused'); END"
        )
    for table, occupied in OCCUPIED.items():
        yield (
            f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table} "
            f"WHEN EXISTS (SELECT 1 FROM {table} WHERE {occupied}) "
            f"BEGIN SELECT RAISE(ABORT, 'append-only: INSERT into {table} over a row refused'); END"
        )
    yield (  # columns of SQLite take a fraction where an integer was declared
        "CREATE TRIGGER incentives_transfer_integer BEFORE INSERT ON incentives_transfer "
        "WHEN typeof(NEW.amount) <> 'integer' "
        "BEGIN SELECT RAISE(ABORT, 'incentives_transfer: amount is not an integer'); END"
    )


def sqlite_remove():
    for trigger, _, _ in guards():
        yield f"DROP TRIGGER IF EXISTS {trigger}"
    for table in TABLES:
        yield f"DROP TRIGGER IF EXISTS {table}_no_move"
        yield f"DROP TRIGGER IF EXISTS {table}_no_replace"
    yield "DROP TRIGGER IF EXISTS incentives_transfer_integer"


def postgresql_install():
    yield (
        "CREATE OR REPLACE FUNCTION incentives_append_only() RETURNS trigger LANGUAGE plpgsql AS $$ "
        "BEGIN RAISE EXCEPTION 'append-only: % of % refused', TG_OP, TG_TABLE_NAME "
        "USING ERRCODE = 'integrity_constraint_violation'; END $$"
    )
    for trigger, event, table in guards():
        yield (
            f"CREATE TRIGGER {trigger} BEFORE {event} ON {table} "
            "FOR EACH ROW EXECUTE FUNCTION incentives_append_only()"
        )
    for table in TABLES:
        yield (
            f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION incentives_append_only()"
        )


def postgresql_remove():
    for trigger, _, table in guards():
        yield f"DROP TRIGGER IF EXISTS {trigger} ON {table}"
    for table in TABLES:
        yield f"DROP TRIGGER IF EXISTS {table}_no_truncate ON {table}"
    yield "DROP FUNCTION IF EXISTS incentives_append_only()"


INSTALL = {"sqlite": sqlite_install, "postgresql": postgresql_install}
REMOVE = {"sqlite": sqlite_remove, "postgresql": postgresql_remove}


def install(connection):
    run(connection, INSTALL)


def remove(connection):
    run(connection, REMOVE)


def run(connection, statements):
    if connection.vendor not in statements:
        raise NotImplementedError(f"the ledger knows no triggers for {connection.vendor}; use PostgreSQL or SQLite")
    with connection.cursor() as cursor:
        for statement in statements[connection.vendor]():
            cursor.execute(statement)


class Migration(migrations.Migration):
    dependencies = [("incentives", "0001_initial")]
    operations = [
        migrations.RunPython(
            lambda apps, schema_editor: install(schema_editor.connection),
            lambda apps, schema_editor: remove(schema_editor.connection),
        )
    ]
