"""What the blocking driver does with the actions that need no network."""

from __future__ import annotations

import gc
import threading
import time
from queue import SimpleQueue
from typing import Any

import pytest

from ollama_bridge.core import exchanges
from ollama_bridge.core.actions import (
    Emit,
    FaultKind,
    Flow,
    Read,
    Sleep,
    TransportFault,
    Wait,
)
from ollama_bridge.core.limiter import Limiter, Ticket
from ollama_bridge.core.types import Delta
from ollama_bridge.transports import blocking
from ollama_bridge.transports.blocking import Conversation, drive, finish
from ollama_bridge.transports.pool import BlockingTransport
from tests.core.virtual import World, endpoint


@pytest.fixture
def conversation() -> Conversation:
    return Conversation(BlockingTransport(1))


def granted() -> Ticket:
    ticket = Limiter().enter(0.0, 60.0)
    assert ticket is not None
    return ticket


def waiting() -> Ticket:
    ticket = Ticket()
    ticket.waits = True
    return ticket


def asking(action: Any) -> Flow[Any]:
    return (yield action)


def perform(conversation: Conversation, action: Any) -> Any:
    return finish(drive(asking(action), conversation))


def test_a_slot_that_is_there_needs_no_wait(conversation: Conversation) -> None:
    assert perform(conversation, Wait(granted(), time.monotonic() + 60)) is True


def test_a_waiting_call_is_woken_when_its_slot_is_granted(conversation: Conversation) -> None:
    waiting = threading.Event()

    class Watched(Ticket):
        """Tells when somebody has left a way to be woken."""

        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, value)
            if name == "wake" and value is not None:
                waiting.set()

    ticket = Watched()
    ticket.waits = True

    def grant() -> None:
        waiting.wait(10)
        ticket.granted, ticket.waits = True, False
        assert ticket.wake is not None
        ticket.wake()

    granter = threading.Thread(target=grant)
    granter.start()
    assert perform(conversation, Wait(ticket, time.monotonic() + 60)) is True
    granter.join()


def test_a_wait_ends_with_its_time(conversation: Conversation) -> None:
    assert perform(conversation, Wait(waiting(), time.monotonic() + 0.02)) is False
    assert perform(conversation, Wait(waiting(), time.monotonic() - 1)) is False


def test_who_was_sent_away_before_the_wait_began_does_not_wait(conversation: Conversation) -> None:
    limiter = Limiter(1)
    limiter.enter(0.0, 60.0)
    ticket = limiter.enter(0.0, 60.0)
    assert ticket is not None
    limiter.dismiss()
    began = time.monotonic()
    assert perform(conversation, Wait(ticket, began + 60)) is False
    assert time.monotonic() - began < 30


def test_a_sleep_lasts_as_long_as_it_says(conversation: Conversation) -> None:
    started = time.monotonic()
    perform(conversation, Sleep(0.02))
    assert time.monotonic() - started >= 0.02


def test_a_flow_that_reads_before_it_opens_is_told_so(conversation: Conversation) -> None:
    with pytest.raises(TypeError, match="Read without Open"):
        perform(conversation, Read(time.monotonic() + 1))


def test_what_is_emitted_is_for_the_caller(conversation: Conversation) -> None:
    with pytest.raises(TypeError, match="iterate over drive"):
        perform(conversation, Emit(Delta("a")))
    with pytest.raises(TypeError, match="goes to the caller"):
        conversation.perform(Emit(Delta("a")))


class Recording:
    """A conversation in which everything fails, and what was done with it."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def perform(self, action: Any) -> None:
        self.done.append(type(action).__name__)
        raise TransportFault(FaultKind.SILENT)

    def close(self) -> None:
        self.done.append("close")


def test_a_connection_that_failed_is_closed_before_the_flow_goes_on() -> None:
    """Else the next caller would have its slot while the server is still at work for this one."""
    recording: Any = Recording()

    def steps() -> Flow[None]:
        try:
            yield Sleep(0)
        except TransportFault:
            recording.done.append("goes on")

    finish(drive(steps(), recording))
    assert recording.done[:3] == ["Sleep", "close", "goes on"]


def test_an_abandoned_connection_is_closed_before_the_flow_gives_its_slot_back() -> None:
    recording: Any = Recording()

    def steps() -> Flow[None]:
        try:
            yield Emit(Delta("Water"))
        finally:
            recording.done.append("slot")

    driven = drive(steps(), recording)
    next(driven)
    driven.close()
    assert recording.done == ["close", "slot"]


class CollectingQueue(SimpleQueue[None]):
    """The collector runs inside the wait, in the thread that waits."""

    def get(self, block: bool = True, timeout: float | None = None) -> None:
        gc.collect()
        super().get(block, timeout)


def test_a_slot_that_the_collector_gives_to_the_very_thread_that_waits_is_taken(
    conversation: Conversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World([endpoint(max_concurrency=1)])
    abandoned: list[object] = [world.flow(exchanges.whole)]
    next(abandoned[0])  # type: ignore[call-overload]  # it holds the only slot
    abandoned.append(abandoned)
    gc.disable()  # or it collects before anybody waits
    try:
        del abandoned
        second = world.flow(exchanges.whole)
        action = next(second)
        assert isinstance(action, Wait)
        monkeypatch.setattr(blocking, "SimpleQueue", CollectingQueue)
        assert perform(conversation, Wait(action.ticket, time.monotonic() + 20)) is True
    finally:
        gc.enable()
