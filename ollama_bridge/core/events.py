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
    from .quota import Source
    from .types import Target, Usage


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


class CallRemembered(NamedTuple):
    """A call was answered with what another one had been, so it took no tokens."""

    seconds: float
    endpoint: str
    model: str
    request_id: str


class AttemptRepeated(NamedTuple):
    """What failed is tried again in ``delay`` seconds: attempt ``number`` of ``most``.

    A call to several endpoints counts its rounds, each of which may be several attempts.
    """

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


class CooldownBegan(NamedTuple):
    """An endpoint is left alone for so long; ``is_told`` by another process."""

    endpoint: str
    code: str
    seconds: float
    is_told: bool = False


class CooldownProbed(NamedTuple):
    """An endpoint's allowance should be back, and one call tries whether it is."""

    endpoint: str


class CooldownEnded(NamedTuple):
    """An endpoint may be asked again; ``is_stored`` where the database has told so."""

    endpoint: str
    is_told: bool = False
    is_stored: bool = False


class ModelSkipped(NamedTuple):
    """A call goes elsewhere, since an endpoint does not have the model.

    ``is_cloud`` tells that nobody can pull it there.
    """

    endpoint: str
    model: str
    is_cloud: bool = False


class StrategyFailed(NamedTuple):
    """A route's strategy failed, so its targets are tried in the order of the settings.

    ``error`` says what failed and where.
    """

    route: str
    error: str


class QuotaLow(NamedTuple):
    """An account has little left of an allowance; once for each of its windows.

    ``used`` is the share that is used up, ``resets_at`` when it comes back, on the wall clock; the
    rest is as in ``Quota``.
    """

    endpoint: str
    used: float
    source: Source
    window: str
    resets_at: float | None = None


class CallFailedOver(NamedTuple):
    """A call goes on at ``to``, since ``error`` stood in its way; ``was_sent`` where it did."""

    error: OllamaBridgeError
    to: Target
    was_sent: bool
    request_id: str


Event: TypeAlias = (
    CallStarted
    | CallAnswered
    | CallRemembered
    | AttemptRepeated
    | CallFailed
    | CallRefused
    | CallCancelled
    | CircuitOpened
    | CircuitProbing
    | CircuitClosed
    | CircuitFollowed
    | CooldownBegan
    | CooldownProbed
    | CooldownEnded
    | ModelSkipped
    | StrategyFailed
    | QuotaLow
    | CallFailedOver
)
Observer: TypeAlias = Callable[[Event], None]
