"""Threads and a loop: what runs there, what is left, and what is behind them afterwards."""

from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING

import pytest

from ollama_bridge.reliability.runners import EventLoop, Runner, Threads

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 10.0
word: ContextVar[str] = ContextVar("word", default="")


@pytest.fixture(params=[Threads, EventLoop])
def runner(request: pytest.FixtureRequest) -> Iterator[Runner]:
    with request.param() as made:
        yield made


async def who() -> int:
    return threading.get_ident()


async def said() -> str:
    return word.get()


async def fails() -> None:
    raise LookupError("a defect")


def test_work_is_run_to_its_end(runner: Runner) -> None:
    assert isinstance(runner.run(who()), int)
    with pytest.raises(LookupError):
        runner.run(fails())


def test_work_has_the_context_of_who_began_it(runner: Runner) -> None:
    token = word.set("quiet")
    [begun] = runner.start(said)
    try:
        assert runner.run(said()) == begun.result(PATIENCE) == "quiet"
    finally:
        word.reset(token)


def test_what_was_started_tells_how_it_ended(runner: Runner) -> None:
    first, second = runner.start(fails, 2)
    for each in (first, second):
        assert isinstance(each.exception(PATIENCE), LookupError)


def test_each_piece_of_work_has_a_thread_of_its_own_or_all_have_one_loop() -> None:
    together = threading.Barrier(5)

    async def meets() -> int:
        together.wait(PATIENCE)
        return threading.get_ident()

    with Threads() as threads:
        assert len({each.result(PATIENCE) for each in threads.start(meets, 5)}) == 5
    with EventLoop() as loop:
        assert len({each.result(PATIENCE) for each in loop.start(who, 5)}) == 1


def test_in_a_thread_nothing_waits_for_a_loop() -> None:
    with pytest.raises(TypeError, match="cannot wait for a loop"):
        Threads().run(asyncio.sleep(0))


def test_without_a_further_thread_nobody_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    start, started = threading.Thread.start, list[threading.Thread]()
    begun: list[int] = []

    def third_fails(self: threading.Thread) -> None:
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        started.append(self)
        start(self)

    async def work() -> None:
        begun.append(1)

    monkeypatch.setattr(threading.Thread, "start", third_fails)
    with pytest.raises(RuntimeError, match="can't start"):
        Threads().start(work, 3)
    for each in started:
        each.join(PATIENCE)
    assert (len(started), begun) == (2, [])


def test_after_the_block_nothing_runs_on_the_loop_and_its_thread_is_gone() -> None:
    ended = threading.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    before = threading.active_count()
    with EventLoop() as loop:
        [begun] = loop.start(work)
        loop.run(asyncio.sleep(0))  # by now it waits
        assert not begun.done()
    assert ended.is_set()
    assert threading.active_count() == before


def test_an_interrupt_of_who_waits_cancels_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    started, cancelled = threading.Event(), threading.Event()

    async def work() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    def interrupted(_future: object) -> None:
        started.wait(PATIENCE)
        raise KeyboardInterrupt

    monkeypatch.setattr("concurrent.futures.Future.result", interrupted)
    with EventLoop() as loop:
        with pytest.raises(KeyboardInterrupt):
            loop.run(work())
        assert cancelled.wait(PATIENCE)
