"""An event loop for a whole benchmark, so that connections are kept from turn to turn."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator
    from contextlib import AbstractAsyncContextManager

T = TypeVar("T")


class Loop:
    """Runs coroutines one by one, and keeps what was entered until its end."""

    def __init__(self, runner: asyncio.Runner, stack: AsyncExitStack) -> None:
        self._runner = runner
        self._stack = stack

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    def enter(self, manager: AbstractAsyncContextManager[T]) -> T:
        return self._runner.run(self._stack.enter_async_context(manager))


@contextmanager
def event_loop() -> Iterator[Loop]:
    """Give a new loop for as long as the block lasts."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        try:
            yield Loop(runner, stack)
        finally:
            runner.run(stack.aclose())
