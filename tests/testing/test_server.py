"""The fake server itself: its life, its counters, its memory."""

import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import NoReturn

import pytest
import trustme

from ollama_bridge.testing import FakeModel, FakeOllama, RecordedRequest, faults, when
from tests.testing.plainhttp import (
    HI,
    ask,
    chat,
    connect,
    once,
    open_socket,
    read_to_end,
    request_bytes,
    stream,
)

LOAD = b'{"model":"llama3.2"}'


def test_the_simulator_answers_sensibly_and_says_what_it_is(fake_ollama: FakeOllama) -> None:
    first = chat(fake_ollama, messages=[{"role": "user", "content": "What is water?"}]).text
    again = chat(fake_ollama, messages=[{"role": "user", "content": "What is water?"}]).text
    other = chat(fake_ollama, messages=[{"role": "user", "content": "What is fire?"}]).text
    assert first == again != other
    assert "What is water?" in first
    assert "simulator" in first


def test_the_answer_may_be_a_text_or_a_function() -> None:
    with FakeOllama(answer="42") as server:
        assert chat(server).text == "42"
    with FakeOllama(answer=str.upper) as server:
        assert chat(server).text == "HI"
        assert once(server, "POST", "/api/generate", {"model": "llama3.2", "prompt": "ho"}).lines


def test_streaming_is_the_default_and_gives_the_same_text(fake_ollama: FakeOllama) -> None:
    lines = stream(fake_ollama).lines
    assert "".join(line["message"]["content"] for line in lines) == chat(fake_ollama).text
    assert len(lines) > 20


def test_num_predict_and_stop_shorten_the_answer() -> None:
    with FakeOllama(answer="one two three four") as server:
        short = chat(server, options={"num_predict": 2})
        stopped = chat(server, options={"stop": [" three"]})
    assert (short.text, short.json["done_reason"]) == ("one two", "length")
    assert (stopped.text, stopped.json["done_reason"]) == ("one two", "stop")


def test_thinking_comes_first_unless_it_is_not_wanted() -> None:
    with FakeOllama(models=[FakeModel("t", ("completion", "thinking"))], answer="A") as server:
        lines = stream(server, model="t").lines
        plain = chat(server, model="t", think=False)
    assert lines[0]["message"]["content"] == ""
    assert lines[0]["message"]["thinking"]
    assert "thinking" not in plain.json["message"]


def test_formats_shape_the_simulators_own_text(fake_ollama: FakeOllama) -> None:
    schema = {
        "type": "object",
        "properties": {
            "ok": {"type": "boolean"},
            "size": {"$ref": "#/$defs/Size"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "note": {"anyOf": [{"type": "null"}, {"type": "string"}]},
            "kind": {"enum": ["a", "b"]},
            "version": {"const": 3},
        },
        "$defs": {"Size": {"type": ["integer", "null"]}},
    }
    expected = '{"ok":true,"size":1,"tags":["simulated"],"note":null,"kind":"a","version":3}'
    assert chat(fake_ollama, format=schema).text == expected
    assert chat(fake_ollama, format="json").text.startswith('{"answer":"')


def test_a_schema_that_refers_to_itself_ends(fake_ollama: FakeOllama) -> None:
    schema = {"type": "object", "properties": {"next": {"$ref": "#"}}}
    assert chat(fake_ollama, format=schema).text.startswith('{"next":{"next":')


def test_keep_alive_zero_unloads(fake_ollama: FakeOllama) -> None:
    chat(fake_ollama)
    assert [row["name"] for row in once(fake_ollama, "GET", "/api/ps").json["models"]] == [
        "llama3.2:latest"
    ]
    chat(fake_ollama, keep_alive="0")
    assert once(fake_ollama, "GET", "/api/ps").json == {"models": []}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("10", 'time: missing unit in duration "10"'),
        ("1d", 'time: unknown unit "d" in duration "1d"'),
        ("", 'time: invalid duration ""'),
        (True, "Unsupported type: 'bool'"),
    ],
)
def test_bad_keep_alives_are_refused(fake_ollama: FakeOllama, value: object, text: str) -> None:
    answer = chat(fake_ollama, keep_alive=value)
    assert (answer.status, answer.json) == (400, {"error": text})


def test_embeddings_are_unit_vectors_that_repeat(fake_ollama: FakeOllama) -> None:
    asked = {"model": "llama3.2", "input": ["a", "b", "a"], "dimensions": 8}
    vectors = once(fake_ollama, "POST", "/api/embed", asked).json["embeddings"]
    assert vectors[0] == vectors[2] != vectors[1]
    assert [len(vector) for vector in vectors] == [8, 8, 8]
    assert sum(number**2 for number in vectors[0]) == pytest.approx(1)


