"""The thread, the event loop and the listening socket of a fake server."""

import asyncio
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress

from .connection import Connection, Host

_BACKLOG = 4096
_ORDER_SECONDS = 5.0


class Engine:
    """Runs connections in a daemon thread; its methods may be called from any other thread."""

    def __init__(self, host: Host, address: tuple[str, int], tls: ssl.SSLContext | None) -> None:
        self._host = host
        self._tls = tls
        self._thread: threading.Thread | None = None
        self._adopting: dict[asyncio.Task[None], socket.socket] = {}
        self.address = address
        self.errors: list[object] = []
        """What failed in the loop: answers, predicates or faults of the test."""

    @property
    def running(self) -> bool:
        return self._thread is not None

    def start(self) -> None:
        """Listen.

        Raises:
            OSError: the port is taken.
            RuntimeError: it runs already.
        """
        if self.running:
            raise RuntimeError("this server runs already")
        self._reserved = bound(self.address)
        self.address = (self.address[0], self._reserved.getsockname()[1])
        if sys.platform != "linux":
            self._reserved.close()
        ready: Future[asyncio.AbstractEventLoop] = Future()
        thread = threading.Thread(target=self._work, args=(ready,), name="FakeOllama", daemon=True)
        thread.start()
        self._loop = ready.result()
        self._thread = thread

    def stop(self) -> None:
        """End all connections and the thread."""
        if self._thread is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join()
            self._thread = None

    def refuse(self) -> None:
        """Reset all connections and refuse new ones."""
        self._order(self._refuse)

    def listen(self) -> None:
        """Accept connections, on the same port as before."""
        self._order(self._listen)

    def _order(self, order: Callable[[], Coroutine[None, None, None]]) -> None:
        if self._thread in (None, threading.current_thread()):
            raise RuntimeError("the server is not running, or this is its own thread")
        asyncio.run_coroutine_threadsafe(order(), self._loop).result(_ORDER_SECONDS)

    def _work(self, ready: "Future[asyncio.AbstractEventLoop]") -> None:
        # Of all loops this kind can watch a listening socket everywhere.
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(self._run(ready))

    async def _run(self, ready: "Future[asyncio.AbstractEventLoop]") -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: self._note(context))
        self._stopping = asyncio.Event()
        try:
            await self._listen()
        except OSError as error:
            ready.set_exception(error)
        else:
            ready.set_result(loop)
            await self._stopping.wait()
            await self._refuse()
        finally:
            self._reserved.close()

    def _note(self, context: dict[str, object]) -> None:
        self.errors.append(context.get("exception") or context["message"])

    async def _listen(self) -> None:
        if not self._host.listening:
            self._listener = bound(self.address)
            self._listener.settimeout(0)
            self._listener.listen(_BACKLOG)
            asyncio.get_running_loop().add_reader(self._listener, self._accept)
            self._host.listening = True

    def _accept(self) -> None:
        """Accept all who wait.

        asyncio's own server is no use here: closed at the wrong moment, it forgets sockets that it
        has accepted and not yet handed on.
        """
        with suppress(BlockingIOError, ConnectionAbortedError):
            while True:
                sock, _ = self._listener.accept()
                sock.settimeout(0)
                task = asyncio.get_running_loop().create_task(self._adopt(sock))
                self._adopting[task] = sock
                task.add_done_callback(self._adopted)

    async def _adopt(self, sock: socket.socket) -> None:
        with suppress(OSError):  # a client that does not like our certificate
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: Connection(self._host), sock, ssl=self._tls
            )

    def _adopted(self, task: asyncio.Task[None]) -> None:
        sock = self._adopting.pop(task)
        if task.cancelled():
            sock.close()

    async def _refuse(self) -> None:
        if self._host.listening:
            self._host.listening = False
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
        while self._adopting or self._host.busy:
            for connection in tuple(self._host.connections):
                connection.abort()
            for task in tuple(self._adopting) if self._tls else ():
                task.cancel()  # A handshake may take for ever.
            await asyncio.sleep(0)


def bound(address: tuple[str, int]) -> socket.socket:
    """Return a socket that holds the address and does not listen.

    On Linux a second one may be bound beside it as long as only one listens: so a server that
    refuses keeps its port, and nobody else gets it before it comes back.

    Raises:
        OSError: somebody else listens there.
    """
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    # asyncio sends small pieces at once, without Nagle's delay, only where TCP is named.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if sys.platform != "win32":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock
