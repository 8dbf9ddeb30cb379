"""A reader that is slower than the model: the model waits, and nothing piles up in between."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from ollama_bridge.testing import FakeOllama

from .reading import Answer
from .running import BOUND, Server
from .upstreams import Endless

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="the memory of a process is read from /proc"
)

MEBIBYTE = 2**20
GENEROUS = {"MAX_RESPONSE_BYTES": 1000 * MEBIBYTE, "TIMEOUT": 600, "CHUNK_TIMEOUT": 600}
BUFFERS = 48 * MEBIBYTE
"""More than the kernel holds for two connections. A model that does not wait sends it in a second
or two, and that much text would take more memory than this."""

FLAT = MEBIBYTE
RECEIVE_BUFFER = 64 * 1024
STILL = 0.5
"""Seconds without a byte after which a model counts as throttled."""


class Memory:
    """What a process holds, in bytes, and how much more than in the beginning."""

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/status")
        self._first = self._now()

    def grown(self) -> int:
        return self._now() - self._first

    def _now(self) -> int:
        found = re.search(r"VmRSS:\s+(\d+) kB", self._status.read_text(encoding="ascii"))
        assert found is not None
        return int(found[1]) * 1024


@pytest.fixture
def memory(plain_server: Server, ollama: FakeOllama) -> Memory:
    """The memory of a server whose limits are out of the way, and that has loaded everything."""
    plain_server.configure(**GENEROUS)
    with plain_server.stream() as answer:
        answer.events()
    return Memory(plain_server.state()["pid"])


@pytest.fixture
def endless(memory: Memory, ollama: FakeOllama) -> Endless:
    endless = Endless()
    ollama.misbehave(endless)
    return endless


@pytest.fixture
def answer(plain_server: Server, endless: Endless) -> Iterator[Answer]:
    """A stream for a reader whose own buffer is small."""
    body = json.dumps({"message": "What is water?", "stream": True})
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        sock.connect(("127.0.0.1", plain_server.port))
        connection = HTTPConnection("127.0.0.1")
        connection.sock = sock
        connection.request("POST", "/api/chat/", body, {"Content-Type": "application/json"})
        with Answer(connection, connection.getresponse()) as answer:
            assert answer.event().name == "delta"
            yield answer


def sent_until_throttled(endless: Endless) -> int:
    """Wait until the model waits, and return the bytes that it could send."""
    before = 0
    while before < (sent := endless.sent) < BUFFERS:
        before = sent
        time.sleep(STILL)
    return sent


def test_a_model_waits_for_a_reader_who_reads_no_more(
    plain_server: Server,
    ollama: FakeOllama,
    memory: Memory,
    endless: Endless,
    answer: Answer,
    say: Callable[[str], None],
) -> None:
    sent = sent_until_throttled(endless)
    grown = memory.grown()
    assert sent < BUFFERS
    assert grown < BUFFERS
    until = time.monotonic() + BOUND
    while endless.sent == sent:
        assert answer.event().name == "delta"
        assert time.monotonic() < until, "it waits although somebody reads"
    answer.close()
    ollama.wait_for(lambda ollama: ollama.in_flight == 0, BOUND)
    say(
        f"{plain_server.kind}, nobody reads: {sent / MEBIBYTE:.1f} MiB sent, "
        f"{grown / MEBIBYTE:.1f} MiB more memory"
    )


@pytest.mark.parametrize(
    ("number", "pause"),
    [(10, 0.1), pytest.param(15, 1.0, marks=pytest.mark.soak)],
    ids=["ten-a-second", "one-a-second"],
)
def test_memory_stays_flat_while_somebody_reads_slowly(
    plain_server: Server,
    memory: Memory,
    endless: Endless,
    answer: Answer,
    number: int,
    pause: float,
    say: Callable[[str], None],
) -> None:
    assert sent_until_throttled(endless) < BUFFERS
    before = memory.grown()
    for _ in range(number):
        assert answer.event().name == "delta"
        time.sleep(pause)
    grown = memory.grown() - before
    assert grown < FLAT
    assert endless.sent < BUFFERS
    say(f"{plain_server.kind}, {number} events each {pause} s: {grown / 1024:.0f} KiB more memory")