def test_a_long_reply_is_chunked_as_go_does_it() -> None:
    with FakeOllama(answer="x" * 3000) as server:
        assert chat(server).header("Transfer-Encoding") == "chunked"


def test_a_reader_who_takes_a_large_answer_slowly_gets_it_all() -> None:
    with FakeOllama(answer="word " * 200_000) as server, open_socket(server) as sock:
        sock.sendall(request_bytes())
        server.wait_for(lambda fake: fake.in_flight == 1)
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        raw = read_to_end(sock)
    assert raw.count(b"word") == 200_000
    assert raw.endswith(b"Ollama is running")


def test_speed_is_in_tokens_per_second() -> None:
    with FakeOllama(answer="a b c d e", tokens_per_second=100) as server:
        began = time.monotonic()
        assert len(stream(server).lines) == 6
        assert chat(server).json["eval_duration"] == 50_000_000
        assert time.monotonic() - began >= 0.1


def test_requests_are_remembered(fake_ollama: FakeOllama) -> None:
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    chat(fake_ollama, messages=messages)
    once(fake_ollama, "GET", "/api/tags")
    request = fake_ollama.chats[0]
    assert (request.method, request.path, request.number) == ("POST", "/api/chat", 1)
    assert (request.prompt, request.model) == ("q", "llama3.2")
    assert request.json["messages"] == messages
    assert request.headers["host"] == f"127.0.0.1:{fake_ollama.port}"
    assert [each.path for each in fake_ollama.requests] == ["/api/chat", "/api/tags"]
    assert fake_ollama.requests[1].prompt == ""


def test_a_remembered_request_does_not_show_prompts_or_keys(fake_ollama: FakeOllama) -> None:
    with closing(connect(fake_ollama)) as connection:
        ask(connection, "POST", "/api/chat?k=canary", b"canary", {"Authorization": "canary"})
    assert "canary" not in repr(fake_ollama.requests[0]) + repr(fake_ollama)


def test_attempts_count_requests_with_the_same_body(fake_ollama: FakeOllama) -> None:
    for content in ("a", "b", "a", "a"):
        chat(fake_ollama, messages=[{"role": "user", "content": content}])
    assert [request.attempt for request in fake_ollama.chats] == [1, 1, 2, 3]
    assert [request.number for request in fake_ollama.chats] == [1, 2, 3, 4]


def test_a_kept_connection_is_counted_once(fake_ollama: FakeOllama) -> None:
    with closing(connect(fake_ollama)) as connection:
        for _ in range(3):
            ask(connection, "POST", "/api/chat", LOAD)
        assert (fake_ollama.connections, fake_ollama.open_connections) == (1, 1)
    fake_ollama.wait_for(lambda server: server.open_connections == 0)
    assert [request.turn for request in fake_ollama.requests] == [1, 2, 3]
    assert {request.connection for request in fake_ollama.requests} == {1}


def test_a_client_may_ask_to_close(fake_ollama: FakeOllama) -> None:
    with closing(connect(fake_ollama)) as connection:
        answer = ask(connection, "POST", "/api/chat", LOAD, {"Connection": "close"})
    assert answer.header("Connection") == "close"


def test_in_flight_and_its_peak_are_counted(fake_ollama: FakeOllama) -> None:
    fake_ollama.misbehave(faults.BlackHole())
    sockets = [open_socket(fake_ollama) for _ in range(3)]
    for sock in sockets:
        sock.sendall(request_bytes())
    fake_ollama.wait_for(lambda server: server.in_flight == 3)
    for sock in sockets:
        sock.close()
    fake_ollama.wait_for(lambda server: server.in_flight == 0)
    assert fake_ollama.peak_in_flight == 3


def test_a_client_that_leaves_a_stream_is_noticed() -> None:
    with FakeOllama(tokens_per_second=20) as server:
        with open_socket(server) as sock:
            sock.sendall(request_bytes(HI))
            assert sock.recv(65536)
        server.wait_for(lambda fake: len(fake.disconnects) == 1)
        assert server.disconnects == server.requests


def test_a_killed_server_refuses_and_resets(fake_ollama: FakeOllama) -> None:
    fake_ollama.misbehave(faults.BlackHole())
    with open_socket(fake_ollama) as sock:
        sock.sendall(request_bytes())
        fake_ollama.wait_for(lambda server: server.in_flight == 1)
        fake_ollama.refuse()
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    assert fake_ollama.open_connections == 0
    assert fake_ollama.disconnects == []
    with pytest.raises(ConnectionRefusedError):
        open_socket(fake_ollama)


def test_a_killed_server_comes_back_on_its_port(fake_ollama: FakeOllama) -> None:
    url = fake_ollama.url
    for _ in range(3):
        fake_ollama.refuse()
        fake_ollama.refuse()
        fake_ollama.listen()
        fake_ollama.listen()
    assert fake_ollama.url == url
    assert chat(fake_ollama).status == 200


