"""What the parts of the test have found: facts only; ``judgement`` says what they are worth."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from ..core.health import HealthReport
    from .plan import Act, Profile
    from .tally import Figures

CallPart = Literal["sequential", "concurrent", "failover"]
Part = Literal["health", CallPart, "pooling", "retries", "recovery", "cuts"]

# How often a drill repeats a call that shall go well, or be refused.
TRIES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooling:
    """Calls one after the other, and the connections that brought them to the server."""

    calls: int
    answered: int
    requests: int
    connections: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrying:
    """Calls to a server that fails every first attempt with this status.

    ``status`` is None where the settings let no status be repeated; then no call was made.
    """

    max_retries: int
    status: int | None
    calls: int = 0
    answered: int = 0
    requests: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cuts:
    """Streams that broke off after their first pieces, and how many calls told so.

    ``told`` counts ``StreamInterrupted`` with the text that had come.
    """

    calls: int
    told: int
    requests: int


@dataclass(slots=True, kw_only=True)
class Recovery:
    """A server that is killed and comes back, as one client met it.

    Attributes:
        enabled: whether the settings have a circuit breaker at all.
        threshold: ``FAILURE_THRESHOLD``.
        healthy: of ``TRIES`` calls, how many the healthy server answered.
        failed: calls that failed, until the circuit opened or ``threshold`` was reached.
        opened: whether it opened.
        refused: of ``TRIES`` calls, how many were refused while the circuit was open.
        leaked: requests that reached the server, which was back, meanwhile.
        waited: seconds until the circuit was ready for a probe.
        probes: requests that reached the server when the time was over, before one was answered.
        held_back: whether another call was refused while the probe was under way.
        closed: whether the probe closed the circuit.
        again: of ``TRIES`` calls, how many were answered in the end.
    """

    enabled: bool
    threshold: int
    healthy: int = 0
    failed: int = 0
    opened: bool = False
    refused: int = 0
    leaked: int = 0
    waited: float = 0.0
    probes: int = 0
    held_back: bool = False
    closed: bool = False
    again: int = 0


@dataclass(slots=True, kw_only=True)
class Failover:
    """Three endpoints that misbehave, ``a``, ``b`` and ``c``, as the calls of a crowd met them.

    What is counted by endpoint has no entry where there was nothing to count.

    Attributes:
        profile: the chaos that was wanted.
        seed: what was left to chance in it.
        callers: callers at once.
        max_retries: ``MAX_RETRIES``.
        threshold: ``FAILURE_THRESHOLD``.
        acts: the kinds of chaos that there were, the last one perhaps not to its end.
        requests: by endpoint, questions that reached it.
        troubles: by kind, questions that were not answered well.
        openings: by endpoint, how often a circuit opened.
        cooldowns: by endpoint, how often the client began to leave it alone.
        deaths: how often the first endpoint was killed.
        returns: after how many of them it answered again.
        held: questions that reached the account whose allowance was used up.
        probes: of these, the first, and those that came when a cooldown could be over.
    """

    profile: Profile
    seed: int
    callers: int
    max_retries: int
    threshold: int
    acts: list[Act] = field(default_factory=list)
    requests: Counter[str] = field(default_factory=Counter)
    troubles: Counter[str] = field(default_factory=Counter)
    openings: Counter[str] = field(default_factory=Counter)
    cooldowns: Counter[str] = field(default_factory=Counter)
    deaths: int = 0
    returns: int = 0
    held: int = 0
    probes: int = 0


@dataclass(slots=True, kw_only=True)
class Evidence:
    """Everything that was found; None where a part did not run, or not to its end.

    Attributes:
        mode: mode of the live circuit: "auto", "forced_open" or "disabled".
        modes: the same for each endpoint of the site, by name.
        calls: sums of the calls to the configured servers, and of those of the failover drill.
        trouble: why a drill could not be held.
        cut: the part that Ctrl-C ended.
    """

    health: HealthReport | None = None
    mode: str = "auto"
    modes: dict[str, str] = field(default_factory=dict)
    calls: dict[CallPart, Figures] = field(default_factory=dict)
    pooling: Pooling | None = None
    retries: Retrying | None = None
    recovery: Recovery | None = None
    cuts: Cuts | None = None
    failover: Failover | None = None
    trouble: dict[Part, str] = field(default_factory=dict)
    cut: Part | None = None
