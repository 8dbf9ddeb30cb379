"""What must outlive processes: what operators want of the endpoints, cooldowns, and our own count.

Nothing in here is used on the way of a call. The thread of ``keeping`` reads and writes it, and so
does the admin.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from django.conf import settings
from django.db import models, router, transaction
from django.db.models import Case, F, Q, Value, When
from django.utils import timezone

from .core import breaker
from .errors import QuotaExhausted

if TYPE_CHECKING:
    from datetime import date


class Mode(models.TextChoices):
    """The modes of a circuit, with their names for people."""

    AUTO = breaker.Mode.AUTO.value, "Automatic"
    FORCED_OPEN = breaker.Mode.FORCED_OPEN.value, "Forced open"
    DISABLED = breaker.Mode.DISABLED.value, "Disabled"


class Stored(NamedTuple):
    """A row as it was read; without one, an endpoint is ``Stored(name)``.

    Attributes:
        server: whose the cooldown is, see ``EndpointState.cooldown_server``.
        until: when the cooldown ends, None where there is none.
        code: of the error that began it.
        since: when a server has last asked for it.
        used: calls that were answered on the day ``used_on``, in UTC.
    """

    name: str
    mode: str = Mode.AUTO.value
    revision: int = 0
    server: str = ""
    until: datetime | None = None
    code: str = ""
    since: datetime | None = None
    used: int = 0
    used_on: date | None = None


class EndpointStates(models.Manager["EndpointState"]):
    """The rows. What is written is one statement each, so that no process undoes another's."""

    def stored(self) -> dict[str, Stored]:
        """Return all rows, by endpoint."""
        rows = self.using(database()).values_list(*_COLUMNS)
        return {row[0]: _read(Stored(*row)) for row in rows}

    def change(self, name: str, mode: Mode, reason: str = "") -> EndpointState:
        """Store what an operator wants of an endpoint, for all processes.

        Each change counts, also to the same mode: ``AUTO`` once more resets the circuits again. It
        is a reset, which ends a cooldown too.
        """
        news: dict[str, Any] = {"mode": mode, "reason": reason, "changed_at": timezone.now()}
        if mode is Mode.AUTO:
            news |= _NO_COOLDOWN
        with transaction.atomic(using=database()):
            self._update(name, revision=F("revision") + 1, **news)
            return self.using(database()).get(name=name)

    def begin_cooldown(
        self, name: str, server: str, until: datetime, code: str, since: datetime | None = None
    ) -> None:
        """Keep that an endpoint is left alone until then; never shortens what is there already.

        ``since`` is when its server said so, None for now.

        An allowance that is used up stays the reason, whatever comes on top. The cooldown of
        another server gives way.
        """
        since, ours = since or timezone.now(), Q(cooldown_server=server)
        newer = When(ours, cooldown_since__gt=_column(since), then="cooldown_since")
        longer = When(ours, cooldown_until__gt=_column(until), then="cooldown_until")
        worse = When(ours, cooldown_code=QuotaExhausted.code, then="cooldown_code")
        self._update(
            name,
            # In this order: MariaDB lets each assignment see those before it.
            cooldown_until=Case(longer, default=Value(_column(until))),
            cooldown_code=Case(worse, default=Value(code)),
            cooldown_since=Case(newer, default=Value(_column(since))),
            cooldown_server=server,
        )

    def end_cooldown(self, name: str, server: str, until: datetime, at: datetime) -> None:
        """Forget one that ends by ``until``: at that time its server had proven good, or was reset.

        What the server has said after that counts, even if it is the same again.
        """
        rows = self.using(database()).filter(name=name, cooldown_server=server)
        over = rows.filter(cooldown_until__lte=_column(until), cooldown_since__lte=_column(at))
        over.update(**_NO_COOLDOWN)

    def add_calls(self, name: str, calls: int, day: date) -> None:
        """Add calls to those of a day, in UTC; each day begins with none."""
        today = When(used_on=day, then=F("used") + calls)
        # In this order, as above.
        self._update(name, used=Case(today, default=Value(calls)), used_on=day)

    def _update(self, name: str, **news: object) -> None:
        """Update the row of an endpoint; make it first where there is none.

        It begins with a write: on SQLite, a transaction that begins with a read cannot wait for
        others to write.
        """
        rows = self.using(database()).filter(name=name)
        if not rows.update(**news):
            self.using(database()).bulk_create([self.model(name=name)], ignore_conflicts=True)
            rows.update(**news)


class EndpointState(models.Model):
    """What is kept of one endpoint of the settings. Without a row: automatic, and never called.

    Attributes:
        revision: counts the changes of the mode by operators; 0 where there was none.
        cooldown_until: until when the server wants to be left alone; a moment that is over stays
            until the server has proven good again.
        cooldown_server: a digest of the address that the cooldown belongs to: under the same name,
            the settings may have another server by now.
        cooldown_since: when that server has last asked for it.
    """

    name = models.CharField(max_length=100, primary_key=True)
    mode = models.CharField(max_length=20, choices=Mode.choices, default=Mode.AUTO)
    reason = models.CharField(max_length=200, blank=True)
    revision = models.PositiveBigIntegerField(default=0)
    changed_at = models.DateTimeField(auto_now=True)
    # With defaults of the database, for processes of the version before this one.
    cooldown_until = models.DateTimeField(null=True, editable=False)
    cooldown_code = models.CharField(max_length=40, default="", db_default="", editable=False)
    cooldown_server = models.CharField(max_length=64, default="", db_default="", editable=False)
    cooldown_since = models.DateTimeField(null=True, editable=False)
    used = models.PositiveBigIntegerField(default=0, db_default=0, editable=False)
    used_on = models.DateField(null=True, editable=False)

    objects = EndpointStates()

    class Meta:
        default_permissions = ("view",)
        permissions = (("operate_endpoint", "Can reset, open, disable and check endpoints"),)
        verbose_name = "endpoint"

    def __str__(self) -> str:
        return self.name


_COLUMNS: Final = (
    "name",
    "mode",
    "revision",
    "cooldown_server",
    "cooldown_until",
    "cooldown_code",
    "cooldown_since",
    "used",
    "used_on",
)
_NO_COOLDOWN: Final = {
    "cooldown_until": None,
    "cooldown_code": "",
    "cooldown_server": "",
    "cooldown_since": None,
}


def database() -> str:
    """Return the alias of the database to use, for reading too: a replica may lag behind."""
    return router.db_for_write(EndpointState)


def _column(moment: datetime) -> datetime:
    """Return a moment as the column takes it: in UTC, also where the project has no zones."""
    return moment if settings.USE_TZ else moment.astimezone(UTC).replace(tzinfo=None)


def _read(row: Stored) -> Stored:
    return row._replace(until=_moment(row.until), since=_moment(row.since))


def _moment(column: datetime | None) -> datetime | None:
    return column if column is None or column.tzinfo else column.replace(tzinfo=UTC)
