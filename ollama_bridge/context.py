"""What belongs to the request being served, for whoever needs it further down."""

from __future__ import annotations

import os
from contextvars import ContextVar

request_id: ContextVar[str] = ContextVar("ollama_bridge.request_id", default="")


def current_request_id() -> str:
    """Return the identifier of the request being served, or a new one outside of any."""
    return request_id.get() or os.urandom(16).hex()
