"""Processes that share their circuits through one store, in virtual time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ollama_bridge.core.limiter import Ticket
from ollama_bridge.state.exchange import Exchange, Store

from .virtual import FakeClock, World, endpoint


@dataclass
class DictStore:
    """A store as simple as can be; ``log`` has every operation, ``fails`` decides which fail."""

    values: dict[str, str] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    fails: Callable[[str], bool] = lambda _: False

    def get_many(self, keys: Iterable[str]) -> Mapping[str, object]:
        self._do("get_many")
        return {key: self.values[key] for key in keys if key in self.values}

    def get(self, key: str) -> object:
        self._do("get")
        return self.values.get(key)

    def add(self, key: str, value: str, seconds: int) -> bool:  # noqa: ARG002
        self._do("add")
        is_new = key not in self.values
        self.values.setdefault(key, value)
        return is_new

    def set(self, key: str, value: str, seconds: int) -> None:  # noqa: ARG002
        self._do("set")
        self.values[key] = value

    def hang_up(self) -> None:
        """Have nothing to close."""

    def _do(self, operation: str) -> None:
        if self.fails(operation):
            raise ConnectionError(operation)
        self.log.append(operation)


class Home:
    """Hears and tells at once, in the thread of who asks; or, while ``late``, when told to."""

    is_shared = True

    def __init__(self) -> None:
        self.late = False
        self.deaf = False
        self.next = 0.0
        self.exchange: Exchange | None = None

    def hear(self, now: float, *, at_once: bool = False) -> Ticket | None:
        if now < self.next and not at_once:
            return None
        self.next = now + 0.5
        return self.claim(now)

    def claim(self, now: float) -> Ticket | None:  # noqa: ARG002
        if self.deaf:
            return None
        ticket = Ticket()
        ticket.waits = self.late
        ticket.granted = not self.late
        if not self.late:
            self.run()
        return ticket

    def hears(self, now: float) -> bool:  # noqa: ARG002
        return not self.deaf

    def wake(self) -> None:
        if not self.late and not self.deaf:
            self.run()

    def run(self) -> None:
        assert self.exchange is not None
        self.exchange.run()


def process(store: Store, time: FakeClock, name: str, **facts: Any) -> World:
    """Return a process of one endpoint, which shares its circuits in the store."""
    world = World([endpoint(**facts)], home=Home(), time=time)
    addresses = {"default": "http://default.test:11434"}
    world.home.exchange = Exchange(
        world.router.sharing, store, sender=name, addresses=addresses, wall=time
    )
    return world


def two(store: Store | None = None, **facts: Any) -> tuple[World, World]:
    store, time = store or DictStore(), FakeClock()
    return process(store, time, "one", **facts), process(store, time, "two", **facts)
