"""Times and durations in Go's spelling."""

import re
import time
from datetime import UTC, datetime
from functools import lru_cache

from .gojson import RefusalError

DEFAULT_KEEP_ALIVE = 300.0
FOREVER = (2**63 - 1) / 1e9
"""Go's longest duration in seconds: 292 years."""

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_TERM = re.compile(r"(\d+\.?\d*|\.\d+)([^\d.]*)")


@lru_cache(maxsize=4)
def _to_the_second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def now() -> str:
    """Return the present as RFC 3339 with nanoseconds, trailing zeros trimmed."""
    second, rest = divmod(time.time_ns(), 1_000_000_000)
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{_to_the_second(second)}{fraction}Z"


def stamp(moment: float) -> str:
    """Return a time, given in seconds since the epoch, as RFC 3339."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def keep_alive(value: object) -> float:
    """Return the seconds that a `keep_alive` field means; negative means for ever.

    Raises:
        RefusalError: status 400 with Go's text.
    """
    if value is None:
        return DEFAULT_KEEP_ALIVE
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise RefusalError(400, f"Unsupported type: '{type(value).__name__}'")
    seconds = _duration(value) if isinstance(value, str) else float(value)
    return FOREVER if seconds < 0 else seconds


def _duration(text: str) -> float:
    unsigned = text.lstrip("+-") if text[:1] in "+-" else text
    if unsigned == "0":
        return 0.0
    terms = _TERM.findall(unsigned)
    if not terms or "".join(number + unit for number, unit in terms) != unsigned:
        raise RefusalError(400, f'time: invalid duration "{text}"')
    seconds = sum(float(number) * _unit(unit, text) for number, unit in terms)
    return -seconds if text.startswith("-") else seconds


def _unit(unit: str, text: str) -> float:
    if not unit:
        raise RefusalError(400, f'time: missing unit in duration "{text}"')
    if unit not in _UNITS:
        raise RefusalError(400, f'time: unknown unit "{unit}" in duration "{text}"')
    return _UNITS[unit]
