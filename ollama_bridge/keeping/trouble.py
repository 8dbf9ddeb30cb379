"""Complaints about the database: once, until it gets worse or better."""

from __future__ import annotations

import logging
from typing import Final

from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError

logger = logging.getLogger("ollama_bridge.keeping")
NOTHING: Final = {"endpoint": "", "model": "", "code": "", "request_id": ""}


class NoTableError(DatabaseError):
    """The site has not been migrated yet."""


class Trouble:
    """Something that may not work for a while.

    Args:
        line: what is said then, before the error.
        relief: what is said when it works again.
    """

    def __init__(self, line: str, relief: str) -> None:
        self._line = f"{line}: %s: %s"
        self._relief = relief
        self._told = logging.NOTSET

    def tell(self, error: Exception) -> None:
        level = _weight_of(error)
        if level > self._told:
            self._told = level
            logger.log(level, self._line, type(error).__name__, error, extra=NOTHING)

    def end(self) -> None:
        if self._told >= logging.WARNING:
            logger.info(self._relief, extra=NOTHING)
        self._told = logging.NOTSET


def _weight_of(error: Exception) -> int:
    """Return the level that an error deserves.

    Sites without a database, sites that have not migrated yet, and tests that forbid the database
    (pytest-django raises ``RuntimeError``) need no alarm.
    """
    harmless = ImproperlyConfigured, RuntimeError, AssertionError, NoTableError
    return logging.DEBUG if isinstance(error, harmless) else logging.WARNING
