"""Callers in threads and on a loop: together, in turn, for a time, and interrupted."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from ollama_bridge import CircuitOpen
from ollama_bridge.core.types import ChatReply
from ollama_bridge.logs import calls, circuits
from ollama_bridge.reliability.askers import Answer
from ollama_bridge.reliability.crowd import Crowd
from ollama_bridge.reliability.quiet import EVERYTHING, silent, unlogged
from ollama_bridge.reliability.runners import EventLoop, Runner, Threads
from ollama_bridge.reliability.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

PATIENCE = 10.0
OK = Answer(ChatReply("OK"))


def nothing() -> None:
    """Watch without showing."""


def interrupted() -> None:
    raise KeyboardInterrupt


@pytest.fixture(params=[Threads, EventLoop])
def runner(request: pytest.FixtureRequest) -> Iterator[Runner]:
    with request.param() as made:
        yield made


@pytest.fixture
def threads() -> Runner:
    return Threads()


@pytest.fixture
def tally() -> Tally:
    return Tally()


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What calls wait for; open at the end, so that no thread stays behind."""
    event = threading.Event()
    yield event
    event.set()


def waiting_for(gate: threading.Event) -> Callable[[int], Awaitable[Answer]]:
    async def ask(_number: int) -> Answer:
        gate.wait(PATIENCE)
        return OK

    return ask


def meeting_of(callers: int, runner: Runner) -> Callable[[int], Awaitable[Answer]]:
    """Return a call that ends only when so many are under way together."""
    in_threads, on_loop = threading.Barrier(callers), asyncio.Barrier(callers)

    async def ask(_number: int) -> Answer:
        if isinstance(runner, Threads):
            in_threads.wait(PATIENCE)
        else:
            await asyncio.wait_for(on_loop.wait(), PATIENCE)
        return OK

    return ask


def caller_of(runner: Runner) -> object:
    return threading.get_ident() if isinstance(runner, Threads) else asyncio.current_task()


def test_all_callers_call_at_once(runner: Runner, tally: Tally) -> None:
    Crowd(runner, meeting_of(20, runner), tally, callers=20).run(nothing)
    figures = tally.figures()
    assert (figures.sent, figures.answered, figures.peak) == (20, 20, 20)


def test_one_caller_calls_in_turn_with_a_number_for_each_call(runner: Runner, tally: Tally) -> None:
    numbers: list[int] = []

    async def ask(number: int) -> Answer:
        numbers.append(number)
        return OK

    Crowd(runner, ask, tally, callers=1, each=5).run(nothing)
    assert numbers == [1, 2, 3, 4, 5]
    assert tally.figures().peak == 1


def test_for_a_time_they_call_again_and_again(runner: Runner, tally: Tally) -> None:
    callers: Counter[object] = Counter()

    async def ask(_number: int) -> Answer:
        callers[caller_of(runner)] += 1
        await runner.pause(0.01)  # a server's work
        return OK

    Crowd(runner, ask, tally, callers=2, seconds=0.3).run(nothing)
    assert len(callers) == 2
    assert min(callers.values()) > 1
    assert tally.figures().total >= 0.2


def test_who_is_refused_pauses_instead_of_asking_thousands_of_times(
    runner: Runner, tally: Tally
) -> None:
    async def ask(_number: int) -> Answer:
        raise CircuitOpen("OPEN", retry_after=60.0)

    Crowd(runner, ask, tally, callers=1, seconds=0.35).run(nothing)
    assert tally.figures().sent == 1  # and the pause ends with the time


def test_who_may_try_again_at_once_pauses_a_little(runner: Runner, tally: Tally) -> None:
    async def ask(_number: int) -> Answer:
        raise CircuitOpen("OPEN", retry_after=0.0)

    Crowd(runner, ask, tally, callers=1, seconds=0.35).run(nothing)
    assert 1 < tally.figures().sent <= 5


def test_a_defect_ends_all_and_is_shown(runner: Runner, tally: Tally) -> None:
    async def ask(number: int) -> Answer:
        raise LookupError(f"a defect in call {number}")

    with pytest.raises(LookupError, match="a defect in call"):
        Crowd(runner, ask, tally, callers=3, each=1000).run(nothing)
    assert tally.figures().sent <= 3


def test_a_defect_is_shown_while_others_are_under_way(
    threads: Runner, tally: Tally, gate: threading.Event
) -> None:
    async def ask(number: int) -> Answer:
        if number == 1:
            raise LookupError("a defect")
        return await waiting_for(gate)(number)

    with pytest.raises(LookupError):
        Crowd(threads, ask, tally, callers=3).run(nothing)
    assert not gate.is_set()
    assert tally.figures().answered == 0


def test_an_interrupt_waits_for_no_thread(
    threads: Runner, tally: Tally, gate: threading.Event
) -> None:
    crowd = Crowd(threads, waiting_for(gate), tally, callers=4, each=1000)
    with pytest.raises(KeyboardInterrupt):
        crowd.run(interrupted)
    figures = tally.figures()
    assert (figures.sent, figures.unfinished, figures.answered) == (4, 4, 0)


def test_after_an_interrupt_no_further_call_begins(
    threads: Runner, tally: Tally, gate: threading.Event
) -> None:
    before = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt):
        Crowd(threads, waiting_for(gate), tally, callers=4, each=1000).run(interrupted)
    gate.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(PATIENCE)
    assert tally.figures().sent == 4


def test_what_becomes_of_calls_after_an_interrupt_is_not_counted(
    threads: Runner, tally: Tally, gate: threading.Event
) -> None:
    """They fail for it, perhaps, and not for the server."""

    async def ask(number: int) -> Answer:
        gate.wait(PATIENCE)
        if number % 2:
            raise CircuitOpen("OPEN", retry_after=60.0)
        return OK

    before = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt):
        Crowd(threads, ask, tally, callers=4, seconds=60.0).run(interrupted)
    gate.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    figures = tally.figures()
    assert (figures.sent, figures.unfinished, figures.answered) == (4, 4, 0)
    assert figures.failures == ()


def test_an_interrupt_cancels_all_tasks(tally: Tally) -> None:
    ended: list[int] = []

    async def ask(number: int) -> Answer:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(number)
        return OK

    with EventLoop() as loop:
        crowd = Crowd(loop, ask, tally, callers=4, each=1000)
        with pytest.raises(KeyboardInterrupt):
            crowd.run(interrupted)
    assert sorted(ended) == [1, 2, 3, 4]
    figures = tally.figures()
    assert (figures.sent, figures.unfinished, figures.answered) == (4, 4, 0)


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


def test_where_nobody_shall_log_threads_that_were_there_before_do_not_either(
    logged: list[str],
) -> None:
    begun, ended = threading.Event(), threading.Event()

    def warn() -> None:
        begun.wait(10)
        calls.error("of another thread")
        ended.set()

    threading.Thread(target=warn).start()
    with silent(calls):
        begun.set()
        assert ended.wait(10)
        calls.error("of this thread")
        circuits.error("of another logger")
    calls.error("afterwards")
    assert logged == ["of another logger", "afterwards"]


def test_a_crowd_is_as_quiet_as_who_started_it(
    runner: Runner, tally: Tally, logged: list[str]
) -> None:
    async def ask(_number: int) -> Answer:
        calls.error("of a call")
        circuits.error("of the circuit")
        return OK

    with unlogged(calls):
        Crowd(runner, ask, tally, callers=2).run(nothing)
    assert logged == ["of the circuit"] * 2
