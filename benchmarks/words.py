"""Figures and verdicts in words, the same in every report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .contest import Unit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .results import Result, Row

_SECONDS: Final = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"))
_KIBIBYTE: Final = 1024
_DIGITS: Final = 3
_VERDICTS: Final = {True: "reached", False: "missed", None: "not judged"}


def figure(value: float, unit: Unit) -> str:
    """Return a figure with three digits, and its unit."""
    scaled, name = _scaled(value, unit)
    if unit is not Unit.SECONDS:
        return f"{scaled:.0f} {name}"
    return f"{scaled:.{max(0, _DIGITS - len(str(int(scaled))))}f} {name}"


def limit(value: float, unit: Unit) -> str:
    """Return a limit as somebody wrote it, and its unit."""
    scaled, name = _scaled(value, unit)
    return f"{scaled:g} {name}"


def _scaled(value: float, unit: Unit) -> tuple[float, str]:
    if unit is Unit.BYTES:
        return value / _KIBIBYTE, "KiB"
    if unit is Unit.DESCRIPTORS:
        return value, unit.value
    size, name = next((each for each in _SECONDS if value >= each[0]), _SECONDS[-1])
    return value / size, name


def ratio(result: Result, row: Row) -> str:
    """Return a ratio with the bounds of its middle half; "" where there is none."""
    if row.ratio is None:
        return ""
    if row.key == result.benchmark.peer:
        return "1"
    return f"{row.ratio.median:.2f} ({row.ratio.low:.2f} to {row.ratio.high:.2f})"


def goal(result: Result) -> str:
    """Return what shall be reached; "" without a goal."""
    wanted = result.benchmark.goal
    if wanted is None:
        return ""
    of = result.row(wanted.of).name
    if wanted.is_ratio:
        of = f"{of} / {result.row(result.benchmark.peer).name}"
        return f"{of} {wanted.sign} {wanted.limit:g}"
    return f"{of} {wanted.sign} {limit(wanted.limit, result.benchmark.unit)}"


def verdict(result: Result) -> str:
    """Return the goal, whether it was reached, and what was measured; "" without a goal."""
    wanted, measured = result.benchmark.goal, result.measured
    if wanted is None:
        return ""
    told = f"Goal: {goal(result)}: {_VERDICTS[result.is_reached]}"
    if measured is None:
        return f"{told}."
    value = f"{measured:.2f}" if wanted.is_ratio else figure(measured, result.benchmark.unit)
    return f"{told}, {value}."


def rounds(number: int) -> str:
    return "1 round" if number == 1 else f"{number} rounds"


def versions(found: Mapping[str, str | None]) -> str:
    return ", ".join(f"{name} {version}" for name, version in found.items() if version)
