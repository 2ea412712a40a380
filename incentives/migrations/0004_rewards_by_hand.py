"""Rights of their own to mint by hand and to reverse. Who could reverse before, by "Can add transaction", still can."""

from django.db import migrations, models


def carry_over(apps, schema_editor):
    Permission = apps.get_model("auth", "Permission")
    before = Permission.objects.filter(content_type__app_label="incentives", codename="add_transaction").first()
    if before is None:  # a new site: its permissions are made when all its migrations are done
        return
    right, _ = Permission.objects.get_or_create(
        content_type=before.content_type,
        codename="reverse_transaction",
        defaults={"name": "Can reverse transactions"},
    )
    right.user_set.add(*before.user_set.all())
    right.group_set.add(*before.group_set.all())


class Migration(migrations.Migration):
    dependencies = [
        ("auth", "0012_alter_user_first_name_max_length"),
        ("incentives", "0003_no_rowid"),
    ]

    operations = [
        migrations.CreateModel(
            name="RewardRequest",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "key",
                    models.CharField(
                        help_text="of the transaction, also where nothing was paid", max_length=200, unique=True
                    ),
                ),
                ("asked_sha256", models.CharField(help_text="of the terms and the actor", max_length=64)),
                ("address", models.CharField(blank=True, help_text="where open access asked from", max_length=64)),
                ("microtokens", models.PositiveBigIntegerField()),
                ("asked_at", models.DateTimeField(db_index=True)),
            ],
        ),
        migrations.AlterModelOptions(
            name="transaction",
            options={
                "permissions": (
                    ("reward_by_hand", "Can mint rewards by hand"),
                    ("reverse_transaction", "Can reverse transactions"),
                )
            },
        ),
        migrations.RunPython(carry_over, migrations.RunPython.noop),
    ]