def test_a_stopped_server_starts_again_on_its_port() -> None:
    server = FakeOllama()
    with server:
        url = server.url
    with server:
        assert (server.url, chat(server).status) == (url, 200)


def test_starting_twice_is_an_error(fake_ollama: FakeOllama) -> None:
    with pytest.raises(RuntimeError, match="already"):
        fake_ollama.start()


def test_a_taken_port_is_an_error_at_once(fake_ollama: FakeOllama) -> None:
    with pytest.raises(OSError, match="in use"):
        FakeOllama(port=fake_ollama.port).start()


def test_stopping_is_quick_while_replies_hang() -> None:
    server = FakeOllama().start()
    for fault in (faults.BlackHole(), faults.Stall(60), faults.StallStream(), faults.Drip()):
        server.misbehave(fault, when=when.first(1))
    sockets = [open_socket(server) for _ in range(4)]
    for sock in sockets:
        sock.sendall(request_bytes(HI))
    server.wait_for(lambda fake: fake.in_flight == 4)
    began = time.monotonic()
    server.stop()
    assert time.monotonic() - began < 1
    assert server.disconnects == []
    for sock in sockets:
        sock.close()


def test_waiting_in_vain_tells_what_happened(fake_ollama: FakeOllama) -> None:
    chat(fake_ollama)
    with pytest.raises(TimeoutError, match="1 requests, 0 in flight"):
        fake_ollama.wait_for(lambda server: len(server.requests) == 2, timeout=0.01)


def test_the_first_matching_rule_decides(fake_ollama: FakeOllama) -> None:
    fake_ollama.misbehave(faults.busy(), when=lambda request: request.number == 1)
    fake_ollama.misbehave(faults.unauthorized())
    fake_ollama.misbehave(faults.forbidden())
    assert [chat(fake_ollama).status for _ in range(2)] == [503, 401]
    fake_ollama.behave()
    assert chat(fake_ollama).status == 200


def test_rules_hold_for_their_path(fake_ollama: FakeOllama) -> None:
    fake_ollama.misbehave(faults.busy())
    assert once(fake_ollama, "GET", "/api/tags").status == 200
    fake_ollama.misbehave(faults.forbidden(), path=None)
    assert once(fake_ollama, "GET", "/api/tags").status == 403
    assert chat(fake_ollama).status == 503


def test_predicates_choose_requests(fake_ollama: FakeOllama) -> None:
    fake_ollama.misbehave(faults.Status(501), when=when.prompt("bad"))
    fake_ollama.misbehave(faults.Status(502), when=when.model("llama3.2:latest"))
    fake_ollama.misbehave(faults.Status(503), when=when.every(2))
    assert chat(fake_ollama, messages=[{"role": "user", "content": "a bad one"}]).status == 501
    assert chat(fake_ollama, model="llama3.2:latest").status == 502
    assert [chat(fake_ollama).status for _ in range(4)] == [200, 503, 200, 503]


def test_odd_attempts_fail_each_call_once(fake_ollama: FakeOllama) -> None:
    fake_ollama.misbehave(faults.busy(), when=when.odd_attempts())
    statuses = [chat(fake_ollama, options={"seed": seed}).status for seed in (1, 1, 2, 3, 3, 2)]
    assert statuses == [503, 200, 503, 503, 200, 200]


def test_between_is_a_window_in_time() -> None:
    always, later = when.between(0, 60), when.between(60, 90)
    request = RecordedRequest("GET", "/", "/", {}, b"", 1, 1, 1, 1, time.monotonic())
    assert always(request)
    assert not later(request)


class Mistaken:
    """A test's own code that fails, in all the places where the server calls it."""

    def __call__(self, _given: object) -> NoReturn:
        raise LookupError("my mistake")

    async def reply(self, _exchange: faults.Exchange) -> None:
        raise LookupError("my mistake")


MISTAKEN = Mistaken()


@pytest.mark.parametrize("way", ["answer", "predicate", "fault"])
def test_the_tests_own_mistake_comes_out_at_the_end(way: str) -> None:
    server = FakeOllama(answer=MISTAKEN if way == "answer" else None).start()
    if way != "answer":
        server.misbehave(MISTAKEN, when=MISTAKEN if way == "predicate" else None)
    with suppress(OSError):
        chat(server)
    server.wait_for(lambda fake: fake.connections == 1 and fake.open_connections == 0)
    with pytest.raises(RuntimeError, match="my mistake"):
        server.stop()


def test_an_error_in_the_block_is_not_hidden_by_the_servers() -> None:
    def mistaken_twice() -> None:
        with FakeOllama(answer=MISTAKEN) as server:
            with suppress(OSError):
                chat(server)
            raise KeyError("my other mistake")

    with pytest.raises(KeyError, match="my other mistake"):
        mistaken_twice()


