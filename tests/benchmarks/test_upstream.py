"""The lean server: what it answers, and that it never outlives whoever started it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from benchmarks.children import ROOT
from benchmarks.replies import ANSWER, MODEL
from benchmarks.upstream import upstream
from ollama_bridge import OllamaClient, check_availability

ASKING: dict[str, Any] = {
    "model": MODEL,
    "stream": False,
    "messages": [{"role": "user", "content": "Hi"}],
}


def connected(url: str) -> socket.socket:
    where = urlsplit(url)
    return socket.create_connection((where.hostname or "", where.port or 0), timeout=10)


def has_ended(connection: socket.socket) -> bool:
    """Wait until the other end is gone."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_a_chat_is_answered_with_what_ollama_sends_and_the_connection_is_kept() -> None:
    with upstream() as url, requests.Session() as session:
        replies = [session.post(f"{url}/api/chat", json=ASKING, timeout=10) for _ in range(3)]
        pools = session.adapters["http://"].poolmanager.pools  # type: ignore[attr-defined]
        connections = [pools[key].num_connections for key in pools.keys()]  # noqa: SIM118  # no mapping

    assert [reply.json()["message"]["content"] for reply in replies] == [ANSWER] * 3
    assert replies[0].json()["done"]
    assert connections == [1]


def test_the_bridge_is_content_with_it() -> None:
    with upstream() as url, OllamaClient(base_url=url) as client:
        assert check_availability(url)
        assert client.health_check().status == "healthy"
        reply = client.chat("What is water?")

    assert (reply, reply.done_reason, len(reply.attempts)) == (ANSWER, "stop", 1)


def test_a_request_that_comes_in_pieces_and_one_right_behind_it_are_both_answered() -> None:
    body = json.dumps(ASKING).encode()
    request = b"POST /api/chat HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    nowhere = b"GET /nowhere HTTP/1.1\r\n\r\n"
    with upstream() as url, connected(url) as connection:
        for piece in (request[:20], request[20:60], request[60:] + nowhere[:10], nowhere[10:]):
            connection.sendall(piece)
        received = b""
        while b"404 page not found" not in received:
            received += connection.recv(65536)

    assert received.count(b"HTTP/1.1 200 OK") == 1
    assert received.index(ANSWER.encode()) < received.index(b"HTTP/1.1 404 Not Found")


def test_a_delay_holds_back_chats_and_nothing_else() -> None:
    with upstream(delay=0.3) as url:
        started = perf_counter()
        requests.get(f"{url}/api/version", timeout=10)
        at_once = perf_counter() - started
        requests.post(f"{url}/api/chat", json=ASKING, timeout=10)
        in_all = perf_counter() - started

    assert in_all - at_once >= 0.3


def test_it_ends_with_the_block_also_by_an_error() -> None:
    with pytest.raises(KeyboardInterrupt), upstream() as url:  # noqa: PT012  # the block is the point
        connection = connected(url)
        raise KeyboardInterrupt

    with connection:
        assert has_ended(connection)


def test_it_ends_with_whoever_started_it_even_if_that_is_killed() -> None:
    program = (
        "import sys, time; from benchmarks.upstream import upstream\n"
        "with upstream() as url:\n print(url, flush=True)\n time.sleep(60)"
    )
    with subprocess.Popen(  # noqa: S603  # our own code
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        connection = connected(parent.stdout.readline().strip())
        parent.kill()

    with connection:
        assert has_ended(connection)


@pytest.mark.skipif(os.name != "posix", reason="Ctrl-C reaches a group of processes on POSIX only")
def test_it_leaves_an_interrupt_to_whoever_started_it() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.upstream", "0"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        url = child.stdout.readline().strip()
        child.send_signal(signal.SIGINT)
        assert requests.get(f"{url}/api/version", timeout=10).ok
        child.communicate()

    assert child.returncode == 0
