"""What may stand between a client and its server."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from tests.net.rawserver import RawServer, read_head

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    Pump = Callable[[socket.socket, socket.socket], None]


def pump(source: socket.socket, sink: socket.socket) -> None:
    """Hand on whatever comes, up to the end."""
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


class Relay(RawServer):
    """Hands on bytes to a port and back; what comes back one byte each ``interval`` seconds."""

    def __init__(self, port: int) -> None:
        super().__init__(self._relay)
        self._target = port
        self.interval = 0.0

    def _relay(self, sock: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", self._target)) as onward:
            join(sock, onward, self._back)

    def _back(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                step = 1 if self.interval else len(data)
                for at in range(0, len(data), step):
                    sink.sendall(data[at : at + step])
                    if self.stopping.wait(self.interval):
                        return


class ConnectProxy(RawServer):
    """An HTTP proxy for CONNECT that leads every name to one port, and records what it is asked.

    Args:
        port: where every tunnel ends.
        answer: what it says to a CONNECT; a tunnel begins only after a 200.
    """

    def __init__(
        self,
        port: int,
        *,
        answer: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(self._tunnel, tls=tls)
        self._target = port
        self._answer = answer
        self.heads: list[str] = []

    def _tunnel(self, sock: socket.socket) -> None:
        head = read_head(sock)
        if not head:
            return
        self.heads.append(head.decode("latin-1"))
        sock.sendall(self._answer)
        if b" 200 " in self._answer:
            with socket.create_connection(("127.0.0.1", self._target)) as onward:
                join(sock, onward)


def join(sock: socket.socket, onward: socket.socket, back: Pump = pump) -> None:
    """Hand on bytes both ways, until both sides have ended."""
    returning = threading.Thread(target=back, args=(onward, sock), daemon=True)
    returning.start()
    pump(sock, onward)
    with suppress(OSError):
        onward.shutdown(socket.SHUT_RDWR)
    returning.join()
