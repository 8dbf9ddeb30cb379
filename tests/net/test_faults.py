"""Each fault of a server: whose fault it is said to be, to whom, and what it costs."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from ollama_bridge import ConnectionFailed, OllamaClient, ServerFailed, Timeout
from ollama_bridge.testing import faults
from tests.net.faulttable import CASES, FACES, Blamed, Case
from tests.net.rawserver import ConnectBlackHole, RawServer, read_request

if TYPE_CHECKING:
    import socket

    from ollama_bridge import OllamaBridgeError
    from ollama_bridge.testing import FakeOllama
    from tests.conftest import MakeClient

# Failures of (endpoint, model) after the fault, where each had one before.
_COUNTS: dict[Blamed, tuple[int, int]] = {
    "endpoint": (2, 1),
    "model": (0, 2),
    "answered": (0, 1),
    "nobody": (1, 1),
}


def fail_once_each(client: OllamaClient) -> None:
    """Count one failure against the model, and then one against the endpoint."""
    for status in (500, 502):
        failure = ServerFailed("an earlier one", status=status)

        def fail(failure: ServerFailed = failure) -> None:
            raise failure

        with pytest.raises(ServerFailed):
            client.circuit_breaker.call(fail)
    assert failures(client) == (1, 1)


def failures(client: OllamaClient) -> tuple[int, int]:
    circuits = client.circuit_breakers
    return circuits["default"].failures, circuits["default/llama3.2"].failures


def fail(client: OllamaClient) -> OllamaBridgeError:
    with pytest.raises(tuple(FACES)) as caught:
        client.chat("What is water?")
    return caught.value


def is_consistent(error: OllamaBridgeError) -> None:
    """Compare what belongs to the class, and what every error carries."""
    face = FACES[type(error)]
    assert (error.code, error.public_message) == (face.code, face.public_message)
    assert (error.endpoint, error.model) == ("default", "llama3.2")
    assert error.attempts[-1].code == error.code
    assert error.attempts[-1].status == error.status
    assert all(attempt.seconds >= 0 for attempt in error.attempts)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_fault_has_its_error_its_sentences_and_its_price(
    fake_ollama: FakeOllama, make_client: MakeClient, case: Case
) -> None:
    fake_ollama.misbehave(case.fault)
    client = make_client(**case.settings)
    fail_once_each(client)
    error = fail(client)
    verdict = case.verdict
    is_consistent(error)
    assert type(error) is verdict.error
    assert str(error) == verdict.says.format(url=fake_ollama.url)
    assert error.status == verdict.status
    assert error.retryable is (
        FACES[verdict.error].retryable if verdict.retryable is None else verdict.retryable
    )
    assert error.retry_after == verdict.retry_after
    assert getattr(error, "phase", None) == verdict.phase
    assert bool(getattr(error, "partial", "")) is verdict.partial
    assert len(fake_ollama.chats) == verdict.requests
    assert failures(client) == _COUNTS[verdict.blames]


def test_a_refused_connect_names_the_command_that_starts_the_server(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    fake_ollama.refuse()
    client = make_client()
    fail_once_each(client)
    error = fail(client)
    is_consistent(error)
    assert type(error) is ConnectionFailed
    assert (
        str(error) == f"Cannot connect to Ollama at {fake_ollama.url}. Start it with: ollama serve"
    )
    assert error.retryable
    assert failures(client) == _COUNTS["endpoint"]
    assert len(error.attempts) == 4


def test_a_name_without_an_address_is_said_to_be_one(make_client: MakeClient) -> None:
    client = make_client(base_url="http://nothing.invalid:11434")
    fail_once_each(client)
    error = fail(client)
    is_consistent(error)
    assert type(error) is ConnectionFailed
    assert str(error) == (
        "Cannot connect to Ollama at http://nothing.invalid:11434: "
        "no address for nothing.invalid. Check BASE_URL"
    )
    assert failures(client) == _COUNTS["endpoint"]
    assert len(error.attempts) == 4


def test_a_black_hole_for_connects_is_a_connect_timeout(make_client: MakeClient) -> None:
    with ConnectBlackHole() as hole:
        client = make_client(base_url=hole.url, connect_timeout=0.05)
        fail_once_each(client)
        error = fail(client)
    is_consistent(error)
    assert isinstance(error, Timeout)
    assert error.phase == "connect"
    assert str(error) == (
        f"Cannot connect to Ollama at {hole.url}: no answer in time. "
        "Check BASE_URL, the network and the firewall"
    )
    assert failures(client) == _COUNTS["endpoint"]
    assert len(error.attempts) == 4


def test_a_dropped_keep_alive_is_not_noticed(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    fake_ollama.misbehave(faults.Drop(), when=lambda request: request.turn > 1)
    client = make_client(max_retries=0)
    replies = [client.chat(f"What is water, {number}?") for number in range(10)]
    assert all(replies)
    assert all(len(reply.attempts) == 1 for reply in replies)


def test_an_impatient_caller_is_nobodys_fault(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    fake_ollama.misbehave(faults.BlackHole())
    client = make_client()
    fail_once_each(client)
    with pytest.raises(Timeout):
        client.chat("What is water?", timeout=0.1)
    assert failures(client) == _COUNTS["nobody"]
    fake_ollama.wait_for(lambda server: len(server.disconnects) == 1)


def test_what_a_huge_reply_still_has_to_say_is_not_read(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    fake_ollama.misbehave(faults.HugeBody(declared=False))
    fail(make_client())
    fake_ollama.wait_for(lambda server: len(server.disconnects) == 1)
    assert fake_ollama.open_connections == 0


@pytest.mark.parametrize("size", [b"zz", b"-5", b"5;", b""])
def test_a_chunk_of_no_size_is_a_broken_reply(make_client: MakeClient, size: bytes) -> None:
    def serve(sock: socket.socket) -> None:
        while read_request(sock):
            head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            sock.sendall(head + size + b'\r\n{"a":\r\n')
            return

    with RawServer(serve) as server:
        error = fail(make_client(base_url=server.url, max_retries=0))
    assert type(error) is ConnectionFailed
    assert "broke inside the reply" in str(error)


BODY = b'{"message":{"content":"%d"},"done":true}'


def reply(number: int) -> bytes:
    body = BODY % number
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"HTTP/1.1 100 Continue\r\n\r\n", b""),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", b""),
        (b"HTTP/1.1 102 Processing\r\n\r\n" * 3, b""),
        (b"", reply(99)),
        (b"", b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"),
        (b"", b"garbage"),
    ],
    ids=["100", "103", "102", "second reply", "408", "garbage"],
)
def test_nobody_gets_what_was_meant_for_another_question(
    make_client: MakeClient, before: bytes, after: bytes
) -> None:
    numbers = itertools.count(1)

    def serve(sock: socket.socket) -> None:
        while read_request(sock):
            sock.sendall(before + reply(next(numbers)) + after)

    with RawServer(serve) as server:
        client = make_client(base_url=server.url, max_retries=0)
        assert [client.chat("What is water?") for _ in range(5)] == list("12345")


HEADS = [
    b"HTTP/1.1 999999 What\r\n\r\n",
    b"HTTP/1.1 abc What\r\n\r\n",
    b"HTTP/3.1 200 OK\r\n\r\n",
    b"HTTP/1.1 " + b"2" * 70_000 + b"\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 70_000 + b"\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n" + b"X-Many: x\r\n" * 200 + b"\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 7\r\n\r\n12345",
    b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n12345",
    b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n12345",
    b"HTTP/1.1 200 OK\r\nthis is no header\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" * 50 + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    b"\r\n\r\n",
    b"\xff" * 100,
]


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head[:40].decode("latin-1"))
def test_no_oddity_of_http_escapes_as_another_exception(
    make_client: MakeClient, head: bytes
) -> None:
    def serve(sock: socket.socket) -> None:
        if read_request(sock):
            sock.sendall(head)

    with RawServer(serve) as server:
        error = fail(make_client(base_url=server.url, max_retries=0))
    is_consistent(error)
