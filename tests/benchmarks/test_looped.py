"""The server for crowds and streams: what it answers."""

from __future__ import annotations

from time import perf_counter

import pytest
import requests

from benchmarks.looped import looped
from benchmarks.replies import ANSWER, pieces
from ollama_bridge import OllamaClient

CHUNKS = 7


def test_the_bridge_is_content_with_its_chats() -> None:
    with looped() as url, OllamaClient(base_url=url) as client:
        replies = [client.chat("What is water?") for _ in range(3)]

    assert replies == [ANSWER] * 3


@pytest.mark.parametrize("pause", [0.0, 0.01])
def test_a_stream_has_as_many_chunks_as_it_was_started_for(pause: float) -> None:
    with (
        looped(chunks=CHUNKS, pause=pause) as url,
        OllamaClient(base_url=url) as client,
        client.stream("What is water?") as chunks,
    ):
        found = list(chunks)

    assert found == pieces(CHUNKS)
    assert (chunks.reply.done_reason, chunks.reply.usage.completion_tokens) == ("stop", 137)


def test_the_pause_is_before_each_chunk() -> None:
    with looped(chunks=CHUNKS, pause=0.05) as url, OllamaClient(base_url=url) as client:
        started = perf_counter()
        first, *_ = [perf_counter() - started for _ in client.stream("What is water?")]
        in_all = perf_counter() - started

    assert first >= 0.05
    assert in_all - first >= CHUNKS * 0.05


def test_a_delay_holds_back_chats_and_nothing_else() -> None:
    with looped(delay=0.3) as url, OllamaClient(base_url=url) as client:
        started = perf_counter()
        missing = requests.get(f"{url}/nowhere", timeout=10)
        at_once = perf_counter() - started
        client.chat("What is water?")
        in_all = perf_counter() - started

    assert missing.status_code == 404
    assert in_all - at_once >= 0.3
