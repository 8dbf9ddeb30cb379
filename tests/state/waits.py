"""How long calls wait for what other processes know.

A busy machine makes any call late. These waits are what the store adds to it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from ollama_bridge.transports import aio
from ollama_bridge.transports.blocking import Conversation


@contextmanager
def recorded(waits: list[float]) -> Iterator[None]:
    """Add the seconds of every wait of a call while the block lasts."""
    wait, await_ = Conversation._wait_for, aio._wait

    def timed(conversation: Conversation, action: Any) -> bool:
        started = time.monotonic()
        try:
            return wait(conversation, action)
        finally:
            waits.append(time.monotonic() - started)

    async def atimed(action: Any) -> bool:
        started = time.monotonic()
        try:
            return await await_(action)
        finally:
            waits.append(time.monotonic() - started)

    with patch.object(Conversation, "_wait_for", timed), patch.object(aio, "_wait", atimed):
        yield
