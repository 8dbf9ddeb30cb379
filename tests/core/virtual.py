"""A world without network and without waiting: flows run against a script, in virtual time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ollama_bridge.core import exchanges, flow
from ollama_bridge.core.actions import (
    Action,
    Emit,
    FaultKind,
    Flow,
    Open,
    Read,
    Send,
    Sleep,
    TransportFault,
    Wait,
)
from ollama_bridge.core.breaker import BreakerPolicy
from ollama_bridge.core.deadline import Clock
from ollama_bridge.core.events import Event
from ollama_bridge.core.protocol import ChatRequest, messages_of
from ollama_bridge.core.retry import RetryPolicy
from ollama_bridge.core.router import Router
from ollama_bridge.core.routing import Plan, Route, plan_of
from ollama_bridge.core.trip import Call
from ollama_bridge.core.types import ChatReply, Delta, Endpoint, Head, Response, Target
from ollama_bridge.state.local import LocalHome

MESSAGE = {"role": "assistant", "content": "Water is wet."}
GOOD = {"model": "m", "message": MESSAGE, "done": True, "done_reason": "stop", "eval_count": 4}


def endpoint(name: str = "default", **facts: Any) -> Endpoint:
    defaults: dict[str, Any] = {
        "base_url": f"http://{name}.test:11434",
        "model": "m",
        "timeout": 60.0,
        "chunk_timeout": 30.0,
        "connect_timeout": 5.0,
        "max_response_bytes": 10_000,
        "pool_maxsize": 1,
        "retry": RetryPolicy(jitter="none"),
        "breaker": BreakerPolicy(),
    }
    return Endpoint(name=name, **{**defaults, **facts})


def everywhere(*endpoints: Endpoint, **facts: Any) -> Route:
    """Return a route to all of these endpoints, in turn where one fails."""
    targets = tuple(Target(each, each.model) for each in endpoints)
    return Route(facts.pop("name", "everywhere"), targets, **facts)


@dataclass
class FakeClock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now

    def clock(self) -> Clock:
        return Clock(self, self)


def reply(
    body: object = GOOD, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Response(status, headers or {"Content-Type": "application/json"}, content)


def stream(*lines: object, end: FaultKind | None = None) -> list[object]:
    """Return a script for an ``Open``: its head, its pieces, and how it ends."""
    pieces: list[object] = [
        line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines
    ]
    return [Head(200, {"Content-Type": "application/x-ndjson"}), *pieces, end or b""]


def delta(text: str, **facts: Any) -> dict[str, Any]:
    return {"model": "m", "message": {"role": "assistant", "content": text}, "done": False, **facts}


def last(**facts: Any) -> dict[str, Any]:
    return delta("", done=True, done_reason="stop", eval_count=2, **facts) | {"done": True}


# What a server does with a request: a reply, a fault, or more of a stream.
Step = Response | FaultKind | list[object]


@dataclass
class World:
    """Endpoints, a script of what they do, and a record of what they were asked."""

    endpoints: Iterable[Endpoint] = field(default_factory=lambda: [endpoint()])
    seconds: float = 0.1  # that each exchange takes
    home: Any = field(default_factory=LocalHome)
    plan: Plan | None = None
    time: FakeClock = field(default_factory=FakeClock)

    def __post_init__(self) -> None:
        self.script: list[Step] = []
        self.default: Step = reply()
        self.always: dict[str, Step | Callable[[], Step]] = {}  # by endpoint, what it does instead
        self.actions: list[Action] = []
        self.events: list[Event] = []
        self.pending: list[object] = []
        self.on_sleep: Callable[[], None] = lambda: None
        self.router = Router(
            self.plan or plan_of([*self.endpoints], [everywhere(*self.endpoints)]),
            clock=self.time.clock(),
            random=lambda: 0.0,
            observe=self.events.append,
            home=self.home,
        )

    @property
    def sent(self) -> list[Send | Open]:
        return [action for action in self.actions if isinstance(action, Send | Open)]

    @property
    def asked(self) -> list[str]:
        """The endpoint and model of every request, oldest first."""
        return [
            f"{a.endpoint.name}/{json.loads(a.request.body or b'')['model']}" for a in self.sent
        ]

    @property
    def slept(self) -> list[float]:
        return [action.seconds for action in self.actions if isinstance(action, Sleep)]

    def chat(self, **facts: Any) -> ChatReply:
        answer: ChatReply = self.run(self.flow(exchanges.whole, **facts))
        return answer

    def flow(
        self, exchange: flow.Exchange, *, model: str | None = None, **facts: Any
    ) -> Flow[ChatReply]:
        if model is not None:
            facts["models"] = (model,)
        request = ChatRequest(
            messages=messages_of("hi", "", ()), stream=exchange is exchanges.streamed
        )
        return flow.answer(
            self.router, Call(request=request, request_id="r", prompt_length=2, **facts), exchange
        )

    def stream(self, **facts: Any) -> tuple[list[Delta], ChatReply]:
        deltas: list[Delta] = []
        return deltas, self.run(self.flow(exchanges.streamed, **facts), deltas)

    def run(self, steps: Flow[Any], deltas: list[Delta] | None = None) -> Any:
        resume: Callable[[Any], Action] = steps.send
        value: Any = None
        while True:
            try:
                action = resume(value)
            except StopIteration as end:
                return end.value
            resume = steps.send
            self.actions.append(action)
            if isinstance(action, Emit) and deltas is not None:
                deltas.append(action.delta)
            try:
                value = self.perform(action)
            except TransportFault as fault:
                resume, value = steps.throw, fault

    def perform(self, action: Action) -> Any:
        match action:
            case Send() | Open():
                return self._exchange(action)
            case Read():
                return self._read(action)
            case Sleep():
                self.time.now += action.seconds
                self.on_sleep()
            case Wait():
                if action.ticket.waits:
                    self.time.now = action.until
                return action.ticket.granted
            case Emit():
                pass
        return None

    def _exchange(self, action: Send | Open) -> Response | Head:
        always = self.always.get(action.endpoint.name, self.default)
        step = self.script.pop(0) if self.script else always() if callable(always) else always
        self.time.now += self.seconds
        if isinstance(step, list):
            self.pending = step[1:]
            head = step[0]
            assert isinstance(head, Head)
            return head
        if isinstance(step, Response) and isinstance(action, Open):
            self.pending = [step.body, b""]
        result = self._result(step, action.until)
        assert isinstance(result, Head)
        return result

    def _read(self, action: Read) -> bytes:
        step = self.pending.pop(0)
        result = self._result(step, action.until)
        assert isinstance(result, bytes)
        return result

    def _result(self, step: Any, until: float) -> Any:
        if step is FaultKind.SILENT or step is FaultKind.SLOW:
            self.time.now = until
        if isinstance(step, FaultKind):
            raise TransportFault(step, "connection refused")
        return step
