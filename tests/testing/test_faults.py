"""Every fault, seen from the client's end of a plain socket."""

import json
import socket
import time
from contextlib import suppress
from http.client import BadStatusLine, RemoteDisconnected
from typing import Literal

import pytest

from ollama_bridge.testing import FakeOllama, faults, when
from tests.testing.plainhttp import (
    HI,
    chat,
    connect,
    open_socket,
    read_to_end,
    request_bytes,
    stream,
)

MEGABYTE = 2**20


def test_reset_comes_before_the_status_line(fake_ollama: FakeOllama) -> None:
    fake_ollama.misbehave(faults.Reset())
    with pytest.raises(ConnectionResetError):
        chat(fake_ollama)


def test_drop_is_an_end_without_a_byte(fake_ollama: FakeOllama) -> None:
    fake_ollama.misbehave(faults.Drop())
    with open_socket(fake_ollama) as sock:
        sock.sendall(request_bytes())
        assert read_to_end(sock) == b""


def test_close_after_reply_promises_a_connection_that_is_gone(fake_ollama: FakeOllama) -> None:
    fake_ollama.misbehave(faults.CloseAfterReply())
    with open_socket(fake_ollama) as sock:
        sock.sendall(request_bytes())
        raw = read_to_end(sock)
    assert raw.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Connection: close" not in raw
    assert raw.endswith(b"}")


def test_a_reused_connection_can_be_dropped_as_its_request_arrives(fake_ollama: FakeOllama) -> None:
    fake_ollama.misbehave(faults.Drop(), when=when.reused())
    connection = connect(fake_ollama)
    connection.request("POST", "/api/chat", b'{"model":"llama3.2"}')
    assert connection.getresponse().read()
    connection.request("POST", "/api/chat", b'{"model":"llama3.2"}')
    with pytest.raises(RemoteDisconnected):
        connection.getresponse()
    connection.close()


def test_a_black_hole_ends_when_the_client_leaves(fake_ollama: FakeOllama) -> None:
    fake_ollama.misbehave(faults.BlackHole())
    with open_socket(fake_ollama) as sock:
        sock.sendall(request_bytes())
        fake_ollama.wait_for(lambda server: server.in_flight == 1)
        assert fake_ollama.disconnects == []
    fake_ollama.wait_for(lambda server: len(server.disconnects) == 1)
    assert fake_ollama.in_flight == 0


def test_a_stall_answers_late(fake_ollama: FakeOllama) -> None:
    fake_ollama.misbehave(faults.Stall(0.05))
    began = time.monotonic()
    assert chat(fake_ollama).status == 200
    assert time.monotonic() - began >= 0.05


DRIPS: list[tuple[Literal["status", "headers", "body"], bytes]] = [
    ("status", b""),
    ("headers", b"HTTP/1.1 200 OK\r\n"),
    ("body", b"\r\n\r\n"),
]


@pytest.mark.parametrize(("part", "end_of_the_rest"), DRIPS)
def test_a_drip_starts_where_it_is_told(
    fake_ollama: FakeOllama, part: Literal["status", "headers", "body"], end_of_the_rest: bytes
) -> None:
    fake_ollama.misbehave(faults.Drip(part, interval=60))
    raw = b""
    with open_socket(fake_ollama) as sock:
        sock.sendall(request_bytes())
        while not raw or end_of_the_rest not in raw[:-1]:
            raw += sock.recv(65536)
        sock.settimeout(0)
        with pytest.raises(BlockingIOError):
            sock.recv(1)
    assert raw[:-1].endswith(end_of_the_rest)


def test_a_drip_delivers_everything_in_the_end(fake_ollama: FakeOllama) -> None:
    fake_ollama.misbehave(faults.Drip("body", interval=0))
    assert chat(fake_ollama).json["done"] is True
    assert stream(fake_ollama).lines[-1]["done"] is True


def test_garbage_is_not_http(fake_ollama: FakeOllama) -> None:
    fake_ollama.misbehave(faults.Garbage())
    with pytest.raises(BadStatusLine):
        chat(fake_ollama)


SPOKEN = [
    (faults.busy(), 503, "server busy, please try again.  maximum pending requests exceeded"),
    (faults.unavailable(), 503, "Service Temporarily Unavailable"),
    (faults.rate_limited(), 429, "too many concurrent requests"),
    (faults.model_missing("model 'x' not found"), 404, "model 'x' not found"),
    (faults.server_error("boom"), 500, "boom"),
    (faults.bad_option(), 500, 'option "temperature" must be of type float32'),
    (faults.ErrorInOK("oops"), 200, "oops"),
]


