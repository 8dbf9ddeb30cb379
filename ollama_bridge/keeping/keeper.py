"""The thread that follows the table, and writes into it what must survive this process.

A database that is down, read-only, without our table or forbidden (as in tests) fails no call and
delays none: the thread goes on with what it knows, and looks again. Only the first call waits for
the first look, ``PATIENCE`` seconds at most.
"""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from ..core.quota import Quota
from ..errors import QuotaExhausted
from ..models import EndpointState, Mode, Stored
from .ledger import NOISE, Counts, Ledger, end_of
from .notes import Notes
from .table import hang_up, is_lasting, read
from .trouble import NOTHING, Trouble, logger

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..circuits import CircuitBreaker, Governed
    from ..client import Governing

EVERY: float = 4.5
"""Seconds between looks, so that with the look itself every process knows within 5 seconds."""

PATIENCE: Final = 0.5
"""The most seconds that anybody waits for a look."""

HEARING: Final = 0.4
"""The most seconds of these for which a first look waits for what other processes tell."""


class Keeper:
    """Follows and stores, for one engine. Thread-safe; nothing of it raises.

    1. Modes: at its first look it applies ``forced_open`` and ``disabled``. Later it applies each
       new revision, and ``auto`` means reset. Between revisions, a mode that code has set stays.
    2. Cooldowns: at its first look it begins those that are stored, but none that other processes
       have told of: they know better. Later it begins what is new, and ends what is gone. What
       begins and ends here is stored at once.
    3. Calls: at each look it adds those that were answered, where there is a ``QUOTA_LIMIT``.

    Attributes:
        known: the rows at the last look that succeeded, by endpoint; None before it.
    """

    def __init__(self, governed: Governed, before: Keeper | None = None) -> None:
        self.known: Mapping[str, Stored] | None = None
        self._governed = governed
        self._servers = {name: it.identity for name, it in governed.endpoints().items()}
        self._notes = Notes(governed.limits)
        self._ledger = Ledger()
        self._counts = Counts()
        self._looking = threading.Lock()
        self._looked = threading.Event()
        self._ended = False
        self._follows_cooldowns = False
        self._reading = Trouble(
            "Cannot read the modes and cooldowns of endpoints, going on with those known",
            "The modes and cooldowns of endpoints can be read again",
        )
        self._storing = Trouble(
            "Cannot store cooldowns and counts of endpoints, trying again until the process ends",
            "Cooldowns and counts of endpoints are stored again",
        )
        self._thread = threading.Thread(target=self._run, name=logger.name, daemon=True)
        if before is not None:  # it has ended, or in a forked child it is the parent's
            before.leave()
            self.known = before.known

    def begin(self) -> None:
        """Apply what is known, then look, and go on looking; return after the first look."""
        for row in (self.known or {}).values():
            if row.mode != Mode.AUTO:
                self._apply(row)  # no news to log; the client's lock is held
        self._governed.listen(self._notes)
        try:
            self._thread.start()
        except RuntimeError as error:  # no more threads, or the interpreter is about to end
            self._reading.tell(error)
        else:
            self._looked.wait(PATIENCE)

    def leave(self) -> None:
        """Take no more notes."""
        self._governed.ignore(self._notes)

    def end(self) -> None:
        """Take no more notes, and store what is owed, if that is possible soon."""
        self.leave()
        self._ended = True
        self._notes.wake()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(PATIENCE)

    def look(self, changed: str = "") -> None:
        """Read the rows and follow what is new; never raises.

        ``changed`` names an endpoint whose mode is new for sure, even at a first look.
        """
        if not self._looking.acquire(timeout=PATIENCE):
            return  # somebody's look takes long: the database hangs
        try:
            self._follow(read(), changed)
        except Exception as error:  # noqa: BLE001  # whatever a database does, calls go on
            self._reading.tell(error)
        else:
            self._reading.end()
        finally:
            self._looking.release()

    def _run(self) -> None:
        self.look()
        self._governed.wait(HEARING)
        self._follow_from_now_on()
        self._looked.set()
        self._keep()
        while not self._ended:
            hang_up()
            self._rest()
            if not self._ended:
                self.look()
                self._keep()
        self._hear(0.0)
        self._keep()
        hang_up()

    def _rest(self) -> None:
        """Wait until it is time to look, or there is something to store."""
        until = time.monotonic() + EVERY
        while (left := until - time.monotonic()) > 0:
            if self._hear(left) or self._ended:
                return

    def _hear(self, seconds: float) -> bool:
        """Enter the notes that there are, or come soon; tell whether that may be stored."""
        entered = [
            self._ledger.enter(note, self._stored(note.event.endpoint).until)
            for note in self._notes.wait(seconds)
        ]
        return any(entered)

    # What is read

    def _follow(self, stored: Mapping[str, Stored], changed: str) -> None:
        known = self.known or {}
        for name in known.keys() | stored.keys():
            before, row = known.get(name, Stored(name)), stored.get(name, Stored(name))
            is_new = (row.mode, row.revision) != (before.mode, before.revision)
            is_first = self.known is None and row.mode == Mode.AUTO and name != changed
            is_gone = name not in stored and before.mode == Mode.AUTO
            if is_new and not is_first and not is_gone:
                self._fulfil(row)
            if self._follows_cooldowns:
                self._follow_cooldown(self._ours(before), self._ours(row))
        self.known = stored

    def _fulfil(self, row: Stored) -> None:
        if self._apply(row):
            facts = {**NOTHING, "endpoint": row.name}
            line = "Circuit breaker: an operator's mode of endpoint %s is now %s"
            logger.info(line, row.name, row.mode, extra=facts)

    def _apply(self, row: Stored) -> bool:
        circuit = self._governed.circuits().get(row.name)
        if circuit is None or row.mode not in Mode.values:
            return False  # of other settings, or of a newer version
        if row.mode == Mode.AUTO:
            self._end(row.name)
        move(circuit, Mode(row.mode))
        return True

    def _follow_from_now_on(self) -> None:
        """Begin the cooldowns of before, but for those of which other processes have told."""
        self._follows_cooldowns = True
        try:
            for name in self._servers:
                row = self._stored(name)
                if row.until is not None and not self._governed.cooldown(name).generation:
                    self._cool_down(row, row.until)
        except Exception as error:  # noqa: BLE001  # who watches the log may fail
            self._reading.tell(error)

    def _follow_cooldown(self, before: Stored, row: Stored) -> None:
        if row.until is None:
            if before.until is not None:
                self._end_cooldown(row.name, before.until)
        elif (row.until, row.code) != (before.until, before.code):
            self._cool_down(row, row.until)

    def _cool_down(self, row: Stored, until: datetime) -> None:
        """Leave an endpoint alone as a row says; not again where that is so already."""
        left = max(timedelta(), until - datetime.now(UTC))
        facts = self._governed.cooldown(row.name)
        is_over = not left and row.code != QuotaExhausted.code
        is_known = facts.code in {row.code, QuotaExhausted.code}
        is_covered = is_known and left <= timedelta(seconds=facts.seconds) + NOISE
        if not is_over and not is_covered:
            self._ledger.follow(row.name, end_of(row, until))
            self._governed.cool_down(row.name, left.total_seconds(), row.code)

    def _end_cooldown(self, name: str, until: datetime) -> None:
        """End what has ended elsewhere, unless a longer one has begun here meanwhile."""
        left = max(timedelta(), until - datetime.now(UTC))
        if timedelta(seconds=self._governed.cooldown(name).seconds) <= left + NOISE:
            self._end(name)

    def _end(self, name: str) -> None:
        if self._governed.cooldown(name).code:
            self._ledger.follow_end(name)
            self._governed.end_cooldown(name)

    # What is stored

    def _keep(self) -> None:
        """Say how much of each allowance is used, and store what is owed; never raises."""
        now = datetime.now(UTC)
        self._counts.add(self._notes.answered(), now.date())
        try:
            self._learn(now)
            is_owed = bool(self._ledger.debts or self._counts.owed)
            if is_owed and self.known is not None and is_lasting():
                self._settle(now)
                self._storing.end()
                self.look()
        except Exception as error:  # noqa: BLE001  # whatever a database does, calls go on
            self._storing.tell(error)

    def _settle(self, now: datetime) -> None:
        debts, owed = self._ledger.debts, self._counts.owed
        for name in list(debts):
            self._settle_cooldown(name)
            del debts[name]
        for name in list(owed):
            EndpointState.objects.add_calls(name, owed[name], now.date())
            del owed[name]

    def _settle_cooldown(self, name: str) -> None:
        """Bring a row to what happened here, unless it knows better."""
        debt, server = self._ledger.debts[name], self._servers[name]
        row = self._stored(name)
        stored = None if row.until is None else end_of(row, row.until)
        if debt.over is not None and stored is not None and debt.over.covers(stored):
            EndpointState.objects.end_cooldown(name, server, *debt.over)
            stored = None
        begun = debt.begun
        if begun and (stored is None or begun.is_news_to(stored) or begun.since > stored.since):
            EndpointState.objects.begin_cooldown(name, server, *begun)

    def _learn(self, now: datetime) -> None:
        """Say how much of each allowance is used, as far as we have counted."""
        midnight = datetime(now.year, now.month, now.day, tzinfo=UTC) + timedelta(days=1)
        endpoints = self._governed.endpoints() if self._governed.limits else {}
        for name, limit in self._governed.limits.items():
            used = self._counts.used((self.known or {}).get(name, Stored(name)))
            told = Quota(
                "counted", used / limit, midnight.timestamp(), limit=limit, unit="requests"
            )
            if told != endpoints[name].quota:
                self._governed.learn_quota(name, told)

    def _stored(self, name: str) -> Stored:
        """Return the row of an endpoint as it was read, without the cooldown of another server."""
        return self._ours((self.known or {}).get(name, Stored(name)))

    def _ours(self, row: Stored) -> Stored:
        is_ours = row.until is not None and row.server == self._servers.get(row.name)
        return row if is_ours else row._replace(until=None, code="", since=None)


def govern(governed: Governed, before: Governing | None) -> Keeper:
    """Begin to keep these endpoints; ``before`` did so until now, and knows."""
    keeper = Keeper(governed, before if isinstance(before, Keeper) else None)
    keeper.begin()
    return keeper


def move(circuit: CircuitBreaker, mode: Mode) -> None:
    """Lay an operator's mode over a circuit of this process; ``AUTO`` resets it."""
    match mode:
        case Mode.FORCED_OPEN:
            circuit.force_open()
        case Mode.DISABLED:
            circuit.disable()
        case _:
            circuit.reset()
