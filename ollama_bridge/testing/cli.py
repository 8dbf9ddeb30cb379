"""The simulator as a program: its arguments and its life until a signal ends it."""

import errno
import re
import signal
import threading
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from inspect import signature
from typing import Any, TextIO

from . import faults, when
from .recorded import RecordedRequest
from .server import FakeOllama

DESCRIPTION = "Run a simulated Ollama server, which can also misbehave."
DEFAULT_PORT = 11434
_LAST_PORT = 65535
_WAKE_SECONDS = 1.0


class CannotListenError(Exception):
    """The address cannot be listened on; the message says what to do."""


def add_arguments(parser: ArgumentParser) -> None:
    """Give the parser the simulator's arguments."""
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    add(
        "--port", type=_port, default=DEFAULT_PORT, help="0 takes a free one (default: %(default)s)"
    )
    add("--model", action="append", metavar="NAME", help="installed model (repeatable)")
    add("--answer", metavar="TEXT", help="what the model says to everything")
    add("--tokens-per-second", type=float, default=40.0, metavar="N", help="0: all at once")
    add(
        "--fault",
        type=known_fault,
        metavar="NAME",
        help=f"misbehave on /api/chat: one of the following: {', '.join(sorted(simple_faults()))}",
    )
    add(
        "--every",
        type=_positive,
        default=1,
        metavar="N",
        help="… on each N-th chat (default: 1)",
    )
    add("--quiet", action="store_true", help="no line for each request")


def parser() -> ArgumentParser:
    """Return the parser of `python -m ollama_bridge.testing`."""
    made = ArgumentParser(prog="python -m ollama_bridge.testing", description=DESCRIPTION)
    add_arguments(made)
    return made


def simple_faults() -> dict[str, Callable[[], faults.Fault]]:
    """Return the makers of those faults that need no arguments, by name."""
    makers = {kebab(name): getattr(faults, name) for name in faults.__all__}
    return {name: make for name, make in makers.items() if _needs_nothing(make)}


def kebab(name: str) -> str:
    """`BlackHole` and `black_hole` become `black-hole`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).replace("_", "-").lower()


def _needs_nothing(make: Callable[..., object]) -> bool:
    parameters = signature(make).parameters.values()
    return all(parameter.default is not parameter.empty for parameter in parameters)


def _port(word: str) -> int:
    port = int(word)
    if not 0 <= port <= _LAST_PORT:
        raise ArgumentTypeError(f"a port is a number from 0 to {_LAST_PORT}")
    return port


def _positive(word: str) -> int:
    number = int(word)
    if number < 1:
        raise ArgumentTypeError("it must be at least 1")
    return number


def known_fault(name: str) -> str:
    """Return the name of a fault.

    Raises:
        ArgumentTypeError: there is none of that name; the message lists them all.
    """
    if name not in simple_faults():
        raise ArgumentTypeError(
            f"no fault is named {name!r}; there are: {', '.join(sorted(simple_faults()))}"
        )
    return name


def run(options: Mapping[str, Any], out: TextIO, err: TextIO) -> None:
    """Serve until SIGINT or SIGTERM; call it from the main thread.

    Args:
        options: The parsed arguments by name.
        out: Gets one line with the URL.
        err: Gets a line for each request, without prompts.

    Raises:
        CannotListenError: the port is taken or not ours to take.
    """
    server = build(options, err)
    with _until_signal() as stopped:
        _start(server, options)
        with server:
            out.write(f"{server.url}\n")
            out.flush()
            while not stopped.wait(_WAKE_SECONDS):
                """Windows handles a signal only between two waits."""


def build(options: Mapping[str, Any], err: TextIO) -> FakeOllama:
    """Return the server that the arguments describe, not started."""
    fault: str | None = options["fault"]

    def report(request: RecordedRequest, met: faults.Fault | None) -> None:
        words = [f"#{request.number}", request.method, request.path, request.model]
        err.write(" ".join(words).rstrip() + (f" -> {fault}\n" if met else "\n"))
        err.flush()

    server = FakeOllama(
        models=options["model"] or ("llama3.2",),
        answer=options["answer"],
        host=options["host"],
        port=options["port"],
        tokens_per_second=options["tokens_per_second"] or None,
        keep_requests=False,
        on_request=None if options["quiet"] else report,
    )
    if fault is not None:
        server.misbehave(simple_faults()[fault](), when=when.every(options["every"]))
    return server


def _start(server: FakeOllama, options: Mapping[str, Any]) -> None:
    port = options["port"]
    try:
        server.start()
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            where = f"{options['host']}:{port}"
            raise CannotListenError(f"cannot listen on {where}: {error.strerror}") from error
        raise CannotListenError(
            f"port {port} is in use (is Ollama itself running?). Choose another: --port {port + 1}"
        ) from error


@contextmanager
def _until_signal() -> Iterator[threading.Event]:
    """Give an event that SIGINT and SIGTERM set; afterwards they mean what they meant before."""
    stopped = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: stopped.set()) for number in numbers]
    try:
        yield stopped
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