@pytest.mark.parametrize(("fault", "status", "text"), SPOKEN)
def test_errors_speak_as_the_server_does(
    fake_ollama: FakeOllama, fault: faults.Fault, status: int, text: str
) -> None:
    fake_ollama.misbehave(fault)
    answer = chat(fake_ollama)
    assert (answer.status, answer.json) == (status, {"error": text})
    assert answer.header("Content-Type") == "application/json; charset=utf-8"
    assert answer.header("Retry-After") is None


def test_longer_errors_hold_what_clients_look_for(fake_ollama: FakeOllama) -> None:
    for fault in (faults.usage_limit(), faults.out_of_memory(), faults.nested_error()):
        fake_ollama.misbehave(fault, when=when.first(1))
    texts = [chat(fake_ollama).json["error"] for _ in range(3)]
    assert "session usage limit" in texts[0]
    assert "more system memory" in texts[1]
    assert json.loads(texts[2])["error"]["code"] == 500


SILENT = [
    (faults.unauthorized(), 401, "text/plain; charset=utf-8", b"unauthorized\n"),
    (faults.forbidden(), 403, None, b""),
    (faults.page_not_found(), 404, "text/plain", b"404 page not found"),
    (faults.Status(418, b"tea", "text/x-tea"), 418, "text/x-tea", b"tea"),
]


@pytest.mark.parametrize(("fault", "status", "content_type", "body"), SILENT)
def test_errors_need_not_be_json(
    fake_ollama: FakeOllama, fault: faults.Fault, status: int, content_type: str, body: bytes
) -> None:
    fake_ollama.misbehave(fault)
    answer = chat(fake_ollama)
    assert (answer.status, answer.body) == (status, body)
    assert answer.header("Content-Type") == content_type
    assert answer.header("Content-Length") == str(len(body))


@pytest.mark.parametrize(
    ("fault", "status"),
    [(faults.bad_gateway(), 502), (faults.gateway_timeout(), 504), (faults.WrongType(), 200)],
)
def test_proxies_speak_html(fake_ollama: FakeOllama, fault: faults.Fault, status: int) -> None:
    fake_ollama.misbehave(fault)
    answer = chat(fake_ollama)
    assert answer.status == status
    assert answer.header("Content-Type") == "text/html"
    assert answer.body.startswith(b"<html>")


def test_retry_after_is_sent_as_given(fake_ollama: FakeOllama) -> None:
    fake_ollama.misbehave(faults.rate_limited(7), when=when.first(1))
    fake_ollama.misbehave(faults.usage_limit("Sat, 21 Nov 2026 07:28:00 GMT"))
    assert chat(fake_ollama).header("Retry-After") == "7"
    assert chat(fake_ollama).header("Retry-After") == "Sat, 21 Nov 2026 07:28:00 GMT"


def test_a_redirect_names_its_target(fake_ollama: FakeOllama) -> None:
    fake_ollama.misbehave(faults.redirect("http://elsewhere.example/api/chat"))
    answer = chat(fake_ollama)
    assert (answer.status, answer.header("Location")) == (307, "http://elsewhere.example/api/chat")


def test_not_done_has_half_of_the_text(fake_ollama: FakeOllama) -> None:
    whole = chat(fake_ollama).text
    fake_ollama.misbehave(faults.NotDone())
    answer = chat(fake_ollama)
    assert answer.json["done"] is False
    assert "eval_count" not in answer.json
    assert whole.startswith(answer.text)
    assert 0 < len(answer.text) < len(whole)


def test_a_stream_that_is_not_done_ends_cleanly(fake_ollama: FakeOllama) -> None:
    fake_ollama.misbehave(faults.NotDone())
    answer = stream(fake_ollama)
    assert answer.complete
    assert not any(line["done"] for line in answer.lines)


def test_truncated_json_is_whole_http(fake_ollama: FakeOllama) -> None:
    fake_ollama.misbehave(faults.TruncatedJSON())
    answer = chat(fake_ollama)
    assert answer.complete
    with pytest.raises(ValueError, match="Unterminated string"):
        json.loads(answer.body)


