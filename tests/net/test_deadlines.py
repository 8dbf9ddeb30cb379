"""A deadline holds byte by byte: in each part of a reply, of a connect and of a request."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Any, Literal

import pytest

from ollama_bridge import OllamaBridgeError, OllamaClient, Timeout
from ollama_bridge.testing import FakeOllama, faults, when
from tests.net.proxies import Relay
from tests.net.rawserver import ConnectBlackHole, RawServer, read_head, read_request

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import MakeClient

Part = Literal["status", "headers", "body"]
PARTS: tuple[Part, ...] = ("status", "headers", "body")
# More than the buffers of two sockets hold, however they grow.
LARGE = "x" * 16_000_000
MISS = 0.1
TRIES = 3


def late(call: Callable[[], object], seconds: float) -> tuple[OllamaBridgeError, float]:
    """Return the error of a call, and by how much it missed its end.

    What the machine's other work adds is noise; a deadline that is not kept is missed each time.
    """
    misses = []
    for _ in range(TRIES):
        started = time.monotonic()
        with pytest.raises(OllamaBridgeError) as caught:
            call()
        misses.append(time.monotonic() - started - seconds)
        if misses[-1] < MISS:
            break
    return caught.value, min(misses)


def is_kept(
    client: OllamaClient, seconds: float, message: str = "What is water?", phase: str = "total"
) -> None:
    assert client.circuit_breaker.state == "closed"  # loads what is loaded once
    error, missed = late(lambda: client.chat(message, timeout=seconds), seconds)
    assert isinstance(error, Timeout)
    assert error.phase == phase
    assert -0.02 < missed < MISS


@pytest.mark.parametrize("part", PARTS)
def test_a_drip_does_not_outlive_the_deadline(
    fake_ollama: FakeOllama, make_client: MakeClient, part: Part
) -> None:
    fake_ollama.misbehave(faults.Drip(part))
    is_kept(make_client(), 0.3)
    fake_ollama.wait_for(lambda server: server.in_flight == 0)


@pytest.mark.parametrize("part", PARTS)
def test_nor_on_a_connection_that_was_kept(
    fake_ollama: FakeOllama, make_client: MakeClient, part: Part
) -> None:
    fake_ollama.misbehave(faults.Drip(part), when=when.reused())
    client = make_client()
    client.chat("What is ice?")
    started = time.monotonic()
    with pytest.raises(Timeout):
        client.chat("What is water?", timeout=0.3)
    assert time.monotonic() - started < 0.3 + 3 * MISS
    assert fake_ollama.connections == 1


@pytest.mark.parametrize("part", PARTS)
def test_nor_in_the_last_of_several_attempts(
    fake_ollama: FakeOllama, make_client: MakeClient, part: Part
) -> None:
    fake_ollama.misbehave(faults.unavailable(), when=lambda request: request.attempt % 3 > 0)
    fake_ollama.misbehave(faults.Drip(part))
    is_kept(make_client(), 0.3)
    assert len(fake_ollama.chats) % 3 == 0


@pytest.mark.parametrize("part", PARTS)
def test_nor_over_tls(
    make_client: MakeClient, server_tls: ssl.SSLContext, ca_file: Path, part: Part
) -> None:
    with FakeOllama(tls=server_tls) as server:
        server.misbehave(faults.Drip(part))
        is_kept(make_client(base_url=server.url, verify_ssl=str(ca_file)), 0.3)


def test_a_drip_inside_a_record_of_tls_does_not_either(
    make_client: MakeClient, server_tls: ssl.SSLContext, ca_file: Path
) -> None:
    with FakeOllama(tls=server_tls, answer="x" * 8000) as server, Relay(server.port) as relay:
        url = f"https://127.0.0.1:{relay.port}"
        client = make_client(base_url=url, verify_ssl=str(ca_file))
        client.chat("What is ice?")
        relay.interval = 0.05
        started = time.monotonic()
        with pytest.raises(Timeout):
            client.chat("What is water?", timeout=0.3)
        assert time.monotonic() - started < 0.3 + 3 * MISS


def test_a_dripping_handshake_ends_with_the_deadline(
    make_client: MakeClient, server_tls: ssl.SSLContext, ca_file: Path
) -> None:
    with FakeOllama(tls=server_tls) as server, Relay(server.port) as relay:
        relay.interval = 0.05
        url = f"https://127.0.0.1:{relay.port}"
        client = make_client(base_url=url, verify_ssl=str(ca_file))
        is_kept(client, 0.5, phase="connect")


def test_a_silent_handshake_ends_with_the_connect_timeout(
    make_client: MakeClient, ca_file: Path
) -> None:
    with RawServer(lambda _: silence(server)) as server:
        url = server.url.replace("http:", "https:")
        client = make_client(
            base_url=url, verify_ssl=str(ca_file), connect_timeout=0.3, max_retries=0
        )
        error, missed = late(lambda: client.chat("What is water?"), 0.3)
    assert isinstance(error, Timeout)
    assert error.phase == "connect"
    assert -0.02 < missed < MISS


def silence(server: RawServer) -> None:
    server.stopping.wait(30)


def several_addresses(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int]) -> None:
    def getaddrinfo(host: str, *_: object) -> list[Any]:
        assert host == "several.test"
        return [
            (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address)
            for address in addresses
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def test_all_addresses_of_a_host_share_the_connect_timeout(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    holes = [ConnectBlackHole(f"127.0.0.{number}") for number in (1, 2, 3)]
    several_addresses(monkeypatch, *((hole.host, hole.port) for hole in holes))
    client = make_client(base_url="http://several.test", connect_timeout=0.3, max_retries=0)
    error, missed = late(lambda: client.chat("What is water?"), 0.3)
    for hole in holes:
        hole.__exit__(None, None, None)
    assert isinstance(error, Timeout)
    assert error.phase == "connect"
    assert -0.02 < missed < MISS


def test_an_address_that_does_not_answer_leaves_time_for_the_next(
    fake_ollama: FakeOllama, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ConnectBlackHole() as hole:
        several_addresses(monkeypatch, (hole.host, hole.port), ("127.0.0.1", fake_ollama.port))
        client = make_client(base_url="http://several.localhost", connect_timeout=0.4)
        monkeypatch.setattr(socket, "getaddrinfo", _renamed(socket.getaddrinfo))
        reply = client.chat("What is water?")
    assert len(reply.attempts) == 1


def _renamed(getaddrinfo: Callable[..., Any]) -> Callable[..., Any]:
    return lambda _host, *rest: getaddrinfo("several.test", *rest)


def test_a_connect_ends_with_the_deadline_too(make_client: MakeClient) -> None:
    with ConnectBlackHole() as hole:
        is_kept(make_client(base_url=hole.url), 0.3, phase="connect")


def deaf(sock: socket.socket) -> None:
    """Answer one short request, then read the next one's head only."""
    body = b'{"message":{"content":"Wet."},"done":true}'
    read_request(sock)
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    read_head(sock)
    # A little now and then: each restarts a timeout that bounds one send.
    while sock.recv(4096):
        time.sleep(0.02)


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("kept", [False, True], ids=["new", "kept"])
def test_a_large_request_to_a_server_that_hardly_reads_ends_with_the_deadline(
    make_client: MakeClient,
    server_tls: ssl.SSLContext,
    ca_file: Path,
    secure: bool,
    kept: bool,
) -> None:
    def serve(sock: socket.socket) -> None:
        if kept:
            deaf(sock)
        else:
            silence(server)

    with RawServer(serve, tls=server_tls if secure else None) as server:
        client = make_client(base_url=server.url, verify_ssl=str(ca_file), connect_timeout=0.3)
        if kept:
            client.chat("What is ice?")
        started = time.monotonic()
        with pytest.raises(Timeout) as caught:
            client.chat(LARGE, timeout=0.5)
        missed = time.monotonic() - started - 0.5
    assert caught.value.phase == "total"
    assert -0.02 < missed < 5 * MISS  # encrypting so much takes its time, too


