"""The benchmarks, by their names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from . import breaker, chat, memory, refusal, refusal_http, startup, threads

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..contest import Benchmark

ALL: Final[Mapping[str, Benchmark]] = {
    case.BENCHMARK.name: case.BENCHMARK
    for case in (chat, breaker, refusal, refusal_http, threads, memory, startup)
}
