"""One exchange with the store: hear what others tell of our circuits, and tell what they must know.

Of each circuit the store keeps every generation under a key of its own, which is added and never
changed, and the newest that somebody knows of under another. Adding a key once is all that is asked
of the store, so this holds on Redis, Memcached and a database alike.
"""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING, Final, Protocol

from ..core.cooldown import endpoint_of
from .letters import Letter, decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ..core.breaker import Snapshot
    from ..core.sharing import Sharing

KEPT: Final = 3600
"""Seconds for which the store keeps a generation: longer than any open time or lease.

What lasts longer, a cooldown, is told again by whoever knows it, and is in the database.
"""

_PAUSES: Final = 0.0, 0.01, 0.02
"""Seconds before each try to add something: while others write, SQLite adds nothing at once."""


class Store(Protocol):
    """A cache of all processes. Its methods may block, and raise anything."""

    def get_many(self, keys: Iterable[str]) -> Mapping[str, object]: ...

    def get(self, key: str) -> object: ...

    def add(self, key: str, value: str, seconds: int) -> bool:
        """Store what is not there yet; tell whether it was not."""

    def set(self, key: str, value: str, seconds: int) -> None: ...

    def hang_up(self) -> None:
        """Close what this thread has opened."""


class KeepsNothingError(Exception):
    """A store that answers, and is of no use: full, or read-only."""


class Exchange:
    """What a process says to the others about its circuits, and hears of them.

    Args:
        sender: a name that no other process has.
        addresses: of the endpoints, by name: circuits of other servers are others.
    """

    def __init__(
        self,
        sharing: Sharing,
        store: Store,
        *,
        sender: str,
        addresses: Mapping[str, str],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._sharing = sharing
        self._store = store
        self._sender = sender
        self._addresses = addresses
        self._wall = wall

    def run(self) -> None:
        """Hear, then tell.

        Raises:
            Exception: the store failed; what was not told yet is still owed.
        """
        generations = self._sharing.generations()
        heads = {self._key(name): name for name in generations}
        told = self._store.get_many(heads)
        for key, name in heads.items():
            letter = decode(told.get(key))
            known = -1 if letter is None else letter.snapshot.generation
            if letter is not None and known > generations[name]:
                self._sharing.adopt(name, letter.aged(self._wall()))
            elif known < generations[name] and name not in self._sharing.untold:
                self._repeat(key, name)
        for name, snapshot in self._sharing.owed().items():
            self._tell(name, snapshot)

    def _tell(self, name: str, snapshot: Snapshot) -> None:
        head = self._key(name)
        text = self._written(snapshot)
        first = self._claim(f"{head}:{snapshot.generation}", text)
        if first is not None and first.sender != self._sender:
            self._sharing.adopt(name, first.aged(self._wall()), instead=True)
            return
        self._store.set(head, text, KEPT)
        self._sharing.told(name, snapshot.generation)

    def _claim(self, key: str, text: str) -> Letter | None:
        """Add a letter, and return the one that was there before it, if any.

        Raises:
            KeepsNothingError: the store neither takes it nor has another.
        """
        for pause in _PAUSES:
            time.sleep(pause)
            if self._store.add(key, text, KEPT):
                return None
            if (there := self._store.get(key)) is not None:
                letter = decode(there)
                if letter is None:  # nobody can read it, so nobody has been first
                    self._store.set(key, text, KEPT)
                return letter
        raise KeepsNothingError

    def _repeat(self, head: str, name: str) -> None:
        """Tell again what the store has lost."""
        snapshot = self._sharing.snapshot(name)
        if snapshot is not None and snapshot.generation:
            text = self._written(snapshot)
            self._store.add(f"{head}:{snapshot.generation}", text, KEPT)
            self._store.set(head, text, KEPT)

    def _written(self, snapshot: Snapshot) -> str:
        return encode(Letter(self._sender, snapshot, int(self._wall())))

    def _key(self, circuit: str) -> str:
        """Return the key of a circuit's newest generation: short, and of letters any store takes.

        A model's name may be anything, and may come from a visitor.
        """
        address = self._addresses[endpoint_of(circuit)]
        return hashlib.sha256(f"{address} {circuit}".encode()).hexdigest()[:32]
