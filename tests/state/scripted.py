"""A store that is slow, fails or hangs as a test wants."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.core.processes import DictStore

BOUND = 10.0


@dataclass
class ScriptedStore(DictStore):
    """Each operation waits until ``open`` is set, and raises while it is ``down``.

    ``asked`` is released with each operation that begins, ``hung_up`` with each end.
    """

    down: bool = False
    open: threading.Event = field(default_factory=threading.Event)
    asked: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    hung_up: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    count: int = 0
    ends_badly: bool = False

    def __post_init__(self) -> None:
        self.open.set()

    def hang_up(self) -> None:
        self.hung_up.release()
        if self.ends_badly:
            raise ConnectionError("gone before it was closed")

    def _do(self, operation: str) -> None:
        self.count += 1
        self.asked.release()
        assert self.open.wait(BOUND)
        if self.down:
            raise ConnectionError(operation)
        self.log.append(operation)


def threads(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]


def end_of(name: str) -> None:
    """Wait until no thread of this name is left."""
    for thread in threads(name):
        thread.join(BOUND)
        assert not thread.is_alive()


def await_(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + BOUND
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.001)
