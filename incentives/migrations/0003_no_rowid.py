"""The guards of 0002 as they are now, for a database that has older ones: those let `SET rowid` of SQLite pass."""

from importlib import import_module

from django.db import migrations

guards = import_module("incentives.migrations.0002_append_only")


def renew(apps, schema_editor):
    guards.remove(schema_editor.connection)
    guards.install(schema_editor.connection)


class Migration(migrations.Migration):
    dependencies = [("incentives", "0002_append_only")]
    operations = [migrations.RunPython(renew, migrations.RunPython.noop)]
