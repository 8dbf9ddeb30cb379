"""The table of what operators want of the endpoints."""

from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    operations = (
        migrations.CreateModel(
            name="EndpointState",
            fields=[
                ("name", models.CharField(max_length=100, primary_key=True, serialize=False)),
                (
                    "mode",
                    models.CharField(
                        choices=[
                            ("auto", "Automatic"),
                            ("forced_open", "Forced open"),
                            ("disabled", "Disabled"),
                        ],
                        default="auto",
                        max_length=20,
                    ),
                ),
                ("reason", models.CharField(blank=True, max_length=200)),
                ("revision", models.PositiveBigIntegerField(default=0)),
                ("changed_at", models.DateTimeField(auto_now=True)),
            ],
            options={
                "verbose_name": "endpoint",
                "permissions": (
                    ("operate_endpoint", "Can reset, open, disable and check endpoints"),
                ),
                "default_permissions": ("view",),
            },
        ),
    )
