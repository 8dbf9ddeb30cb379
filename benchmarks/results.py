"""What came out, as values: a row for each contestant, and whether the goal was reached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .figures import Spread, ratios

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .contest import Benchmark, Contestant
    from .machine import Machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A contestant's figures, one for each round. ``ratio`` is to the peer, round by round."""

    key: str
    name: str
    figures: tuple[float, ...] = ()
    spread: Spread | None = None
    ratio: Spread | None = None
    absent: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A benchmark that was run, with so many rounds and calls."""

    benchmark: Benchmark
    rounds: int
    calls: int
    rows: tuple[Row, ...]

    @property
    def what(self) -> str:
        """What a figure is, in one line."""
        return self.benchmark.what.format(calls=f"{self.calls:,}")

    @property
    def measured(self) -> float | None:
        """What is held against the goal; None where there is no goal, or no peer for a ratio."""
        goal = self.benchmark.goal
        if goal is None:
            return None
        row = self.row(goal.of)
        spread = row.ratio if goal.is_ratio else row.spread
        return None if spread is None else spread.median

    @property
    def is_reached(self) -> bool | None:
        """Whether the goal was reached; None where that cannot be said."""
        goal, measured = self.benchmark.goal, self.measured
        return None if goal is None or measured is None else goal.is_reached_by(measured)

    @property
    def is_open(self) -> bool:
        """Whether there is a goal that could not be judged."""
        return self.benchmark.goal is not None and self.measured is None

    def row(self, key: str) -> Row:
        return next(row for row in self.rows if row.key == key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """All results, when and where they came out, and by name why a benchmark could not run."""

    date: str
    machine: Machine
    versions: Mapping[str, str | None]
    results: Sequence[Result]
    failures: Mapping[str, str]

    @property
    def is_complete(self) -> bool:
        """Whether every benchmark ran and every goal was judged."""
        return not self.failures and not any(result.is_open for result in self.results)

    @property
    def has_missed(self) -> bool:
        """Whether a goal was missed."""
        return any(result.is_reached is False for result in self.results)


def result_of(
    benchmark: Benchmark,
    contestants: Sequence[Contestant],
    figures: Mapping[str, Sequence[float]],
    *,
    calls: int,
) -> Result:
    """Return what the figures of each round come to."""
    rows = [
        _row(each, figures.get(each.key, ()), figures.get(benchmark.peer, ()))
        for each in contestants
    ]
    rounds = max(len(row.figures) for row in rows)
    return Result(benchmark=benchmark, rounds=rounds, calls=calls, rows=tuple(rows))


def _row(contestant: Contestant, figures: Sequence[float], peer: Sequence[float]) -> Row:
    return Row(
        key=contestant.key,
        name=contestant.name,
        figures=tuple(figures),
        spread=Spread.of(figures) if figures else None,
        ratio=ratios(figures, peer) if figures and peer else None,
        absent=contestant.absent,
    )
