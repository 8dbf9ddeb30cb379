"""Results as a run would have them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.contest import Benchmark, Contestant, Unit
from benchmarks.figures import Goal
from benchmarks.machine import Machine
from benchmarks.results import Run, result_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from benchmarks.results import Result

OURS = Contestant(key="ours", name="ollama_bridge", turn=lambda: 0.001)
PEER = Contestant(key="peer", name="the peer", turn=lambda: 0.002)
ABSENT = Contestant(key="peer", name="the peer", absent="not installed")
RATIO = Goal(of="ours", limit=0.8, is_ratio=True)


@contextmanager
def both(_: int) -> Iterator[Sequence[Contestant]]:
    yield [OURS, PEER]


def benchmark(**given: Any) -> Benchmark:
    """Return a benchmark of two, with a ratio as its goal."""
    usual = {
        "name": "sample",
        "what": "One call of {calls}, as a sample.",
        "unit": Unit.SECONDS,
        "rounds": 3,
        "calls": 2000,
        "gather": both,
        "peer": "peer",
        "goal": RATIO,
    }
    return Benchmark(**{**usual, **given})


def result(
    figures: Mapping[str, Sequence[float]], *contestants: Contestant, **given: Any
) -> Result:
    """Return what came out for the contestants, by default for both."""
    return result_of(benchmark(**given), contestants or (OURS, PEER), figures, calls=2000)


def run(*results: Result, failures: Mapping[str, str] | None = None) -> Run:
    return Run(
        date="2026-01-02T03:04:05+00:00",
        machine=Machine(cpus=2, model="Some CPU", memory_bytes=8 * 2**30, os="Linux", load=0.5),
        versions={"Python": "3.11.7", "litellm": None},
        results=results,
        failures=failures or {},
    )


REACHED = result({"ours": [0.001, 0.002, 0.003], "peer": [0.002, 0.004, 0.006]})
MISSED = result({"ours": [0.002, 0.002], "peer": [0.002, 0.002]})
UNJUDGED = result({"ours": [0.001]}, OURS, ABSENT)
FOR_INFORMATION = result({"ours": [1.5], "peer": [1.0]}, goal=None)
ABSOLUTE = result(
    {"ours": [2048.0], "peer": [0.0]}, unit=Unit.BYTES, peer="", goal=Goal(of="ours", limit=4096)
)
