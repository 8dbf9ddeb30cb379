"""Answers that are kept for later calls, in a store that may lose them at any time."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple, Protocol, TypeAlias

from ..core.answers import Lookup
from ..core.sharing import PATIENCE
from .courier import Courier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from ..core.limiter import Ticket

MOST_OWED: Final = 16 * 1024 * 1024
"""Characters of all answers that wait to be kept: what is more is not kept."""


class Store(Protocol):
    """A cache. Its methods may block, and raise anything."""

    def get_many(self, keys: Iterable[str]) -> Mapping[str, object]: ...

    def set(self, key: str, value: str, seconds: float) -> None: ...

    def hang_up(self) -> None:
        """Close what this thread has opened."""


class Keeping(NamedTuple):
    """What the store is to keep. It serves calls until then, so that none comes in between."""

    key: str
    text: str
    since: float
    seconds: float

    def __repr__(self) -> str:
        """Return nothing of the answer, for logs and error reports."""
        return f"Keeping(seconds={self.seconds!r})"

    def left(self, now: float) -> float:
        """Return the seconds for which it is still to be kept, 0 if it is too old.

        What was kept at once is kept for as long as was asked: most stores cut off parts of a
        second.
        """
        age = now - self.since
        return self.seconds - int(age) if age < self.seconds else 0.0


Errand: TypeAlias = "Lookup | Keeping"


class AnswerShelf(Courier[Errand]):
    """Looks for answers, and keeps them, in a thread of its own, which the first look starts.

    A look is not worth waiting for while the store is down, or has been busy for longer than a call
    waits for it. What cannot be kept then is not kept.

    Args:
        call: called with each lookup that is over, to call whoever waits for it.
    """

    _name: ClassVar = __name__
    _complaint: ClassVar = "Cannot reach the cache of answers, going on without it: %s"
    _relief: ClassVar = "The cache of answers is back"

    _owed: dict[str, Keeping]
    _owed_size: int
    _looking_since: float | None  # as long as somebody waits

    def __init__(
        self, store: Store, monotonic: Callable[[], float], call: Callable[[Ticket], None]
    ) -> None:
        super().__init__(monotonic)
        self._store = store
        self._call = call

    def look(self, key: str, now: float) -> Lookup | None:
        owed = self._owed.get(key)
        if owed is not None and owed.left(now):
            return Lookup(key, owed.text)
        since = self._looking_since
        is_late = since is not None and now >= since + PATIENCE
        if is_late or not self.hears(now, PATIENCE) or not self._is_running():
            return None
        if since is None:
            self._looking_since = now  # no lock: it is unset when this look is told, if not before
        lookup = Lookup(key)
        lookup.waits = True
        self._asked.put(lookup)
        return lookup

    def keep(self, key: str, text: str, seconds: float, now: float) -> None:
        if not self.hears(now) or not self._is_running():
            return
        with self._lock:
            if self._owed_size + len(text) > MOST_OWED:
                return
            self._owed_size += len(text)
        keeping = self._owed[key] = Keeping(key, text, now, seconds)
        self._asked.put(keeping)

    def _begin_again(self) -> None:
        super()._begin_again()
        self._owed = {}
        self._owed_size = 0
        self._looking_since = None

    def _go(self, asked: Sequence[Errand | None]) -> None:
        lookups = [each for each in asked if isinstance(each, Lookup)]
        if lookups:
            found = self._store.get_many({each.key for each in lookups})
            for lookup in lookups:
                lookup.text = found.get(lookup.key)
            self._tell(lookups)  # who waits does not wait for what is to be kept, too
        for each in asked:
            if isinstance(each, Keeping) and (left := each.left(self._monotonic())):
                self._store.set(each.key, each.text, left)

    def _tell(self, asked: Sequence[Errand | None]) -> None:
        self._looking_since = None
        for each in asked:
            if isinstance(each, Lookup):
                if each.waits:
                    self._call(each)
            elif each is not None:
                self._done(each)

    def _done(self, keeping: Keeping) -> None:
        with self._lock:
            self._owed_size -= len(keeping.text)
        if self._owed.get(keeping.key) is keeping:
            del self._owed[keeping.key]

    def _hang_up(self) -> None:
        self._store.hang_up()
