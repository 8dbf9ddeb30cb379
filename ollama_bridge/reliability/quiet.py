"""Lines of a test that do not belong into the log.

Logs are alarmed on. A drill opens a circuit on purpose, so its lines would be a false alarm; and
the report already says what became of the calls that the test makes.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from ..logs import calls, circuits, failovers, quotas

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_unsaid: ContextVar[frozenset[str]] = ContextVar(
    "ollama_bridge.reliability.unsaid", default=frozenset()
)


class _Silence(logging.Filter):
    """Drops everything."""

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002  # of any thread
        return False


class _Discretion(logging.Filter):
    """Drops what this thread shall not say; other threads of the process say theirs."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.name not in _unsaid.get()


@contextmanager
def unlogged(*loggers: logging.Logger) -> Iterator[None]:
    """Within the block this thread, and threads with a copy of its context, log nothing there."""
    token = _unsaid.set(_unsaid.get() | {each.name for each in loggers})
    try:
        with _filtered(_Discretion(), loggers):
            yield
    finally:
        _unsaid.reset(token)


@contextmanager
def silent(*loggers: logging.Logger) -> Iterator[None]:
    """Within the block nobody logs anything there, not even threads that were there before.

    That is for a command that is all its process does.
    """
    with _filtered(_Silence(), loggers):
        yield


@contextmanager
def _filtered(by: logging.Filter, loggers: Iterable[logging.Logger]) -> Iterator[None]:
    for each in loggers:
        each.addFilter(by)
    try:
        yield
    finally:
        for each in loggers:
            each.removeFilter(by)


EVERYTHING = (calls, circuits, failovers, quotas)
CALLS = (calls, failovers)
