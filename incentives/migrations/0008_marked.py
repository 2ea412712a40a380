"""A ledger pays, or is a shadow's, for ever: a trigger for whoever has them from before."""

from django.db import migrations

from incentives import triggers


def renew(apps, schema_editor):
    triggers.remove(schema_editor.connection)
    triggers.install(schema_editor.connection)


class Migration(migrations.Migration):
    dependencies = [("incentives", "0007_economies")]
    operations = [migrations.RunPython(renew, migrations.RunPython.noop)]
