"""How much of an account's allowance is left, as far as anybody says.

Three say so: the headers of replies, ``/api/balance``, and our own count of calls, which the app
keeps. The first of them that is fresh counts. A warning of a low allowance never reroutes and never
refuses a call: only a 429 does.

Wire facts: ``/api/balance`` of ollama.com in both of its shapes. No header is documented there;
gateways before it send ``X-RateLimit-*`` or ``X-Rate-Limit-*``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final, Literal, NamedTuple, TypeAlias

from .cooldown import LONGEST

Source: TypeAlias = Literal["headers", "balance", "counted"]

FRESH: Final = 600.0
"""Seconds after which what somebody said gives way to what another says."""

_RANKS: Final[Mapping[Source, int]] = {"headers": 2, "balance": 1, "counted": 0}
_QUIET: Final = 600.0  # seconds between two warnings at least: some windows are short
_NEARLY_ALL: Final = 0.99  # of whole percents that somebody has rounded
_HEADERS: Final = tuple(
    tuple(prefix + name for name in ("Remaining", "Limit", "Reset"))
    for prefix in ("X-RateLimit-", "X-Rate-Limit-")
)
_WINDOWS: Final = ("session", "hourly", "daily", "weekly", "monthly")
_WHOLE = re.compile(r"\s*(\d{1,15})\s*(?:[,;].*)?", re.ASCII)
_DECIMAL = re.compile(r"\d{1,15}(?:\.\d{1,9})?", re.ASCII)
_EPOCHS: Final = (1e9, 1e11)  # from 2001 to 5138, in seconds
_LARGEST: Final = 1e15


class Quota(NamedTuple):
    """What is known of an allowance.

    Attributes:
        source: who says so: the headers of replies, ``/api/balance``, or our own count of calls.
        used: share of it that is used up, from 0; of several allowances the scarcest.
        resets_at: when it comes back, in seconds on the wall clock; None where nobody says.
        window: which of several it is ("session", "weekly"), "" where there is one.
        limit: the whole of it in ``unit``, None where only the share is known.
        unit: "USD" or "requests", "" where there is no ``limit``.
        bought: what was paid for besides, in USD, and serves when the allowance is used up.
    """

    source: Source
    used: float
    resets_at: float | None = None
    window: str = ""
    limit: float | None = None
    unit: str = ""
    bought: float = 0.0

    @property
    def is_used_up(self) -> bool:
        """Whether there is nothing left to call with."""
        return self.used >= _NEARLY_ALL and not self.bought


class Allowance:
    """What is known of one endpoint's allowance, and what was warned of.

    Args:
        threshold: the share from which on a warning is due.
    """

    __slots__ = ("_at", "_silent_until", "_threshold", "quota")

    def __init__(self, threshold: float) -> None:
        self.quota: Quota | None = None
        self._at = 0.0
        self._threshold = threshold
        self._silent_until: dict[tuple[Source, str], float] = {}

    def learn(self, told: Quota, now: float, wall: float) -> bool:
        """Take note of what somebody says; tell whether it counts from now on."""
        if self._outranks(told) and now < self._at + FRESH and not self._is_over(wall):
            return False
        self.quota, self._at = told, now
        return True

    def current(self, wall: float) -> Quota | None:
        """Return what is known, None where the allowance has come back since."""
        return None if self._is_over(wall) else self.quota

    def warns(self, wall: float) -> bool:
        """Tell, once for each window of each source, that the allowance is low."""
        quota = self.quota
        if quota is None or self._is_over(wall):
            return False
        window = quota.source, quota.window
        silent_until = self._silent_until.get(window, 0.0)
        if quota.used < self._threshold:
            if silent_until == math.inf:  # it has come back, as nobody had foretold
                self._silent_until[window] = wall + _QUIET
            return False
        if wall < silent_until:
            return False
        ends = quota.resets_at
        self._silent_until[window] = math.inf if ends is None else max(ends, wall + _QUIET)
        return True

    def _outranks(self, told: Quota) -> bool:
        return self.quota is not None and _RANKS[self.quota.source] > _RANKS[told.source]

    def _is_over(self, wall: float) -> bool:
        ends = None if self.quota is None else self.quota.resets_at
        return ends is not None and wall >= ends


def from_balance(reply: Mapping[str, object]) -> Quota | None:
    """Read a reply of ``/api/balance``; None where it is no such thing.

    A plan with credits has one allowance, in USD. An older one has several, in percent: the
    scarcest is returned, and of equals the one that comes back last.
    """
    included = reply.get("included")
    if not isinstance(included, Mapping):
        return None
    quota = _credits(included) or _scarcest(included)
    if quota is None:
        return None
    return quota._replace(bought=max(0.0, _number(_part(reply, "purchased"), "balance_usd") or 0.0))


def from_headers(headers: Mapping[str, str], *, wall: float) -> Quota | None:
    """Read what the headers of a reply say; None where they say nothing that makes sense.

    ``headers`` finds names in any case. ``wall`` is the time now on the wall clock, in seconds.

    A reset may be seconds from now, or the seconds or milliseconds since 1970 of a moment: a number
    up to 31 days in seconds is the former, one from 1e9 on the latter. It may also be a date, as in
    ISO 8601 or in HTTP. Without a limit, only that nothing remains says how much is used.
    """
    for remaining, limit, reset in _HEADERS:
        if remaining in headers:
            return _of_headers(headers[remaining], headers.get(limit), headers.get(reset), wall)
    return None


def moment_of(text: object) -> float | None:
    """Return a date of ISO 8601 or HTTP in seconds since 1970; without a zone it is in UTC."""
    if not isinstance(text, str):
        return None
    for parse in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            found = parse(text.strip())
            zoned = found if found.tzinfo is not None else found.replace(tzinfo=UTC)
            moment = zoned.timestamp()
        except (ValueError, OverflowError):
            continue
        return moment if moment < _EPOCHS[1] else None
    return None


def _credits(included: Mapping[str, object]) -> Quota | None:
    left, whole = _number(included, "balance_usd"), _number(included, "allowance_usd")
    if left is None or whole is None or whole <= 0:
        return None
    return Quota(
        "balance",
        max(0.0, 1 - left / whole),
        moment_of(_part(included, "period").get("until")),
        limit=whole,
        unit="USD",
    )


def _scarcest(included: Mapping[str, object]) -> Quota | None:
    found = [
        quota for name in _WINDOWS if (quota := _window(_part(included, name), name)) is not None
    ]
    return max(found, key=lambda quota: (quota.used, quota.resets_at or 0.0), default=None)


def _window(told: Mapping[str, object], name: str) -> Quota | None:
    percent = _number(told, "remaining_percent")
    if percent is None:
        return None
    return Quota("balance", max(0.0, 1 - percent / 100), moment_of(told.get("resets_at")), name)


def _part(reply: Mapping[str, object], key: str) -> Mapping[str, object]:
    value = reply.get(key)
    return value if isinstance(value, Mapping) else {}


def _number(reply: Mapping[str, object], key: str) -> float | None:
    """Return a number that is one: JSON as Python reads it may be infinite, or a whole library."""
    value = reply.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if -_LARGEST < value < _LARGEST else None


def _of_headers(left: str, limit: str | None, reset: str | None, wall: float) -> Quota | None:
    remaining, most = _whole(left), _whole(limit)
    if remaining is None or (not most and remaining):
        return None
    used = max(0.0, 1 - remaining / most) if most else 1.0
    whole = float(most) if most else None
    return Quota("headers", used, _reset(reset, wall), limit=whole, unit="requests")


def _whole(text: str | None) -> int | None:
    found = None if text is None else _WHOLE.fullmatch(text)
    return None if found is None else int(found[1])


def _reset(text: str | None, wall: float) -> float | None:
    if text is None or _DECIMAL.fullmatch(text.strip()) is None:
        return moment_of(text)
    number = float(text)
    if number <= LONGEST:
        return wall + number
    first, last = _EPOCHS
    number = number / 1000 if number >= last else number
    return number if first <= number < last else None
