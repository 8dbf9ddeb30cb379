"""A server that answers chats at once, with a constant: what is measured is then the client.

It is a process of its own, ``python -m benchmarks.upstream``, with a blocking thread for each
connection: nothing answers a single caller sooner. For crowds and streams there is ``looped``.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from . import children
from .replies import CHAT, NOT_FOUND, RESPONSES

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

END: Final = b"\r\n\r\n"
_PIECE: Final = 65_536


def upstream(*, delay: float = 0.0) -> AbstractContextManager[str]:
    """Run the server for as long as the block lasts, and give its URL.

    Args:
        delay: seconds before each answer to a chat.

    Raises:
        CannotRunError: it did not start.
    """
    return children.server("benchmarks.upstream", delay)


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
            if delay and line == CHAT:
                time.sleep(delay)
            connection.sendall(RESPONSES.get(line, NOT_FOUND))


def _request(connection: socket.socket, data: bytes) -> tuple[bytes, bytes]:
    """Return method and path of the next request, and what came behind it; b"" at the end."""
    while (end := data.find(END)) < 0:
        piece = connection.recv(_PIECE)
        if not piece:
            return b"", b""
        data += piece
    size = end + len(END) + body_length(data[:end])
    while len(data) < size:
        piece = connection.recv(_PIECE)
        if not piece:
            return b"", b""
        data += piece
    return data[: data.find(b" HTTP/")], data[size:]


def body_length(head: bytes) -> int:
    """Return how long the body is that follows this head."""
    _, found, value = head.lower().partition(b"\r\ncontent-length:")
    return int(value.split(b"\r\n", 1)[0]) if found else 0


def main() -> None:
    """Serve until standard input ends."""
    children.leave_interrupts_to_the_parent()
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        threading.Thread(target=serve, args=(listener, float(sys.argv[1])), daemon=True).start()
        children.tell(listener.getsockname()[1])
        children.wait_for_the_end()


if __name__ == "__main__":
    main()
