"""What is still to be stored: cooldowns that began or ended here, and calls that were answered."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from ..core.events import CooldownBegan
from ..errors import QuotaExhausted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..models import Stored
    from .notes import Note

NOISE: Final = timedelta(seconds=0.5)
"""What two moments may differ by and be the same: machines' clocks do, and threads wait."""


class End(NamedTuple):
    """When a cooldown ends, the code of the error that began it, and when a server last said so."""

    until: datetime
    code: str
    since: datetime

    def joined(self, other: End | None) -> End:
        """Return what both come to; an allowance that is used up stays the reason."""
        if other is None:
            return self
        code = other.code if other.code == QuotaExhausted.code else self.code
        return End(max(self.until, other.until), code, max(self.since, other.since))

    def is_news_to(self, other: End, noise: timedelta = timedelta()) -> bool:
        """Tell whether it is later, or for another reason that counts more."""
        is_worse = self.code == QuotaExhausted.code and other.code != self.code
        return is_worse or self.until > other.until + noise


def end_of(row: Stored, until: datetime) -> End:
    """Return what a row says of its cooldown, which ends then."""
    return End(until, row.code, row.since or until)


class Over(NamedTuple):
    """What ends by ``until``, and was said by ``at``, is over."""

    until: datetime
    at: datetime

    def covers(self, end: End) -> bool:
        return end.until <= self.until and end.since <= self.at


@dataclass(slots=True)
class Debt:
    """What is to be stored of one endpoint's cooldown.

    Attributes:
        over: what has ended, None where nothing has.
        begun: what began after that, None where nothing did.
    """

    over: Over | None = None
    begun: End | None = None


class Ledger:
    """The debts of all endpoints.

    Attributes:
        debts: by endpoint; who has stored one removes it.
    """

    def __init__(self) -> None:
        self.debts: dict[str, Debt] = {}
        self._ends: dict[str, End] = {}  # of cooldowns that this process knows of
        self._begun_here: set[str] = set()

    def follow(self, name: str, end: End) -> None:
        """Take note that a cooldown is going to begin here because it is stored."""
        self._ends[name] = end.joined(self._ends.get(name))

    def follow_end(self, name: str) -> None:
        """Take note that one is going to end here because it is stored no more."""
        self._ends.pop(name, None)
        self._begun_here.discard(name)
        self.debts.pop(name, None)

    def enter(self, note: Note, stored: datetime | None) -> bool:
        """Enter a note; ``stored`` is the end of the cooldown in the table, as far as is known.

        Returns:
            Whether there may be something new to store.
        """
        event, at = note.event, datetime.fromtimestamp(note.at, UTC)
        if not isinstance(event, CooldownBegan):
            return self._end(event.endpoint, at, stored, is_told=event.is_told)
        name, found = event.endpoint, End(at + timedelta(seconds=event.seconds), event.code, at)
        known = self._ends.get(name)
        self._ends[name] = found.joined(known)
        # What other processes have told of, or the table, is stored already.
        if event.is_told or (known is not None and not found.is_news_to(known, NOISE)):
            return False
        self._begun_here.add(name)
        debt = self.debts.setdefault(name, Debt())
        debt.begun = found.joined(debt.begun)
        return True

    def _end(self, name: str, at: datetime, stored: datetime | None, *, is_told: bool) -> bool:
        known = self._ends.pop(name, None)
        ends = [end for end in (known and known.until, stored) if end is not None]
        # Another process has ended it, maybe before this one had stored it.
        is_ours = name in self._begun_here or not is_told
        self._begun_here.discard(name)
        if not is_ours or not (ends or name in self.debts):
            return False
        self.debts[name] = Debt(over=Over(max(at, *ends), at + NOISE))
        return True


class Counts:
    """The answered calls of one day that are not stored yet.

    Attributes:
        owed: by endpoint.
    """

    def __init__(self) -> None:
        self.owed: dict[str, int] = {}
        self._day = date.min

    def add(self, answered: Mapping[str, int], day: date) -> None:
        """Add calls; those of another day count no more."""
        if day != self._day:
            self._day, self.owed = day, {}
        for name, calls in answered.items():
            if calls:
                self.owed[name] = self.owed.get(name, 0) + calls

    def used(self, stored: Stored) -> int:
        """Return the calls of this day, with those that all processes have stored."""
        before = stored.used if stored.used_on == self._day else 0
        return before + self.owed.get(stored.name, 0)
