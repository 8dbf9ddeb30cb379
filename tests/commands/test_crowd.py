"""Callers in threads: together, in turn, for a time, and interrupted."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from ollama_bridge import CircuitOpen
from ollama_bridge.core.types import ChatReply
from ollama_bridge.logs import calls, circuits
from ollama_bridge.reliability.crowd import Crowd
from ollama_bridge.reliability.quiet import EVERYTHING, unlogged
from ollama_bridge.reliability.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE = 10.0


def nothing() -> None:
    """Watch without showing."""


@pytest.fixture
def tally() -> Tally:
    return Tally()


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What calls wait for; open at the end, so that no thread stays behind."""
    event = threading.Event()
    yield event
    event.set()


def waiting_for(gate: threading.Event) -> Callable[[int], ChatReply]:
    def ask(_number: int) -> ChatReply:
        gate.wait(PATIENCE)
        return ChatReply("OK")

    return ask


def test_all_callers_call_at_once(tally: Tally) -> None:
    """Each call waits for all the others, so it ends only if they are under way together."""
    together = threading.Barrier(20)

    def ask(_number: int) -> ChatReply:
        together.wait(PATIENCE)
        return ChatReply("OK")

    Crowd(ask, tally, callers=20).run(nothing)
    figures = tally.figures()
    assert (figures.sent, figures.answered, figures.peak) == (20, 20, 20)


def test_one_caller_calls_in_turn_with_a_number_for_each_call(tally: Tally) -> None:
    numbers: list[int] = []

    def ask(number: int) -> ChatReply:
        numbers.append(number)
        return ChatReply("OK")

    Crowd(ask, tally, callers=1, each=5).run(nothing)
    assert numbers == [1, 2, 3, 4, 5]
    assert tally.figures().peak == 1


def test_for_a_time_they_call_again_and_again(tally: Tally) -> None:
    callers: Counter[int] = Counter()

    def ask(_number: int) -> ChatReply:
        callers[threading.get_ident()] += 1
        time.sleep(0.01)  # a server's work
        return ChatReply("OK")

    Crowd(ask, tally, callers=2, seconds=0.3).run(nothing)
    assert len(callers) == 2
    assert min(callers.values()) > 1
    assert tally.figures().total >= 0.2


def test_who_is_refused_pauses_instead_of_asking_thousands_of_times(tally: Tally) -> None:
    def ask(_number: int) -> ChatReply:
        raise CircuitOpen("OPEN", retry_after=60.0)

    Crowd(ask, tally, callers=1, seconds=0.35).run(nothing)
    assert tally.figures().sent == 1  # and the pause ends with the time


def test_who_may_try_again_at_once_pauses_a_little(tally: Tally) -> None:
    def ask(_number: int) -> ChatReply:
        raise CircuitOpen("OPEN", retry_after=0.0)

    Crowd(ask, tally, callers=1, seconds=0.35).run(nothing)
    assert 1 < tally.figures().sent <= 5


def test_a_defect_ends_all_and_is_shown(tally: Tally) -> None:
    def ask(number: int) -> ChatReply:
        raise LookupError(f"a defect in call {number}")

    with pytest.raises(LookupError, match="a defect in call"):
        Crowd(ask, tally, callers=3, each=1000).run(nothing)
    assert tally.figures().sent <= 3


def test_an_interrupt_waits_for_nobody(tally: Tally, gate: threading.Event) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    crowd = Crowd(waiting_for(gate), tally, callers=4, each=1000)
    with pytest.raises(KeyboardInterrupt):
        crowd.run(interrupted)
    figures = tally.figures()
    assert (figures.sent, figures.unfinished, figures.answered) == (4, 4, 0)


def test_after_an_interrupt_no_further_call_begins(tally: Tally, gate: threading.Event) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    before = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt):
        Crowd(waiting_for(gate), tally, callers=4, each=1000).run(interrupted)
    gate.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(PATIENCE)
    assert tally.figures().sent == 4


class Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


@pytest.fixture
def logged() -> Iterator[list[str]]:
    handler = Lines()
    for logger in (calls, circuits):
        logger.addHandler(handler)
    yield handler.said
    for logger in (calls, circuits):
        logger.removeHandler(handler)


def test_what_is_not_to_be_logged_is_not_and_other_threads_go_on(logged: list[str]) -> None:
    other = threading.Thread(target=circuits.error, args=("of another thread",))
    with unlogged(*EVERYTHING):
        calls.error("of this thread")
        circuits.error("of this thread")
        other.start()
        other.join()
    circuits.error("afterwards")
    assert logged == ["of another thread", "afterwards"]


def test_the_threads_of_a_crowd_are_as_quiet_as_who_started_it(
    tally: Tally, logged: list[str]
) -> None:
    def ask(_number: int) -> ChatReply:
        calls.error("of a call")
        circuits.error("of the circuit")
        return ChatReply("OK")

    with unlogged(calls):
        Crowd(ask, tally, callers=2).run(nothing)
    assert logged == ["of the circuit"] * 2
