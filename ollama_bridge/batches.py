"""Many calls, some at a time: answers in their order, errors in their place."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING, TypeAlias

from .core.actions import Cancelled
from .errors import OllamaBridgeError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .core.trip import Call
    from .core.types import ChatReply
    from .engine import Engine
    from .transports.blocking import Conversation

Answers: TypeAlias = "list[ChatReply | OllamaBridgeError]"


class _Batch:
    """What is left to ask, and what has come of the rest."""

    def __init__(self, calls: Sequence[Call], *, raise_on_error: bool) -> None:
        self._left = deque(enumerate(calls))
        self._answers: list[ChatReply | OllamaBridgeError | None] = [None] * len(calls)
        self._raise_on_error = raise_on_error
        self.failed: OllamaBridgeError | None = None

    def calls(self) -> Iterator[tuple[int, Call]]:
        """Yield what is left, each call to one caller only, until an error ends it all."""
        while self._left and self.failed is None:
            try:
                yield self._left.popleft()
            except IndexError:  # somebody else has the last one
                return

    def keep(self, number: int, answer: ChatReply | OllamaBridgeError) -> None:
        if isinstance(answer, OllamaBridgeError):
            answer = answer.with_traceback(None)  # its frames would be kept with the answers
        self._answers[number] = answer
        if self._raise_on_error and isinstance(answer, OllamaBridgeError):
            self.failed = self.failed or answer

    def answers(self) -> Answers:
        if self.failed is not None:
            raise self.failed
        return [answer for answer in self._answers if answer is not None]


def answer_many(
    engine: Engine, calls: Sequence[Call], most: int, *, raise_on_error: bool
) -> Answers:
    """Answer calls in ``most`` threads.

    Raises:
        OllamaBridgeError: the first, with ``raise_on_error``; the rest is cancelled.
    """
    batch = _Batch(calls, raise_on_error=raise_on_error)
    crew = _Crew(engine, batch)
    with ThreadPoolExecutor(min(most, len(calls)) or 1, "ollama_bridge batch") as threads:
        try:
            workers = [
                threads.submit(contextvars.copy_context().run, crew.work)
                for _ in range(min(most, len(calls)))
            ]
            for worker in as_completed(workers):
                worker.result()
        except BaseException:  # an interrupt: the threads would else be waited for
            crew.cancel()
            raise
    return batch.answers()


class _Crew:
    """The threads of a batch, and the conversations by which they can be cancelled."""

    def __init__(self, engine: Engine, batch: _Batch) -> None:
        self._engine = engine
        self._batch = batch
        self._lock = threading.Lock()
        self._talking: set[Conversation] = set()
        self._cancelled = False

    def work(self) -> None:
        for number, call in self._batch.calls():
            conversation = self._engine.conversation()
            with self._lock:
                self._talking.add(conversation)
                if self._cancelled:
                    return
            try:
                self._batch.keep(number, self._engine.answer(call, conversation))
            except OllamaBridgeError as error:
                self._batch.keep(number, error)
            except Cancelled:
                return
            finally:
                with self._lock:
                    self._talking.discard(conversation)
            if self._batch.failed is not None:
                self.cancel()

    def cancel(self) -> None:
        with self._lock:
            self._cancelled = True
            talking = list(self._talking)
        for conversation in talking:
            conversation.cancel()


async def aanswer_many(
    engine: Engine, calls: Sequence[Call], most: int, *, raise_on_error: bool
) -> Answers:
    """Answer calls in ``most`` tasks.

    Raises:
        OllamaBridgeError: the first, with ``raise_on_error``; the rest is cancelled.
    """
    batch = _Batch(calls, raise_on_error=raise_on_error)
    workers: list[asyncio.Task[None]] = []
    try:
        for _ in range(min(most, len(calls))):
            workers.append(asyncio.create_task(_work(engine, batch, workers)))
        if workers:
            await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        _cancel(workers)
        ended = await asyncio.gather(*workers, return_exceptions=True)
    answers = batch.answers()
    for error in ended:
        if error is not None:  # also a cancel that was not ours: some have no answer
            raise error
    return answers


async def _work(engine: Engine, batch: _Batch, workers: Sequence[asyncio.Task[None]]) -> None:
    for number, call in batch.calls():
        try:
            batch.keep(number, await engine.aanswer(call))
        except OllamaBridgeError as error:
            batch.keep(number, error)
        if batch.failed is not None:
            _cancel(workers)


def _cancel(workers: Sequence[asyncio.Task[None]]) -> None:
    for worker in workers:
        if worker is not asyncio.current_task():
            worker.cancel()
