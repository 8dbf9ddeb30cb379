"""What the import costs a process that starts."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Final

from ..children import ROOT
from ..contest import Benchmark, Contestant, Unit
from ..peers import invited

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# A client loads requests at its first call, which belongs to the price.
_IMPORTS: Final = (
    ("ours", "import ollama_bridge", "ollama_bridge", ""),
    ("client", "… and what a first chat() loads", "ollama_bridge.client, ollama_bridge.engine", ""),
    ("official", "import ollama", "ollama", "ollama"),
    ("litellm", "import litellm", "litellm", "litellm"),
    ("python", "Python alone", "sys", ""),
)


@contextmanager
def _gather(calls: int) -> Iterator[Sequence[Contestant]]:
    yield [
        invited(key, name, needs, lambda names=names: partial(_starts, names, calls))  # type: ignore[misc]
        for key, name, names, needs in _IMPORTS
    ]


def _starts(names: str, calls: int) -> float:
    """Return the seconds from the start of a Python to its end, as the mean of so many."""
    command = [sys.executable, "-c", f"import {names}"]
    started = perf_counter()
    for _ in range(calls):
        subprocess.run(command, cwd=ROOT, check=True)  # noqa: S603  # our own code
    return (perf_counter() - started) / calls


BENCHMARK: Final = Benchmark(
    name="startup",
    what="A new Python that imports a package and ends. For information: there is no goal.",
    unit=Unit.SECONDS,
    rounds=7,
    calls=1,
    gather=_gather,
    peer="official",
)
