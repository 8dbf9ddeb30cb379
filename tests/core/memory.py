"""Calls that may do with the answers of others, in virtual time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from ollama_bridge.core import exchanges, flow
from ollama_bridge.core.actions import Action, Emit, Flow, Open, Read, Send, TransportFault, Wait
from ollama_bridge.core.answers import Answers, Lookup, remembered
from ollama_bridge.core.protocol import ChatRequest, messages_of
from ollama_bridge.core.trip import Caching, Call
from ollama_bridge.core.types import ChatReply, Delta

from .virtual import World

FOR_ALL = Caching(300.0, "shared")


class DictShelf:
    """Keeps everything for ever, and finds it at once; or later, while it is ``slow``."""

    def __init__(self) -> None:
        self.kept: dict[str, tuple[str, float]] = {}
        self.looked: list[str] = []
        self.slow = False
        self.deaf = False
        self.left = False

    def look(self, key: str, now: float) -> Lookup | None:  # noqa: ARG002  # for ever
        if self.deaf:
            return None
        self.looked.append(key)
        lookup = Lookup(key, None if self.slow else self.found(key))
        lookup.waits = self.slow
        return lookup

    def keep(self, key: str, text: str, seconds: float, now: float) -> None:  # noqa: ARG002
        self.kept[key] = text, seconds

    def found(self, key: str) -> str | None:
        return self.kept.get(key, (None,))[0]

    def leave(self) -> None:
        self.left = True

    def after_fork(self) -> None:
        """Have nothing to begin again."""


class Asker:
    """A call under way; ``action`` is what it waits for, None once it has ended."""

    def __init__(self, steps: Flow[ChatReply]) -> None:
        self.steps = steps
        self.action: Action | None = None
        self.reply: ChatReply | None = None
        self.error: BaseException | None = None
        self._do(lambda: next(steps))

    @property
    def waiting(self) -> Wait:
        assert isinstance(self.action, Wait)
        return self.action

    @property
    def reading(self) -> Read:
        assert isinstance(self.action, Read)
        return self.action

    @property
    def asking(self) -> Send | Open:
        assert isinstance(self.action, Send | Open)
        return self.action

    @property
    def is_asking(self) -> bool:
        return isinstance(self.action, Send | Open)

    @property
    def delta(self) -> Delta:
        assert isinstance(self.action, Emit)
        return self.action.delta

    @property
    def lookup(self) -> Lookup | None:
        """What it waits for of the store."""
        ticket = self.action.ticket if isinstance(self.action, Wait) else None
        return ticket if isinstance(ticket, Lookup) else None

    def resumed(self) -> Self:
        """Go on after a wait, as drivers do."""
        self.send(self.waiting.ticket.granted)
        return self

    def send(self, value: object = None) -> Action | None:
        return self._do(lambda: self.steps.send(value))

    def fail(self, fault: TransportFault) -> Action | None:
        return self._do(lambda: self.steps.throw(fault))

    def leave(self) -> None:
        self.action = None
        self.steps.close()

    def _do(self, step: Callable[[], Action]) -> Action | None:
        self.action = None
        try:
            self.action = step()
        except StopIteration as end:
            self.reply = end.value
        except Exception as error:  # noqa: BLE001  # to be looked at
            self.error = error
        return self.action


class Memory:
    """A world whose calls share answers."""

    def __init__(self, world: World | None = None) -> None:
        self.world = world or World()
        self.shelf = DictShelf()
        self.answers = Answers(self.world.router, self.shelf)

    def steps(
        self,
        message: str = "hi",
        *,
        exchange: flow.Exchange = exchanges.whole,
        caching: Caching = FOR_ALL,
        request: dict[str, Any] | None = None,
        **facts: Any,
    ) -> Flow[ChatReply]:
        asked = ChatRequest(
            messages=messages_of(message, "", ()),
            stream=exchange is exchanges.streamed,
            **(request or {}),
        )
        call = Call(request=asked, request_id="r", caching=caching, **facts)
        return remembered(self.world.router, call, caching, exchange, self.answers)

    def begin(self, message: str = "hi", **facts: Any) -> Asker:
        return Asker(self.steps(message, **facts))

    def stream(self, message: str = "hi", **facts: Any) -> Asker:
        return self.begin(message, exchange=exchanges.streamed, **facts)

    def chat(self, message: str = "hi", **facts: Any) -> ChatReply:
        """Return the reply of a call that waits for nobody else."""
        found: ChatReply = self.world.run(self.steps(message, **facts))
        return found

    @property
    def requests(self) -> int:
        return len(self.world.sent)
