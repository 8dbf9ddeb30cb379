"""Cooldowns that survive restarts, and our own count of calls."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = (("ollama_bridge", "0001_endpoint_state"),)

    operations = (
        migrations.AddField(
            model_name="endpointstate",
            name="cooldown_until",
            field=models.DateTimeField(editable=False, null=True),
        ),
        migrations.AddField(
            model_name="endpointstate",
            name="cooldown_code",
            field=models.CharField(db_default="", default="", editable=False, max_length=40),
        ),
        migrations.AddField(
            model_name="endpointstate",
            name="cooldown_server",
            field=models.CharField(db_default="", default="", editable=False, max_length=64),
        ),
        migrations.AddField(
            model_name="endpointstate",
            name="cooldown_since",
            field=models.DateTimeField(editable=False, null=True),
        ),
        migrations.AddField(
            model_name="endpointstate",
            name="used",
            field=models.PositiveBigIntegerField(db_default=0, default=0, editable=False),
        ),
        migrations.AddField(
            model_name="endpointstate",
            name="used_on",
            field=models.DateField(editable=False, null=True),
        ),
    )
