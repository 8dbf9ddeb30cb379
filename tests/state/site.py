"""A site in a process of its own, which shares its circuits with others through some cache.

As a program it obeys lines of standard input, ``[word, …]`` in JSON, and answers each with one.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from ollama_bridge import OllamaClient

ROOT = Path(__file__).parents[2]
BOUND = 20.0
VARIABLE = "SITE"
ALONE = "Cannot share circuits with other processes, going on alone: "


class Site:
    """Such a process.

    Args:
        cache: what ``CACHES`` has for it.
        database: what ``DATABASES`` has for it.
        fault: the error of the cache that it may complain of.
    """

    def __init__(
        self,
        cache: Mapping[str, Any],
        database: Mapping[str, Any] | None = None,
        fault: str = "ConnectionError",
    ) -> None:
        site = {"cache": cache, "database": database}
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "tests.state.site"],
            cwd=ROOT,
            env={**os.environ, VARIABLE: json.dumps(site)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.said = ""
        self._complaint = ALONE + fault

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            _, self.said = self._process.communicate(timeout=BOUND)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        if kind is None:
            assert self._process.returncode == 0, self.said
            lines = self.said.splitlines()
            assert all(line == self._complaint for line in lines), self.said

    def kill(self) -> None:
        """End it at once, as the system may."""
        self._process.kill()
        _, self.said = self._process.communicate()

    def tell(self, *words: object) -> None:
        """Let it do something; ``hear`` what came of it."""
        stdin = self._process.stdin
        assert stdin is not None
        stdin.write(json.dumps(words) + "\n")
        stdin.flush()

    def hear(self) -> Any:
        stdout = self._process.stdout
        assert stdout is not None
        answer = stdout.readline()
        assert answer, "the site has ended"
        return json.loads(answer)

    def do(self, *words: object) -> Any:
        """Let it do something, and return its answer."""
        self.tell(*words)
        return self.hear()

    def begin(self, server: str, **bridge: object) -> None:
        """Begin afresh, with these settings of the bridge."""
        self.do("begin", {"BASE_URL": server, "MAX_RETRIES": 0, "TIMEOUT": 10, **bridge})

    def chat(self) -> str:
        """Return "answered", or the code of the error."""
        found: str = self.do("chat")
        return found

    def circuit(self, name: str = "default") -> tuple[str, int, str]:
        """Return state, generation and mode, as far as this process knows."""
        state, generation, mode = self.do("circuit", name)
        return state, generation, mode

    def await_(self, wanted: str) -> float:
        """Let it chat until the answer is as wanted; return the seconds that took."""
        started = time.monotonic()
        while (answer := self.chat()) != wanted:
            assert time.monotonic() - started < BOUND, f"still {answer!r}, not {wanted!r}"
            time.sleep(0.01)
        return time.monotonic() - started


def all_do(sites: list[Site], *words: object) -> list[Any]:
    """Let all do something at the same time, and return their answers."""
    for site in sites:
        site.tell(*words)
    return [site.hear() for site in sites]


def _main() -> None:
    import django  # noqa: PLC0415  # only the program needs it
    from django.conf import settings  # noqa: PLC0415  # the same

    site = json.loads(os.environ[VARIABLE])
    nowhere = {"ENGINE": "django.db.backends.dummy"}
    settings.configure(
        INSTALLED_APPS=["ollama_bridge"],
        CACHES={"default": site["cache"]},
        DATABASES={"default": site["database"] or nowhere},
        LOGGING_CONFIG=None,
        USE_TZ=True,
    )
    django.setup()
    logging.getLogger().addHandler(logging.NullHandler())  # calls may fail as they like
    logging.getLogger("ollama_bridge.state").addHandler(logging.StreamHandler())
    from tests.state import waits  # noqa: PLC0415  # the same

    with waits.recorded(_waits):
        for line in sys.stdin:
            word, *rest = json.loads(line)
            print(json.dumps(_COMMANDS[word](*rest)), flush=True)  # noqa: T201  # the answer


def _begin(bridge: Mapping[str, object]) -> None:
    from django.test import override_settings  # noqa: PLC0415  # the same

    override_settings(OLLAMA_BRIDGE=bridge).enable()
    _client().close()


def _create_table(name: str) -> None:
    from django.core.management import call_command  # noqa: PLC0415  # the same

    call_command("createcachetable", name, verbosity=0)


def _be_lenient(seconds: float) -> None:
    """Grant a probe so much more than its call has."""
    from ollama_bridge.core import breaker  # noqa: PLC0415  # the same

    breaker.LEASE_GRACE = seconds


def _move(how: str) -> None:
    getattr(_client().circuit_breaker, how)()


def _health() -> str:
    return _client().health_check().circuit.value


def _circuit(name: str) -> object:
    found = _client().circuit_breakers[name]
    return found.state, found.generation, found.mode


def _crowd(calls: int) -> object:
    """Return how often which answer came to so many calls at once."""
    with ThreadPoolExecutor(calls) as pool:
        return Counter(pool.map(lambda _: _chat(), range(calls)))


def _persist() -> str:
    """Return the first answer that is no refusal."""
    while (answer := _chat()) == "circuit_open":
        time.sleep(0.01)
    return answer


def _client() -> OllamaClient:
    from ollama_bridge import ollama_client  # noqa: PLC0415  # the same

    return ollama_client


def _chat() -> str:
    from ollama_bridge import OllamaBridgeError  # noqa: PLC0415  # the same

    try:
        _client().chat("What is water?")
    except OllamaBridgeError as error:
        return error.code
    return "answered"


def _keep(seconds: float, pause: float) -> object:
    """Chat for so many seconds; return how often which answer came, and all waits."""
    _waits.clear()
    until = time.monotonic() + seconds
    told: Counter[str] = Counter()
    while time.monotonic() < until:
        told[_chat()] += 1
        time.sleep(pause)
    return told, _waits


def _forked() -> str:
    """Return what a forked child is answered: that the circuit is open, as soon as it knows."""
    readable, writable = os.pipe()
    warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)  # it is what is tested
    child = os.fork()
    if not child:
        os.close(readable)
        with os.fdopen(writable, "w") as told:
            until = time.monotonic() + BOUND
            while (answer := _chat()) != "circuit_open" and time.monotonic() < until:
                time.sleep(0.01)
            told.write(answer)
        os._exit(0)
    os.close(writable)
    with os.fdopen(readable) as heard:
        answer = heard.read()
    os.waitpid(child, 0)
    return answer


def _in_transaction(times: int, after: float = 0.0) -> object:
    """Chat in a transaction that has written, and is taken back; return answers and waits."""
    from django.db import connection, transaction  # noqa: PLC0415  # the same

    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS work (done integer)")
    _waits.clear()
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO work VALUES (1)")
        time.sleep(after)
        told = [_chat() for _ in range(times)]
        assert not connection.needs_rollback
        transaction.set_rollback(True)
    connection.close()
    return told, _waits


_waits: list[float] = []
_COMMANDS: Mapping[str, Callable[..., object]] = {
    "begin": _begin,
    "createcachetable": _create_table,
    "grace": _be_lenient,
    "move": _move,
    "circuit": _circuit,
    "health": _health,
    "chat": _chat,
    "crowd": _crowd,
    "keep": _keep,
    "persist": _persist,
    "atomic": _in_transaction,
    "fork": _forked,
}

if __name__ == "__main__":
    _main()
