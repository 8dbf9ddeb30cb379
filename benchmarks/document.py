"""A run as JSON: all times in seconds, all sizes in bytes, descriptors as they are."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from . import words

if TYPE_CHECKING:
    from .figures import Spread
    from .results import Result, Row, Run


def to_json(run: Run) -> str:
    """Return a run with every figure of every round."""
    told = {
        "date": run.date,
        "machine": asdict(run.machine),
        "versions": dict(run.versions),
        "benchmarks": {result.benchmark.name: _result(result) for result in run.results},
        "could_not_run": dict(run.failures),
    }
    return json.dumps(told, indent=2) + "\n"


def _result(result: Result) -> dict[str, object]:
    return {
        "what": result.what,
        "unit": result.benchmark.unit.value,
        "rounds": result.rounds,
        "calls": result.calls,
        "peer": result.benchmark.peer or None,
        "contestants": {row.key: _row(row) for row in result.rows},
        "goal": _goal(result),
    }


def _row(row: Row) -> dict[str, object]:
    return {
        "name": row.name,
        "absent": row.absent or None,
        **_spread(row.spread),
        "ratio": _spread(row.ratio) if row.ratio else None,
        "figures": list(row.figures),
    }


def _spread(spread: Spread | None) -> dict[str, object]:
    if spread is None:
        return {"median": None, "quartiles": None, "least": None}
    quartiles = [spread.low, spread.high]
    return {"median": spread.median, "quartiles": quartiles, "least": spread.least}


def _goal(result: Result) -> dict[str, object] | None:
    goal = result.benchmark.goal
    if goal is None:
        return None
    return {
        "text": words.goal(result),
        "limit": goal.limit,
        "measured": result.measured,
        "reached": result.is_reached,
    }
