"""A site in a process of its own, for tests with several of them and one database.

As a program it obeys lines of standard input, and answers each with a line. Without a database's
tables it works as well, and says so only if asked.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import TracebackType

BOUND = 10.0
DATABASE, SERVER, EVERY, BRIDGE, CACHE = (
    "SITE_DATABASE",
    "SITE_SERVER",
    "SITE_EVERY",
    "SITE_BRIDGE",
    "SITE_CACHE",
)
LOCMEM = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}


class Site:
    """Such a process.

    Args:
        every: the seconds between its looks, None for what it is by itself.
        cache: what ``CACHES`` has for it, if it shares anything.
        bridge: further settings of the bridge.
    """

    def __init__(
        self,
        database: Mapping[str, Any],
        server: str,
        every: float | None = None,
        cache: Mapping[str, Any] = LOCMEM,
        **bridge: object,
    ) -> None:
        environment = {
            **os.environ,
            DATABASE: json.dumps(database),
            SERVER: server,
            BRIDGE: json.dumps(bridge),
            CACHE: json.dumps(cache),
        }
        if every is not None:
            environment[EVERY] = str(every)
        self._process = subprocess.Popen(  # noqa: S603  # our own program
            [sys.executable, "-W", "error", __file__],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._is_killed = False
        self.said = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._is_killed:
            return
        try:
            _, self.said = self._process.communicate(timeout=BOUND)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        if kind is None:
            assert self._process.returncode == 0, self.said

    def kill(self) -> None:
        """End it at once, as the system may."""
        self._is_killed = True
        self._process.kill()
        _, self.said = self._process.communicate()

    def tell(self, *words: str) -> None:
        """Let it do something; ``hear`` what came of it."""
        stdin = self._process.stdin
        assert stdin is not None
        stdin.write(" ".join(words) + "\n")
        stdin.flush()

    def hear(self) -> str:
        stdout = self._process.stdout
        assert stdout is not None
        answer = stdout.readline()
        assert answer, "the site has ended"
        return answer.strip()

    def do(self, *words: str) -> str:
        """Let it do something, and return its answer."""
        self.tell(*words)
        return self.hear()

    def await_(self, wanted: str, *words: str, seconds: float = BOUND) -> float:
        """Let it do something until the answer is as wanted; return the seconds that took."""
        started = time.monotonic()
        while (answer := self.do(*words)) != wanted:
            assert time.monotonic() - started < seconds, f"still {answer!r}, not {wanted!r}"
            time.sleep(0.02)
        return time.monotonic() - started


def _main() -> None:
    import django  # noqa: PLC0415  # only the program needs it
    from django.conf import settings  # noqa: PLC0415  # the same

    settings.configure(
        INSTALLED_APPS=["ollama_bridge"],
        CACHES={"default": json.loads(os.environ[CACHE])},
        DATABASES={"default": json.loads(os.environ[DATABASE])},
        OLLAMA_BRIDGE={
            "BASE_URL": os.environ[SERVER],
            "MAX_RETRIES": 0,
            "OPEN_SECONDS": 60,
            **json.loads(os.environ[BRIDGE]),
        },
        USE_TZ=True,
    )
    django.setup()
    from ollama_bridge.keeping import keeper  # noqa: PLC0415  # the same

    look = keeper.Keeper.look

    def counted(found: keeper.Keeper, changed: str = "") -> None:
        look(found, changed)
        _looks.release()

    setattr(keeper.Keeper, "look", counted)  # noqa: B010  # mypy would not have it otherwise
    keeper.EVERY = float(os.environ.get(EVERY, keeper.EVERY))
    for line in sys.stdin:
        word, *rest = line.split()
        print(_COMMANDS[word](*rest) or "done", flush=True)  # noqa: T201  # the answer


def _migrate(*to: str) -> None:
    from django.core.management import call_command  # noqa: PLC0415  # the same

    call_command("migrate", "ollama_bridge", *to, verbosity=0)


def _create_cache(table: str) -> None:
    from django.core.management import call_command  # noqa: PLC0415  # the same

    call_command("createcachetable", table, verbosity=0)


def _store(mode: str) -> None:
    from django.db import connection, transaction  # noqa: PLC0415  # the same

    from ollama_bridge import ollama_client  # noqa: PLC0415  # the same
    from ollama_bridge.models import EndpointState, Mode  # noqa: PLC0415  # the same

    with transaction.atomic():
        EndpointState.objects.change("default", Mode(mode))
        transaction.on_commit(lambda: ollama_client.mode_changed("default"))
    connection.close()


def _chat() -> str:
    from ollama_bridge import OllamaBridgeError, ollama_client  # noqa: PLC0415  # the same

    started = time.monotonic()
    try:
        ollama_client.chat("What is water?")
    except OllamaBridgeError as error:
        return error.code
    finally:
        _spent.append(time.monotonic() - started)
    return "answered"


def _crowd(calls: str) -> str:
    """Chat so often at once; return how often which answer came, as JSON."""
    with ThreadPoolExecutor(int(calls)) as pool:
        return json.dumps(Counter(pool.map(lambda _: _chat(), range(int(calls)))))


def _chat_in_transaction(seconds: str) -> str:
    """Chat in a transaction that has written, and stays open for so long; it is taken back."""
    from django.db import connection, transaction  # noqa: PLC0415  # the same

    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS work (done integer)")
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO work VALUES (1)")
        answer = _chat()
        time.sleep(float(seconds))
        assert not connection.needs_rollback
        transaction.set_rollback(True)
    connection.close()
    return answer


def _seconds() -> str:
    return str(_spent[-1])


def _cooldown() -> str:
    """Return the seconds that are left, and why."""
    from ollama_bridge import ollama_client  # noqa: PLC0415  # the same

    facts = ollama_client.endpoints["default"]
    return f"{facts.cooldown:.1f} {facts.cooldown_code or 'none'}"


def _quota() -> str:
    from ollama_bridge import ollama_client  # noqa: PLC0415  # the same

    quota = ollama_client.endpoints["default"].quota
    return "none" if quota is None else f"{quota.source} {quota.used:.2f}"


def _reset() -> None:
    from ollama_bridge import ollama_client  # noqa: PLC0415  # the same

    ollama_client.circuit_breaker.reset()


def _row() -> str:
    """Return the stored seconds that are left, and why."""
    from datetime import UTC, datetime  # noqa: PLC0415  # the same

    from django.db import connection  # noqa: PLC0415  # the same

    from ollama_bridge.models import EndpointState, Stored  # noqa: PLC0415  # the same

    row = EndpointState.objects.stored().get("default", Stored("default"))
    connection.close()
    if row.until is None:
        return "none"
    return f"{(row.until - datetime.now(UTC)).total_seconds():.1f} {row.code}"


def _is_stored() -> str:
    return "no" if _row() == "none" else "yes"


def _age(seconds: str) -> None:
    """Let the stored cooldown be so much older."""
    from datetime import timedelta  # noqa: PLC0415  # the same

    from django.db import connection  # noqa: PLC0415  # the same
    from django.db.models import F  # noqa: PLC0415  # the same

    from ollama_bridge.models import EndpointState  # noqa: PLC0415  # the same

    older = F("cooldown_until") - timedelta(seconds=float(seconds))
    assert EndpointState.objects.update(cooldown_until=older) == 1
    connection.close()


def _outlast(times: str) -> None:
    """Wait until it has looked so many times more."""
    while _looks.acquire(blocking=False):
        pass
    for _ in range(int(times) + 1):  # the first may have begun before
        assert _looks.acquire(timeout=BOUND)


def _fork(wanted: str) -> str:
    """Let a forked child chat until it gets the wanted answer; return its first and its last."""
    readable, writable = os.pipe()
    warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)  # it is what is tested
    if not os.fork():
        os.close(readable)
        with os.fdopen(writable, "w") as told:
            told.write(_chat() + "\n")
            told.flush()
            until = time.monotonic() + BOUND
            while (answer := _chat()) != wanted and time.monotonic() < until:
                time.sleep(0.02)
            told.write(answer + "\n")
        os._exit(0)
    os.close(writable)
    with os.fdopen(readable) as heard:
        first = heard.readline().strip()
        _store("forced_open")
        last = heard.readline().strip()
    os.wait()
    return f"{first}, then {last}"


def _close() -> str:
    """Return the seconds that it takes to close the client."""
    from ollama_bridge import ollama_client  # noqa: PLC0415  # the same

    started = time.monotonic()
    ollama_client.close()
    return str(time.monotonic() - started)


_spent: list[float] = []
_looks = threading.Semaphore(0)
_COMMANDS: Mapping[str, Callable[..., str | None]] = {
    "migrate": _migrate,
    "createcachetable": _create_cache,
    "store": _store,
    "chat": _chat,
    "crowd": _crowd,
    "atomic": _chat_in_transaction,
    "seconds": _seconds,
    "cooldown": _cooldown,
    "quota": _quota,
    "reset": _reset,
    "row": _row,
    "is-stored": _is_stored,
    "age": _age,
    "outlast": _outlast,
    "fork": _fork,
    "close": _close,
}

if __name__ == "__main__":
    _main()
