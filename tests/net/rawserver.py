"""Servers of plain sockets, for what is below HTTP."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from types import TracebackType

    Serve = Callable[[socket.socket], None]

_ENDED = b"\r\n\r\n"


class RawServer:
    """Serves each connection by a function, in a thread of its own; the port is a free one.

    Leaving the block ends all connections. ``stopping`` is set then, for servers that wait.
    """

    def __init__(
        self, serve: Serve, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
    ) -> None:
        self._serve = serve
        self._tls = tls
        self._listener = socket.create_server((host, 0))
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._errors: list[Exception] = []
        self.host = host
        self.port: int = self._listener.getsockname()[1]
        self.stopping = threading.Event()
        self.accepted = 0

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://{self.host}:{self.port}"

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stopping.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._listener.close()
        for sock in self._sockets:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join()
        if self._errors and error is None:
            raise self._errors[0]

    def _start(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self.accepted += 1
                self._sockets.append(sock)
                self._start(partial(self._work, sock))

    def _work(self, sock: socket.socket) -> None:
        try:
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_side=True)
                self._sockets.append(sock)
            self._serve(sock)
        except OSError:
            pass  # the client left, or the test is over
        except Exception as error:  # noqa: BLE001  # raised where the test sees it
            self._errors.append(error)
        finally:
            sock.close()


def read_head(sock: socket.socket) -> bytes:
    """Return what comes up to the end of an HTTP head, b"" where nothing comes any more."""
    data = b""
    while _ENDED not in data:
        piece = sock.recv(65536)
        if not piece:
            return b""
        data += piece
    return data


def read_request(sock: socket.socket) -> bytes:
    """Return a whole request with its body, b"" where none comes any more."""
    data = read_head(sock)
    if not data:
        return b""
    head, _, body = data.partition(_ENDED)
    lines = head.decode("latin-1").lower().split("\r\n")
    size = next((int(line[15:]) for line in lines if line.startswith("content-length:")), 0)
    while len(body) < size:
        piece = sock.recv(65536)
        if not piece:
            return b""
        body += piece
    return head + _ENDED + body


class ConnectBlackHole:
    """A port where nobody answers a connect: its queue of waiting connections is full."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self._listener = socket.socket()
        self._listener.bind((host, port))
        self._listener.listen(0)
        self.host = host
        self.port: int = self._listener.getsockname()[1]
        self._waiting: list[socket.socket] = []
        for _ in range(4):
            sock = socket.socket()
            sock.settimeout(0)
            sock.connect_ex((host, self.port))
            self._waiting.append(sock)

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for sock in (*self._waiting, self._listener):
            sock.close()
