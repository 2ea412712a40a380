"""Gates before passwords: how often something was tried, in the database."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('people', '0001_initial'),
    ]

    operations = [
        migrations.CreateModel(
            name='Gate',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('who', models.CharField(help_text='SHA-256 of what is counted together', max_length=64, unique=True)),
                ('tried', models.PositiveIntegerField()),
                ('open_at', models.DateTimeField()),
                ('forgotten_at', models.DateTimeField(db_index=True, help_text='from then on the count begins anew')),
            ],
        ),
    ]
