"""What is in the database stays: the columns keep their name, for workers of the release before that are still at it."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("simulations", "0016_identities"),
    ]

    operations = [
        migrations.AlterField(
            model_name="simulation",
            name="owner",
            field=models.CharField(
                blank=True, db_column="owner", help_text="host:process:birth:token of the claim", max_length=200
            ),
        ),
        migrations.RenameField(model_name="simulation", old_name="owner", new_name="claimed_by"),
        migrations.AlterField(
            model_name="audit",
            name="owner",
            field=models.CharField(
                blank=True, db_column="owner", help_text="host:process:birth:token of the claim", max_length=200
            ),
        ),
        migrations.RenameField(model_name="audit", old_name="owner", new_name="claimed_by"),
        migrations.AlterField(
            model_name="duty",
            name="owner",
            field=models.CharField(
                db_column="owner", help_text="host:process:token of whoever did it last", max_length=200
            ),
        ),
        migrations.RenameField(model_name="duty", old_name="owner", new_name="claimed_by"),
        migrations.AlterField(
            model_name="worker",
            name="name",
            field=models.CharField(help_text="host:process:birth, as a claim names it", max_length=200, unique=True),
        ),
    ]
