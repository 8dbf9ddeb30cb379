"""A port where nobody listens, and what a circuit needs to open there and stay open."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

FAILURES: Final = 5
"""So many open a circuit, ours and those of the peers."""

LONG: Final = 3600
"""Seconds for which it stays open: at least half of them, as chance has it."""


@contextmanager
def port() -> Iterator[str]:
    """Give the URL of a port that refuses connections; it is held, so nobody else gets it."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"