def test_a_proxy_that_does_not_answer_a_connect_is_a_connect_timeout(
    make_client: MakeClient,
) -> None:
    with RawServer(lambda _: silence(proxy)) as proxy:
        client = make_client(
            base_url="https://ollama.internal",
            proxy=proxy.url,
            connect_timeout=0.3,
            max_retries=0,
        )
        error, missed = late(lambda: client.chat("What is water?"), 0.3)
    assert isinstance(error, Timeout)
    assert error.phase == "connect"
    assert -0.02 < missed < MISS


def test_a_proxy_that_drips_does_not_outlive_the_deadline(make_client: MakeClient) -> None:
    def serve(sock: socket.socket) -> None:
        read_head(sock)
        for byte in b"HTTP/1.1 200 Connection established\r\n" + b"X-Slow: x\r\n" * 1000:
            sock.sendall(bytes([byte]))
            if proxy.stopping.wait(0.03):
                return

    with RawServer(serve) as proxy:
        client = make_client(base_url="https://ollama.internal", proxy=proxy.url, max_retries=0)
        error, missed = late(lambda: client.chat("What is water?", timeout=0.5), 0.5)
    assert isinstance(error, Timeout)
    assert -0.02 < missed < MISS


def test_a_deadline_that_has_passed_leaves_no_socket_behind(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    client = make_client()
    client.chat("What is ice?")
    with pytest.raises(Timeout):
        client.chat("What is water?", timeout=1e-9)
    client.close()
    fake_ollama.wait_for(lambda server: server.open_connections == 0)


def test_waits_between_attempts_end_before_the_deadline(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    fake_ollama.misbehave(faults.unavailable())
    client = make_client(retry_backoff="fixed", retry_delay=0.3, max_retries=9)
    started = time.monotonic()
    with pytest.raises(OllamaBridgeError) as caught:
        client.chat("What is water?", timeout=0.5)
    assert time.monotonic() - started < 0.5
    assert caught.value.status == 503
    assert len(fake_ollama.chats) == 2


def test_a_slow_tunnel_and_a_silent_handshake_share_the_deadline(make_client: MakeClient) -> None:
    def serve(sock: socket.socket) -> None:
        read_head(sock)
        if not proxy.stopping.wait(0.4):
            sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            silence(proxy)

    with RawServer(serve) as proxy:
        client = make_client(base_url="https://ollama.internal", proxy=proxy.url, max_retries=0)
        is_kept(client, 0.5, phase="connect")


def test_an_address_of_a_family_that_the_system_lacks_is_passed_over(
    fake_ollama: FakeOllama, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = socket.getaddrinfo("127.0.0.1", fake_ollama.port, 0, socket.SOCK_STREAM)
    unknown = (9999, *found[0][1:])
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [unknown, *found])
    assert make_client(base_url="http://both.localhost").chat("What is water?")
