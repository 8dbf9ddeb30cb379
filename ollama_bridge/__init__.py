"""Reliable chat from Ollama for Django.

::

    from ollama_bridge import ollama_client

    reply = ollama_client.chat("What is water?")

Importing this package loads neither Django nor an HTTP library: names are looked up when used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .availability import check_availability
    from .client import OllamaClient, ollama_client
    from .core.types import ChatReply, Delta
    from .errors import (
        AllEndpointsFailed,
        AuthenticationFailed,
        CircuitOpen,
        ConnectionFailed,
        ContextTooLong,
        InvalidReply,
        ModelNotFound,
        OllamaBridgeError,
        OutputInvalid,
        Overloaded,
        QuotaExhausted,
        RateLimited,
        RequestDeferred,
        RequestRejected,
        ServerFailed,
        StreamInterrupted,
        Timeout,
    )
    from .retrying import retry_on_ollama_failure
    from .streams import AsyncChatStream, ChatStream

__version__ = "0.1.0"

__all__ = [
    "AllEndpointsFailed",
    "AsyncChatStream",
    "AuthenticationFailed",
    "ChatReply",
    "ChatStream",
    "CircuitOpen",
    "ConnectionFailed",
    "ContextTooLong",
    "Delta",
    "InvalidReply",
    "ModelNotFound",
    "OllamaBridgeError",
    "OllamaClient",
    "OutputInvalid",
    "Overloaded",
    "QuotaExhausted",
    "RateLimited",
    "RequestDeferred",
    "RequestRejected",
    "ServerFailed",
    "StreamInterrupted",
    "Timeout",
    "check_availability",
    "ollama_client",
    "retry_on_ollama_failure",
]

_HOMES = {
    "AsyncChatStream": ".streams",
    "ChatReply": ".core.types",
    "ChatStream": ".streams",
    "Delta": ".core.types",
    "OllamaClient": ".client",
    "check_availability": ".availability",
    "ollama_client": ".client",
    "retry_on_ollama_failure": ".retrying",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES.get(name, ".errors"), __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