def test_a_cut_body_owes_the_rest(fake_ollama: FakeOllama) -> None:
    fake_ollama.misbehave(faults.CutBody())
    for answer in (chat(fake_ollama), stream(fake_ollama)):
        assert answer.status == 200
        assert answer.body
        assert not answer.complete


@pytest.mark.parametrize("declared", [True, False])
def test_a_huge_body_is_good_json(fake_ollama: FakeOllama, declared: bool) -> None:
    fake_ollama.misbehave(faults.HugeBody(3 * MEGABYTE + 7, declared=declared))
    answer = chat(fake_ollama)
    assert len(answer.text) == 3 * MEGABYTE + 7
    assert (answer.header("Content-Length") is not None) is declared


def test_a_huge_body_waits_for_its_reader_and_delays_nobody(fake_ollama: FakeOllama) -> None:
    fake_ollama.misbehave(faults.HugeBody(2**40), when=when.first(1))
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", fake_ollama.port))
        sock.sendall(request_bytes())
        assert sock.recv(10) == b"HTTP/1.1 2"
        for _ in range(20):
            assert sock.recv(65536)
            assert chat(fake_ollama).status == 200
    fake_ollama.wait_for(lambda server: len(server.disconnects) == 1)


def test_a_huge_line_is_one_line(fake_ollama: FakeOllama) -> None:
    fake_ollama.misbehave(faults.HugeLine(MEGABYTE))
    answer = stream(fake_ollama)
    assert [len(line["message"]["content"]) for line in answer.lines] == [MEGABYTE]


@pytest.mark.parametrize("after", [0, 1, 3])
def test_an_error_line_comes_after_good_ones(fake_ollama: FakeOllama, after: int) -> None:
    fake_ollama.misbehave(faults.ErrorLine(after, "broken"))
    answer = stream(fake_ollama)
    assert answer.complete
    assert answer.lines[-1] == {"error": "broken"}
    assert [line["done"] for line in answer.lines[:-1]] == [False] * after


@pytest.mark.parametrize("reset", [True, False])
def test_a_cut_stream_owes_its_last_chunk(fake_ollama: FakeOllama, reset: bool) -> None:
    fake_ollama.misbehave(faults.CutStream(2, reset=reset))
    raw = b""
    with open_socket(fake_ollama) as sock, suppress(ConnectionResetError):
        sock.sendall(request_bytes(HI))
        while piece := sock.recv(65536):
            raw += piece
    assert raw.count(b'"done":false') == 2
    assert not raw.endswith(b"0\r\n\r\n")


def test_a_stalled_stream_goes_on(fake_ollama: FakeOllama) -> None:
    fake_ollama.misbehave(faults.StallStream(1, seconds=0.01))
    assert stream(fake_ollama).lines[-1]["done"] is True
    assert chat(fake_ollama).json["done"] is True


def test_a_stalled_stream_outwaits_its_client(fake_ollama: FakeOllama) -> None:
    fake_ollama.misbehave(faults.StallStream(2))
    raw = b""
    with open_socket(fake_ollama) as sock:
        sock.sendall(request_bytes(HI))
        while raw.count(b"\n\r\n") < 2:
            raw += sock.recv(65536)
    fake_ollama.wait_for(lambda server: len(server.disconnects) == 1)


def test_stream_faults_have_a_meaning_without_a_stream(fake_ollama: FakeOllama) -> None:
    for fault in (faults.ErrorLine(), faults.CutStream()):
        fake_ollama.misbehave(fault, when=when.first(1))
    assert chat(fake_ollama).status == 500
    assert not chat(fake_ollama).complete


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_resplit_cuts_lines_and_characters_but_loses_none(size: int) -> None:
    with FakeOllama(answer="Grüße, 日本語 😀!") as server:
        server.misbehave(faults.Resplit(size))
        lines = stream(server).lines
        assert "".join(line["message"]["content"] for line in lines) == "Grüße, 日本語 😀!"
        assert chat(server).text == "Grüße, 日本語 😀!"


def test_a_fault_of_ones_own_is_any_object_that_replies(fake_ollama: FakeOllama) -> None:
    class Teapot:
        async def reply(self, exchange: faults.Exchange) -> None:
            exchange.write(b"HTTP/1.1 418 I'm a teapot\r\nContent-Length: 0\r\n\r\n")

    fake_ollama.misbehave(Teapot())
    assert chat(fake_ollama).status == 418
