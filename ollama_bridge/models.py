"""What operators want of the endpoints: the only state of the bridge that the database keeps."""

from __future__ import annotations

from django.db import models, router, transaction

from .core import breaker


class Mode(models.TextChoices):
    """The modes of a circuit, with their names for people."""

    AUTO = breaker.Mode.AUTO.value, "Automatic"
    FORCED_OPEN = breaker.Mode.FORCED_OPEN.value, "Forced open"
    DISABLED = breaker.Mode.DISABLED.value, "Disabled"


class EndpointStates(models.Manager["EndpointState"]):
    def change(self, name: str, mode: Mode, reason: str = "") -> EndpointState:
        """Store what an operator wants of an endpoint, for all processes.

        Each change counts, also to the same mode: ``AUTO`` once more resets the circuits again.
        """
        with transaction.atomic(using=database()):
            state, _ = self.using(database()).select_for_update().get_or_create(name=name)
            state.mode, state.reason = mode, reason
            state.revision += 1
            state.save()
        return state


class EndpointState(models.Model):
    """What an operator wants of one endpoint of the settings. Without a row, it is automatic."""

    name = models.CharField(max_length=100, primary_key=True)
    mode = models.CharField(max_length=20, choices=Mode.choices, default=Mode.AUTO)
    reason = models.CharField(max_length=200, blank=True)
    revision = models.PositiveBigIntegerField(default=0)
    changed_at = models.DateTimeField(auto_now=True)

    objects = EndpointStates()

    class Meta:
        default_permissions = ("view",)
        permissions = (("operate_endpoint", "Can reset, open, disable and check endpoints"),)
        verbose_name = "endpoint"

    def __str__(self) -> str:
        return self.name


def database() -> str:
    """Return the alias of the database to use, for reading too: a replica may lag behind."""
    return router.db_for_write(EndpointState)
