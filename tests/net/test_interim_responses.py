"""Responses before the response: nobody may ever get the answer to somebody else's question."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from ollama_bridge import InvalidReply, OllamaClient


class Server:
    """Answers each request with its own prompt, after whatever ``before`` holds."""

    def __init__(self, before: bytes) -> None:
        self.before = before
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines:
            while (size := self._skip_head(lines)) is not None:
                asked = json.loads(lines.read(size))["messages"][-1]["content"]
                message = {"role": "assistant", "content": f"answer to {asked}"}
                body = json.dumps({"message": message, "done": True}).encode()
                head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
                with suppress(OSError):  # who was told of another protocol does not listen on
                    connection.sendall(self.before + head + body)

    @staticmethod
    def _skip_head(lines: object) -> int | None:
        size = None
        for line in lines:  # type: ignore[attr-defined]  # a file
            if line.lower().startswith(b"content-length:"):
                size = int(line.partition(b":")[2])
            if line == b"\r\n":
                return size
        return None


@pytest.fixture(params=[100, 102, 103, 199])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    interim = b"HTTP/1.1 %d Wait\r\nLink: </x>; rel=preload\r\n\r\n" % request.param
    server = Server(interim * 2)
    yield server
    server.close()


def test_everybody_gets_their_own_answer_on_the_one_connection(server: Server) -> None:
    with OllamaClient(base_url=server.url) as client:
        for who in ("Alice", "Bob", "Carol"):
            assert client.chat(who) == f"answer to {who}"
    assert server.connections == 1


def test_a_switch_of_protocols_is_refused_and_its_connection_not_used_again() -> None:
    server = Server(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n")
    with OllamaClient(base_url=server.url, max_retries=0) as client:
        for number in (1, 2):
            with pytest.raises(InvalidReply, match="not HTTP"):
                client.chat("Alice")
            assert server.connections == number
    server.close()
