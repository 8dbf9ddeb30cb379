"""What happened, for those who watch: logs now, metrics and signals as they come.

The core reports events to one observer, never under a lock. No event holds a prompt, an answer or a
key. Times are in seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from ..errors import OllamaBridgeError
    from .types import Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class CallStarted:
    prompt_length: int
    endpoint: str
    model: str
    request_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CallAnswered:
    seconds: float
    usage: Usage
    endpoint: str
    model: str
    request_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRepeated:
    """An attempt failed and is made again in ``delay`` seconds; ``number`` of ``most`` attempts."""

    number: int
    most: int
    delay: float
    error: OllamaBridgeError
    request_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFailed:
    """A call ended without an answer, after so many repeats."""

    repeats: int
    seconds: float
    error: OllamaBridgeError
    request_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRefused:
    """A call ended without an answer, and without a request: a circuit is open, say."""

    error: OllamaBridgeError
    request_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitOpened:
    """``circuit`` is an endpoint's name, or "endpoint/model"."""

    circuit: str
    failures: int
    seconds: float
    last_error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitProbing:
    circuit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitClosed:
    circuit: str


Event: TypeAlias = (
    CallStarted
    | CallAnswered
    | AttemptRepeated
    | CallFailed
    | CallRefused
    | CircuitOpened
    | CircuitProbing
    | CircuitClosed
)
Observer: TypeAlias = Callable[[Event], None]