def test_two_requests_in_one_packet_are_answered_in_order(fake_ollama: FakeOllama) -> None:
    fake_ollama.misbehave(faults.Stall(0.01), when=when.first(1))
    with open_socket(fake_ollama) as sock:
        sock.sendall(request_bytes({**HI, "stream": False}) + b"GET / HTTP/1.0\r\n\r\n")
        raw = read_to_end(sock)
    assert raw.index(b'"done":true') < raw.index(b"Ollama is running")


def test_a_body_may_come_in_pieces_and_chunks(fake_ollama: FakeOllama) -> None:
    head = b"POST /api/chat HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    pieces = [head[:20], head[20:], b"5\r\n", LOAD[:5], b"\r\n", b"f;x=y\r\n", LOAD[5:], b"\r\n"]
    with open_socket(fake_ollama) as sock:
        for piece in [*pieces, b"0\r\n\r\n"]:
            sock.sendall(piece)
        assert read_to_end(sock).startswith(b"HTTP/1.1 200 OK")
    assert fake_ollama.chats[0].body == LOAD


def test_a_client_that_expects_continue_gets_it(fake_ollama: FakeOllama) -> None:
    head = f"POST /api/chat HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: {len(LOAD)}\r\n\r\n"
    with open_socket(fake_ollama) as sock:
        sock.sendall(head.encode())
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(LOAD)
        assert sock.recv(100).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize(
    "raw",
    [
        b"hello\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
    ],
)
def test_what_is_not_http_is_refused(fake_ollama: FakeOllama, raw: bytes) -> None:
    with open_socket(fake_ollama) as sock:
        sock.sendall(raw)
        assert read_to_end(sock).startswith(b"HTTP/1.1 400 Bad Request\r\n")


@pytest.mark.parametrize("host", ["localhost:1", "192.168.1.7", "[::1]:11434", "ollama.internal"])
def test_local_hosts_are_welcome(fake_ollama: FakeOllama, host: str) -> None:
    with closing(connect(fake_ollama)) as connection:
        headers = {"Host": host, "Origin": "http://localhost:3000"}
        assert ask(connection, "GET", "/api/tags", headers=headers).status == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "8.8.8.8"}, 403),
        ({"Origin": "http://192.168.1.7"}, 403),
        ({"Origin": "app://ollama"}, 200),
        ({"Origin": "http://127.0.0.1:8000"}, 200),
    ],
)
def test_origins_and_hosts_are_judged(
    fake_ollama: FakeOllama, headers: dict[str, str], status: int
) -> None:
    with closing(connect(fake_ollama)) as connection:
        assert ask(connection, "GET", "/api/tags", headers=headers).status == status


def test_a_server_that_does_not_run_takes_no_orders() -> None:
    with pytest.raises(RuntimeError, match="not running"):
        FakeOllama().refuse()


def test_it_can_play_the_proxy(fake_ollama: FakeOllama) -> None:
    with closing(connect(fake_ollama)) as connection:
        target = "http://ollama.example/api/chat"
        assert ask(connection, "POST", target, LOAD, {"Host": "ollama.example"}).status == 200
    assert fake_ollama.chats[0].target == target


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def secure_server(authority: trustme.CA) -> Iterator[FakeOllama]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with FakeOllama(tls=context) as server:
        yield server


def test_it_speaks_tls(authority: trustme.CA, secure_server: FakeOllama) -> None:
    client = ssl.create_default_context()
    authority.configure_trust(client)
    assert secure_server.url == f"https://127.0.0.1:{secure_server.port}"
    plain = open_socket(secure_server)
    with client.wrap_socket(plain, server_hostname="127.0.0.1") as sock:
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert read_to_end(sock).endswith(b"Ollama is running")


def test_a_client_that_distrusts_the_certificate_is_no_mistake(secure_server: FakeOllama) -> None:
    with (
        open_socket(secure_server) as plain,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        ssl.create_default_context().wrap_socket(plain, server_hostname="127.0.0.1")


def test_stopping_does_not_wait_for_a_handshake(secure_server: FakeOllama) -> None:
    with open_socket(secure_server):
        began = time.monotonic()
        secure_server.stop()
        assert time.monotonic() - began < 1


def test_many_threads_are_counted_right(fake_ollama: FakeOllama) -> None:
    def work() -> None:
        with closing(connect(fake_ollama)) as connection:
            for _ in range(20):
                assert ask(connection, "POST", "/api/chat", LOAD).status == 200

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(request.number for request in fake_ollama.requests) == list(range(1, 161))
    assert max(request.attempt for request in fake_ollama.requests) == 160
    assert fake_ollama.in_flight == 0
