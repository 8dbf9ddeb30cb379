"""The demo's server: uvicorn, and static files with it."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler

from .asgi import application

GRACE = 2  # seconds for views that wait in a thread


class Server(uvicorn.Server):
    """Ends at once, for an open stream would last as long as its answer."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Leave all clients, as if they had left us: whoever streams to them stops upstream too."""
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await super().shutdown(sockets)


def serve(listener: socket.socket) -> None:
    """Serve the demo until it is told to end, and close the listener.

    Raises:
        KeyboardInterrupt: it was Ctrl-C, or SIGTERM within ``ending_quietly``.
    """
    config = uvicorn.Config(
        ASGIStaticFilesHandler(application),
        interface="asgi3",
        lifespan="off",  # Django has none
        ws="none",
        log_config=None,  # Django's LOGGING holds
        proxy_headers=False,  # else each visitor of this machine says which address is throttled
        timeout_graceful_shutdown=GRACE,
    )
    Server(config).run([listener])


@contextmanager
def ending_quietly() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the block, whatever it does just now, without a word."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        signal.raise_signal(signal.SIGINT)

    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.SIGTERM: signal.signal(signal.SIGTERM, interrupt),
    }
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """Hold the address from now on; who comes early, waits until it is served.

    Raises:
        OSError: it is taken, or is not ours to take.
    """
    bare = host.strip("[]")
    with socket.socket(socket.AF_INET6 if ":" in bare else socket.AF_INET) as listener:
        if os.name == "posix":  # elsewhere this would mean "share it"
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((bare, port))
        listener.listen()
        yield listener
