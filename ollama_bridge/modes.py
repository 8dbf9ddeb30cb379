"""The modes that operators have stored, laid over the circuits of this process.

One daemon thread for each running engine of ``ollama_client`` reads them every few seconds, on a
connection of its own, so that no call ever waits for the database; only the first one waits for the
first look, ``PATIENCE`` seconds at most. A database that is down, read-only, without our table or
forbidden (as in tests) fails no call: the thread goes on with what it knows and looks again.

What it does with a row: at its first look, it applies ``forced_open`` and ``disabled``. Later, it
applies each new revision, and ``auto`` means reset. Between revisions, a mode that code has set in
this process stays.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Final, NamedTuple

from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from .models import EndpointState, Mode, database

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .circuits import CircuitBreaker
    from .client import Governing

EVERY: float = 4.5
"""Seconds between looks, so that with the look itself every process knows within 5 seconds."""

PATIENCE: Final = 0.5
"""The most seconds that anybody waits for a look."""

logger = logging.getLogger(__name__)


class Wish(NamedTuple):
    """A row as it was read."""

    name: str
    mode: str
    revision: int


class Watch:
    """Moves the circuits of one engine as operators wish. Thread-safe.

    Attributes:
        known: the wishes at the last look that succeeded, by endpoint; None before it.
    """

    def __init__(
        self,
        circuits: Callable[[], Mapping[str, CircuitBreaker]],
        known: Mapping[str, Wish] | None,
    ) -> None:
        self.known = known
        self._circuits = circuits
        self._looking = threading.Lock()
        self._looked = threading.Event()
        self._ended = threading.Event()
        self._complained = logging.NOTSET
        self._thread = threading.Thread(target=self._run, name=__name__, daemon=True)

    def begin(self) -> None:
        """Apply what is known, then look, and go on looking; return after the first look."""
        for wish in (self.known or {}).values():
            if wish.mode != Mode.AUTO:
                self._apply(wish)  # no news to log; the client's lock is held
        try:
            self._thread.start()
        except RuntimeError as error:  # no more threads, or the interpreter is about to end
            self._complain(error)
        else:
            self._looked.wait(PATIENCE)

    def end(self) -> None:
        self._ended.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(PATIENCE)

    def look(self, changed: str = "") -> None:
        """Read the wishes and fulfil the new ones; never raises.

        ``changed`` names an endpoint whose row is new for sure, even at a first look.
        """
        if not self._looking.acquire(timeout=PATIENCE):
            return  # somebody's look takes long: the database hangs
        try:
            self._fulfil_all(_read(), changed)
        except Exception as error:  # noqa: BLE001  # whatever a database does, calls go on
            self._complain(error)
        else:
            self._be_content()
        finally:
            self._looking.release()

    def _run(self) -> None:
        while not self._ended.is_set():
            self.look()
            self._looked.set()
            _hang_up()
            self._ended.wait(EVERY)

    def _fulfil_all(self, stored: Mapping[str, Wish], changed: str) -> None:
        known = self.known or {}
        for name, wish in stored.items():
            is_first = self.known is None and wish.mode == Mode.AUTO and name != changed
            if known.get(name) != wish and not is_first:
                self._fulfil(wish)
        for name in known.keys() - stored.keys():
            if known[name].mode != Mode.AUTO:
                self._fulfil(Wish(name, Mode.AUTO, 0))
        self.known = stored

    def _apply(self, wish: Wish) -> bool:
        circuit = self._circuits().get(wish.name)
        if circuit is None or wish.mode not in Mode.values:
            return False  # of other settings, or of a newer version
        move(circuit, Mode(wish.mode))
        return True

    def _fulfil(self, wish: Wish) -> None:
        if not self._apply(wish):
            return
        facts = {"endpoint": wish.name, "model": "", "code": "", "request_id": ""}
        logger.info("Circuit breaker: an operator's mode is now %s", wish.mode, extra=facts)

    def _complain(self, error: Exception) -> None:
        """Log why there are no modes to read: once, until it gets worse or better."""
        level = _weight_of(error)
        if level > self._complained:
            self._complained = level
            line = "Cannot read the modes of endpoints, going on with those known: %s: %s"
            logger.log(level, line, type(error).__name__, error, extra=NOTHING)

    def _be_content(self) -> None:
        if self._complained >= logging.WARNING:
            logger.info("The modes of endpoints can be read again", extra=NOTHING)
        self._complained = logging.NOTSET


NOTHING: Final = {"endpoint": "", "model": "", "code": "", "request_id": ""}


def govern(circuits: Callable[[], Mapping[str, CircuitBreaker]], before: Governing | None) -> Watch:
    """Begin to move these circuits as operators wish; ``before`` did so until now, and knows."""
    watch = Watch(circuits, before.known if isinstance(before, Watch) else None)
    watch.begin()
    return watch


def move(circuit: CircuitBreaker, mode: Mode) -> None:
    """Lay an operator's mode over a circuit of this process; ``AUTO`` resets it."""
    match mode:
        case Mode.FORCED_OPEN:
            circuit.force_open()
        case Mode.DISABLED:
            circuit.disable()
        case _:
            circuit.reset()


def is_migrated() -> bool:
    """Tell whether our table exists.

    Raises:
        DatabaseError: the database does not answer.
    """
    connection = connections[database()]
    return EndpointState._meta.db_table in connection.introspection.table_names()  # noqa: SLF001  # Django's public _meta


class _NoTableError(DatabaseError):
    """The site has not been migrated yet."""


def _read() -> dict[str, Wish]:
    """Return the wishes; a table that was missing may have been made in this very moment."""
    try:
        return _stored()
    except DatabaseError as error:
        if not _has_table():
            raise _NoTableError from error
        return _stored()


def _stored() -> dict[str, Wish]:
    rows = EndpointState.objects.using(database()).values_list("name", "mode", "revision")
    return {row[0]: Wish(*row) for row in rows}


def _hang_up() -> None:
    """Close this thread's connections: none goes stale, and a test database can be dropped."""
    for connection in connections.all(initialized_only=True):
        try:
            connection.close()
            if connection.connection is not None:
                # SQLite in memory, as in tests, where Django's own close() does nothing.
                BaseDatabaseWrapper.close(connection)
        except Exception as error:  # noqa: BLE001  # it was to be thrown away anyway
            logger.debug("A connection did not close: %s", error, extra=NOTHING)


def _weight_of(error: Exception) -> int:
    """Return the level that an error deserves.

    Sites without a database, sites that have not migrated yet, and tests that forbid the database
    (pytest-django raises ``RuntimeError``) need no alarm.
    """
    harmless = ImproperlyConfigured, RuntimeError, AssertionError, _NoTableError
    return logging.DEBUG if isinstance(error, harmless) else logging.WARNING


def _has_table() -> bool:
    """Tell whether our table exists, or nobody can tell."""
    try:
        return is_migrated()
    except Exception:  # noqa: BLE001  # the database is down, as it was for the look before
        return True
