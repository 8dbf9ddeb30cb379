"""The benchmarks, by their names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from . import (
    achat,
    breaker,
    chat,
    chunks,
    crests,
    crowd,
    first_token,
    memory,
    places,
    refusal,
    refusal_http,
    relay,
    startup,
    threads,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..contest import Benchmark

ALL: Final[Mapping[str, Benchmark]] = {
    benchmark.name: benchmark
    for benchmark in (
        chat.BENCHMARK,
        achat.BENCHMARK,
        chunks.STREAM,
        chunks.ASTREAM,
        chunks.BURST,
        first_token.BENCHMARK,
        relay.BENCHMARK,
        breaker.BENCHMARK,
        places.BENCHMARK,
        refusal.BENCHMARK,
        refusal_http.BENCHMARK,
        threads.BENCHMARK,
        crowd.BENCHMARK,
        memory.BENCHMARK,
        crests.CHATS,
        crests.MEMORY,
        crests.DESCRIPTORS,
        startup.BENCHMARK,
    )
}
