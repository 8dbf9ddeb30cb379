"""A thousand streams at once in one process, again and again: nothing fails, nothing grows."""

from __future__ import annotations

import asyncio
import gc
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ollama_bridge import OllamaClient
from ollama_bridge.testing.process import spawn

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(sys.platform != "linux", reason="/proc as Linux has it"),
]

STREAMS = 1000
CHUNKS = 100
ROUNDS = 3
DESCRIPTORS = 3 * STREAMS
ANSWER = " ".join(["word"] * CHUNKS)
GROWTH = 8 * 2**20  # bytes of memory that the system may give or take between two rounds


@pytest.fixture
def _enough_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def memory() -> int:
    """Return the bytes that the process has in memory."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


async def read(client: OllamaClient) -> int:
    async with client.astream("What is water?") as chunks:
        count = len([chunk async for chunk in chunks])
    assert chunks.reply == ANSWER
    return count


async def one_round(url: str) -> float:
    """Read all streams at once; return the seconds that this took."""
    async with OllamaClient(base_url=url, max_retries=0, timeout=60) as client:
        started = time.monotonic()
        counts = await asyncio.gather(*(read(client) for _ in range(STREAMS)))
        seconds = time.monotonic() - started
        assert counts == [CHUNKS] * STREAMS
        assert client.get_stats()["failed_requests"] == 0
    return seconds


@pytest.mark.usefixtures("_enough_descriptors")
def test_a_thousand_streams_at_once_fail_never_and_leave_nothing(
    say: Callable[[str], None],
) -> None:
    seconds, grown, open_ones = [], [], []
    with spawn(answer=ANSWER, tokens_per_second=20.0) as server:
        for _ in range(ROUNDS):
            seconds.append(asyncio.run(one_round(server.url)))
            grown.append(memory())
            open_ones.append(descriptors())
    took = ", ".join(f"{each:.1f}" for each in seconds)
    held = ", ".join(f"{each / 2**20:.0f}" for each in grown)
    say(f"{STREAMS} streams of {CHUNKS} pieces at once: {took} s, {held} MiB, {open_ones} open")
    assert open_ones[-1] <= open_ones[0]
    assert grown[-1] - grown[0] < GROWTH
