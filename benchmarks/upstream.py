"""A server that answers chats at once, with a constant: what is measured is then the client.

It is a process of its own, ``python -m benchmarks.upstream``, with a blocking thread for each
connection. Its address is its first line; it ends with its standard input, and so with whoever
started it, even if that one is killed.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .contest import CannotRunError

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).resolve().parents[1]
MODEL: Final = "llama3.2"
ANSWER: Final = (
    "Water is a clear liquid without taste or smell. Each of its molecules has two atoms of "
    "hydrogen and one of oxygen. It freezes at 0 and boils at 100 degrees Celsius, at sea level. "
    "Rivers carry it to the sea, the sun lifts it into the air as vapour, and it comes down again "
    "as rain or snow. Plants, animals and people consist of it for the most part, and none of "
    "them can do without it for long. It dissolves salt and sugar, it carries ships, it drives "
    "mills, and it cools what is hot. Most of the Earth is covered with it, but only a small part "
    "of that is fit to drink."
)
_CHAT: Final = {
    "model": MODEL,
    "created_at": "2026-01-01T12:00:00.123456789Z",
    "message": {"role": "assistant", "content": ANSWER},
    "done": True,
    "done_reason": "stop",
    "total_duration": 60614415,
    "load_duration": 2952375,
    "prompt_eval_count": 9,
    "prompt_eval_duration": 15123876,
    "eval_count": 137,
    "eval_duration": 40772360,
}
_MODEL: Final = {
    "name": f"{MODEL}:latest",
    "model": f"{MODEL}:latest",
    "modified_at": "2026-01-01T12:00:00.123456789Z",
    "size": 16696942,
    "digest": "0" * 64,
    "details": {
        "parent_model": "",
        "format": "gguf",
        "family": "llama",
        "families": ["llama"],
        "parameter_size": "3.2B",
        "quantization_level": "Q4_K_M",
    },
}
_END: Final = b"\r\n\r\n"
_PIECE: Final = 65_536


def _response(status: str, kind: str, body: str) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}; charset=utf-8\r\n"
        f"Date: Thu, 01 Jan 2026 12:00:00 GMT\r\nContent-Length: {len(body.encode())}\r\n\r\n"
    )
    return (head + body).encode()


def _json(value: object) -> bytes:
    return _response("200 OK", "application/json", json.dumps(value, separators=(",", ":")))


_CHAT_LINE: Final = b"POST /api/chat"
_RESPONSES: Final = {
    _CHAT_LINE: _json(_CHAT),
    b"GET /api/version": _json({"version": "0.24.0"}),
    b"GET /api/tags": _json({"models": [_MODEL]}),
}
_NOT_FOUND: Final = _response("404 Not Found", "text/plain", "404 page not found")


@contextmanager
def upstream(*, delay: float = 0.0) -> Iterator[str]:
    """Run the server in a process of its own for as long as the block lasts, and give its URL.

    Args:
        delay: seconds before each answer to a chat.

    Raises:
        CannotRunError: it did not start.
    """
    command = [sys.executable, "-m", "benchmarks.upstream", str(delay)]
    with subprocess.Popen(  # noqa: S603  # our own code
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            url = child.stdout.readline().strip() if child.stdout is not None else ""
            if not url:
                raise CannotRunError("The server to measure with did not start; see above")
            yield url
        finally:
            child.kill()


def serve(listener: socket.socket, delay: float) -> None:
    """Answer each connection in a thread of its own, until the listener is closed."""
    with suppress(OSError):
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_converse, args=(connection, delay), daemon=True).start()


def _converse(connection: socket.socket, delay: float) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection, suppress(OSError):
        rest = b""
        while True:
            line, rest = _request(connection, rest)
            if not line:
                return
            if delay and line == _CHAT_LINE:
                time.sleep(delay)
            connection.sendall(_RESPONSES.get(line, _NOT_FOUND))


def _request(connection: socket.socket, data: bytes) -> tuple[bytes, bytes]:
    """Return method and path of the next request, and what came behind it; b"" at the end."""
    while (end := data.find(_END)) < 0:
        piece = connection.recv(_PIECE)
        if not piece:
            return b"", b""
        data += piece
    size = end + len(_END) + _body_length(data[:end])
    while len(data) < size:
        piece = connection.recv(_PIECE)
        if not piece:
            return b"", b""
        data += piece
    return data[: data.find(b" HTTP/")], data[size:]


def _body_length(head: bytes) -> int:
    _, found, value = head.lower().partition(b"\r\ncontent-length:")
    return int(value.split(b"\r\n", 1)[0]) if found else 0


def main() -> None:
    """Serve until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, and that ends us
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        threading.Thread(target=serve, args=(listener, float(sys.argv[1])), daemon=True).start()
        sys.stdout.write(f"http://127.0.0.1:{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
