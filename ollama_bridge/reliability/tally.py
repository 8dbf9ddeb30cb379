"""What became of many calls: counted while they run, summed up when asked."""

from __future__ import annotations

import math
import re
import threading
import time
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from .ways import Ways

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from ..core.types import Attempt
    from ..errors import OllamaBridgeError
    from .askers import Answer

_PERCENT = 100.0
_P95 = 0.95
_SECONDS = re.compile(r"\d+ s\b")


@dataclass(frozen=True, slots=True)
class Failure:
    """Calls that failed with one error code, and each different sentence that came with it."""

    code: str
    count: int
    sentences: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """How long something took, in seconds; None where it never came about."""

    average: float | None = None
    shortest: float | None = None
    longest: float | None = None
    p95: float | None = None

    @classmethod
    def of(cls, seconds: Iterable[float]) -> Self:
        ordered = sorted(seconds)
        if not ordered:
            return cls()
        return cls(
            average=math.fsum(ordered) / len(ordered),
            shortest=ordered[0],
            longest=ordered[-1],
            p95=percentile(ordered, _P95),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The sum of a part.

    Attributes:
        sent: calls begun.
        answered: calls with an answer.
        unfinished: calls that an interrupt left under way; they count as neither.
        latency: how long answered calls took, retries and waits included.
        first_token: the same up to the first piece of the answer; None where no answer came in
            pieces.
        total: seconds from the first call to the end of the last.
        retries: repeats at the same place that the calls needed, answered or not.
        hops: how often a call went on at another endpoint after a request that failed.
        passed_by: how often a call went past an endpoint without a request: it was held back.
        answered_by: answered calls by endpoint.
        peak: most callers who were inside a call at the same time, in its queue or at the server.
        failures: by error code, the commonest first.
    """

    sent: int = 0
    answered: int = 0
    unfinished: int = 0
    latency: Times = Times()
    first_token: Times | None = None
    total: float = 0.0
    retries: int = 0
    hops: int = 0
    passed_by: int = 0
    answered_by: Mapping[str, int] = field(default_factory=dict)
    peak: int = 0
    failures: tuple[Failure, ...] = ()

    @property
    def success_rate(self) -> float | None:
        """Percent of the finished calls that were answered; None before the first has finished."""
        finished = self.sent - self.unfinished
        return _PERCENT * self.answered / finished if finished else None

    @property
    def rate(self) -> float | None:
        """Answered calls a second; refusals, which cost nothing, would only flatter it."""
        return self.answered / self.total if self.total else None


class Tally:
    """Counts calls. Thread-safe; holds at most 16 bytes for each answer, so that it may run on."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._started: float | None = None
        self._ended = 0.0
        self._sent = 0
        self._under_way = 0
        self._peak = 0
        self._ways = Ways()
        self._answered_by: Counter[str] = Counter()
        self._latencies = array("d")
        self._first_tokens = array("d")
        self._failures: Counter[str] = Counter()
        self._sentences: dict[str, dict[str, str]] = {}

    def begin(self) -> float:
        """Count a call that begins now; return that moment, which its end wants to know."""
        with self._lock:
            now = self._clock()
            if self._started is None:
                self._started = now
            self._sent += 1
            self._under_way += 1
            self._peak = max(self._peak, self._under_way)
            return now

    def answer(self, since: float, answer: Answer) -> None:
        with self._lock:
            self._latencies.append(self._end(answer.reply.attempts) - since)
            self._answered_by[answer.reply.endpoint] += 1
            if answer.first_token is not None:
                self._first_tokens.append(answer.first_token)

    def fail(self, error: OllamaBridgeError) -> None:
        with self._lock:
            self._end(error.attempts)
            self._failures[error.code] += 1
            # "Next try in 4 s" and "… in 3 s" are one sentence.
            plain = _SECONDS.sub("N s", str(error))
            self._sentences.setdefault(error.code, {}).setdefault(plain, str(error))

    def progress(self) -> tuple[int, int]:
        """Return how many calls were answered so far, and how many failed."""
        with self._lock:
            return len(self._latencies), self._failures.total()

    def elapsed(self) -> float:
        """Return the seconds since the first call began."""
        with self._lock:
            return 0.0 if self._started is None else self._clock() - self._started

    def figures(self) -> Figures:
        with self._lock:
            return Figures(
                sent=self._sent,
                answered=len(self._latencies),
                unfinished=self._under_way,
                latency=Times.of(self._latencies),
                first_token=Times.of(self._first_tokens) if self._first_tokens else None,
                total=self._total(),
                retries=self._ways.retries,
                hops=self._ways.hops,
                passed_by=self._ways.passed_by,
                answered_by=dict(sorted(self._answered_by.items())),
                peak=self._peak,
                failures=tuple(
                    Failure(code, count, tuple(self._sentences[code].values()))
                    for code, count in self._failures.most_common()
                ),
            )

    def _end(self, attempts: Sequence[Attempt]) -> float:
        self._under_way -= 1
        self._ways.add(attempts)
        self._ended = self._clock()
        return self._ended

    def _total(self) -> float:
        if self._started is None:
            return 0.0
        return (self._clock() if self._under_way else self._ended) - self._started


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """Return the least value that ``share`` of all values do not exceed (nearest rank)."""
    if not ordered:
        return None
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
