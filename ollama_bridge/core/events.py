"""What happened, for those who watch: logs now, metrics and signals as they come.

The core reports events to one observer, never under a lock. No event holds a prompt, an answer or a
key. Times are in seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from ..errors import OllamaBridgeError
    from .breaker import Mode, State
    from .types import Usage


class CallStarted(NamedTuple):
    prompt_length: int
    endpoint: str
    model: str
    request_id: str


class CallAnswered(NamedTuple):
    seconds: float
    usage: Usage
    endpoint: str
    model: str
    request_id: str


class AttemptRepeated(NamedTuple):
    """An attempt failed and is made again in ``delay`` seconds; ``number`` of ``most`` attempts."""

    number: int
    most: int
    delay: float
    error: OllamaBridgeError
    request_id: str


class CallFailed(NamedTuple):
    """A call ended without an answer, after so many repeats."""

    repeats: int
    seconds: float
    error: OllamaBridgeError
    request_id: str


class CallRefused(NamedTuple):
    """A call ended without an answer, and without a request: a circuit is open, say."""

    error: OllamaBridgeError
    request_id: str


class CallCancelled(NamedTuple):
    """The caller left before the end: a visitor who closes the page, say."""

    seconds: float
    endpoint: str
    model: str
    request_id: str


class CircuitOpened(NamedTuple):
    """``circuit`` is an endpoint's name, or "endpoint/model"."""

    circuit: str
    failures: int
    seconds: float
    last_error: str


class CircuitProbing(NamedTuple):
    circuit: str


class CircuitClosed(NamedTuple):
    circuit: str


class CircuitFollowed(NamedTuple):
    """A circuit is as another process has told."""

    circuit: str
    state: State
    mode: Mode


Event: TypeAlias = (
    CallStarted
    | CallAnswered
    | AttemptRepeated
    | CallFailed
    | CallRefused
    | CallCancelled
    | CircuitOpened
    | CircuitProbing
    | CircuitClosed
    | CircuitFollowed
)
Observer: TypeAlias = Callable[[Event], None]
