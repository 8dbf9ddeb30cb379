"""Many threads on one client take hardly longer than on a bare session."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import requests
from requests.adapters import HTTPAdapter

from ollama_bridge.testing import FakeOllama, faults

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import MakeClient

THREADS = 20
SECONDS = 1.0
MOST = 1.15


def lasts(call: Callable[[str], object]) -> float:
    started = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(call, [f"What is water, {number}?" for number in range(THREADS)]))
    return time.perf_counter() - started


def test_twenty_threads_take_hardly_longer_than_on_a_bare_session(
    make_client: MakeClient, say: Callable[[str], None]
) -> None:
    with FakeOllama(answer="Wet.") as server, requests.Session() as session:
        client = make_client(base_url=server.url)
        session.mount("http://", HTTPAdapter(pool_maxsize=THREADS))

        def bare(prompt: str) -> Any:
            message = {"role": "user", "content": prompt}
            body: Any = {"model": "llama3.2", "messages": [message], "stream": False}
            reply = session.post(f"{server.url}/api/chat", json=body, timeout=60)
            return reply.json()["message"]["content"]

        assert bare("once") == client.chat("once")  # loads what is loaded once
        server.misbehave(faults.Stall(SECONDS))
        rounds = [(lasts(bare), lasts(client.chat)) for _ in range(2)]
    ratio = min(ours for _, ours in rounds) / min(theirs for theirs, _ in rounds)
    say(f"20 threads with calls of 1 s: {ratio:.3f} x a bare session")
    assert min(ours for _, ours in rounds) >= SECONDS
    assert ratio <= MOST
