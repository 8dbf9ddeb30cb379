"""Oddities of HTTP, of which none may reach a caller: in each of the four forms of a call."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from ollama_bridge import ConnectionFailed, InvalidReply
from tests.client.forms import Form
from tests.net.accounts import is_consistent
from tests.net.rawserver import RawServer, read_request

if TYPE_CHECKING:
    import socket

    from tests.conftest import MakeClient


@pytest.mark.parametrize("size", [b"zz", b"5;", b""])
def test_a_chunk_of_no_size_is_a_broken_reply(
    form: Form, make_client: MakeClient, size: bytes
) -> None:
    def serve(sock: socket.socket) -> None:
        while read_request(sock):
            head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            sock.sendall(head + size + b'\r\n{"a":\r\n')
            return

    with RawServer(serve) as server:
        error = form.fail(make_client(base_url=server.url, max_retries=0))
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
    ],
    ids=["100", "103", "102", "second reply", "408"],
)
def test_nobody_gets_what_was_meant_for_another_question(
    form: Form, make_client: MakeClient, before: bytes, after: bytes
) -> None:
    numbers = itertools.count(1)

    def serve(sock: socket.socket) -> None:
        while read_request(sock):
            sock.sendall(before + reply(next(numbers)) + after)

    with RawServer(serve) as server:
        client = make_client(base_url=server.url, max_retries=0)
        assert [form.ask(client) for _ in range(5)] == list("12345")


def test_garbage_behind_a_reply_is_nobodys_answer(form: Form, make_client: MakeClient) -> None:
    """aiohttp gives up a reply that garbage comes along with; requests hands it out."""
    numbers = itertools.count(1)

    def serve(sock: socket.socket) -> None:
        while read_request(sock):
            sock.sendall(reply(next(numbers)) + b"garbage")

    with RawServer(serve) as server:
        client = make_client(base_url=server.url, max_retries=0, circuit_breaker=False)
        for number in range(1, 6):
            told = form.tell(client)
            assert told.reply == f"{number}" or isinstance(told.error, InvalidReply)


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
    form: Form, make_client: MakeClient, head: bytes
) -> None:
    def serve(sock: socket.socket) -> None:
        if read_request(sock):
            sock.sendall(head)

    with RawServer(serve) as server:
        error = form.fail(make_client(base_url=server.url, max_retries=0))
    is_consistent(error)
