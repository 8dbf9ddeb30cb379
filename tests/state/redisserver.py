"""A Redis of our own, which tests may kill, flush and start again."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import closing
from importlib import import_module
from typing import TYPE_CHECKING, Any, Self

import pytest
from django.core.cache.backends.redis import RedisCache

from ollama_bridge.state.letters import decode

if TYPE_CHECKING:
    from types import TracebackType

    from ollama_bridge.core.breaker import Snapshot

BOUND = 10.0


class RedisServer:
    """Such a server while the block lasts, in a process of its own; it keeps nothing on disk."""

    def __init__(self) -> None:
        self._redis, self._program = _needed()
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()

    @property
    def cache(self) -> dict[str, Any]:
        """What ``CACHES`` has for it."""
        return {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": f"redis://127.0.0.1:{self.port}/0",
        }

    def start(self) -> None:
        """Begin to serve, with nothing."""
        options = ["--bind", "127.0.0.1", "--port", str(self.port), "--save", ""]
        self._process = subprocess.Popen(  # noqa: S603  # a server that the tests need
            [self._program, *options, "--loglevel", "warning"],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        until = time.monotonic() + BOUND
        while not self._answers():
            assert self._process.poll() is None, "redis-server has ended"
            assert time.monotonic() < until, "redis-server does not answer"
            time.sleep(0.005)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Let it neither answer nor end, until ``thaw``."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def do(self, *words: str) -> Any:
        """Let it do something, and return its answer."""
        with closing(self._redis.Redis(port=self.port, decode_responses=True)) as client:
            return client.execute_command(*words)

    def told(self, prefix: str) -> dict[str, Snapshot]:
        """Return what processes with this prefix have told of each generation, by its key."""
        cache = RedisCache(self.cache["LOCATION"], {})
        keys = [key.removeprefix(":1:") for key in self.do("KEYS", f":1:{prefix}:circuit:*:*")]
        letters = {key: decode(text) for key, text in cache.get_many(keys).items()}
        return {key: letter.snapshot for key, letter in letters.items() if letter is not None}

    def connections(self) -> int:
        """Return how many clients are connected, as soon as there are none, or at last."""
        until = time.monotonic() + BOUND
        while True:
            found = int(self.do("INFO", "clients")["connected_clients"]) - 1  # without this one
            if not found or time.monotonic() > until:
                return found
            time.sleep(0.01)

    def commands(self) -> dict[str, int]:
        """Return how often each command was done since ``CONFIG RESETSTAT``."""
        told = self.do("INFO", "commandstats")
        return {name.removeprefix("cmdstat_"): facts["calls"] for name, facts in told.items()}

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True


def _needed() -> tuple[Any, str]:
    """Return the client's module and the server's program, which CI must have."""
    program = shutil.which("redis-server")
    try:
        module = import_module("redis")  # it may be missing
    except ModuleNotFoundError:
        module = None
    if module is None or program is None:
        missing = "no redis-server on the PATH" if program is None else "no redis in this Python"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return module, program
