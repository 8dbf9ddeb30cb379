"""A small honest HTTP client: one request, one connection, nothing repeated or repaired."""

import json
import socket
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection, IncompleteRead
from typing import Any

from ollama_bridge.testing import FakeOllama

HI = {"model": "llama3.2", "messages": [{"role": "user", "content": "hi"}]}
CHAT = {**HI, "stream": False}
SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes
    complete: bool

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.body.split(b"\n") if line]

    @property
    def text(self) -> str:
        return str(self.json["message"]["content"])

    def header(self, name: str) -> str | None:
        return dict(self.headers).get(name)


def ask(
    connection: HTTPConnection,
    method: str,
    path: str,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
) -> Answer:
    connection.request(method, path, body, dict(headers or {}))
    response = connection.getresponse()
    try:
        data, complete = response.read(), True
    except IncompleteRead as error:
        data, complete = error.partial, False
    return Answer(response.status, response.headers.items(), data, complete)


def connect(server: FakeOllama) -> HTTPConnection:
    return HTTPConnection("127.0.0.1", server.port, timeout=SECONDS)


def once(server: FakeOllama, method: str, path: str, body: object = None) -> Answer:
    with closing(connect(server)) as connection:
        return ask(connection, method, path, b"" if body is None else json.dumps(body).encode())


def chat(server: FakeOllama, **fields: object) -> Answer:
    return once(server, "POST", "/api/chat", {**CHAT, **fields})


def stream(server: FakeOllama, **fields: object) -> Answer:
    return once(server, "POST", "/api/chat", {**HI, **fields})


def request_bytes(body: object = CHAT, path: str = "/api/chat") -> bytes:
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode() + data


def open_socket(server: FakeOllama) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), SECONDS)


def read_to_end(sock: socket.socket) -> bytes:
    pieces = []
    while piece := sock.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)
