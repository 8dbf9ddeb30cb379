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
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

BOUND = 10.0
DATABASE, SERVER, EVERY = "SITE_DATABASE", "SITE_SERVER", "SITE_EVERY"


class Site:
    """Such a process; ``every`` is the seconds between its looks, None for what it is by itself."""

    def __init__(
        self, database: Mapping[str, Any], server: str, every: float | None = None
    ) -> None:
        environment = {**os.environ, DATABASE: json.dumps(database), SERVER: server}
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
        self.said = ""

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
            self._process.kill()
            _, self.said = self._process.communicate()
            raise
        if kind is None:
            assert self._process.returncode == 0, self.said

    def do(self, *words: str) -> str:
        """Let it do something, and return its answer."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(" ".join(words) + "\n")
        stdin.flush()
        answer = stdout.readline()
        assert answer, "the site has ended"
        return answer.strip()

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
        DATABASES={"default": json.loads(os.environ[DATABASE])},
        OLLAMA_BRIDGE={
            "BASE_URL": os.environ[SERVER],
            "MAX_RETRIES": 0,
            "OPEN_SECONDS": 60,
        },
        USE_TZ=True,
    )
    django.setup()
    from ollama_bridge import modes  # noqa: PLC0415  # the same

    look = modes.Watch.look

    def counted(watch: modes.Watch, changed: str = "") -> None:
        look(watch, changed)
        _looks.release()

    setattr(modes.Watch, "look", counted)  # noqa: B010  # mypy would not have it otherwise
    modes.EVERY = float(os.environ.get(EVERY, modes.EVERY))
    for line in sys.stdin:
        print(_obey(*line.split()), flush=True)  # noqa: T201  # the answer


def _obey(word: str, *rest: str) -> str:
    from django.core.management import call_command  # noqa: PLC0415  # the same
    from django.db import connection, transaction  # noqa: PLC0415  # the same

    from ollama_bridge import OllamaBridgeError, ollama_client  # noqa: PLC0415  # the same
    from ollama_bridge.models import EndpointState, Mode  # noqa: PLC0415  # the same

    match word:
        case "migrate":
            call_command("migrate", verbosity=0)
        case "store":
            with transaction.atomic():
                EndpointState.objects.change("default", Mode(rest[0]))
                transaction.on_commit(lambda: ollama_client.mode_changed("default"))
            connection.close()
        case "chat":
            started = time.monotonic()
            try:
                ollama_client.chat("What is water?")
            except OllamaBridgeError as error:
                return error.code
            finally:
                _spent.append(time.monotonic() - started)
            return "answered"
        case "seconds":
            return str(_spent[-1])
        case "outlast":  # so many looks
            _outlast(int(rest[0]))
        case "fork":
            return _forked(rest[0])
        case "close":
            started = time.monotonic()
            ollama_client.close()
            return str(time.monotonic() - started)
    return "done"


_spent: list[float] = []
_looks = threading.Semaphore(0)


def _outlast(times: int) -> None:
    """Wait until it has looked so many times more."""
    while _looks.acquire(blocking=False):
        pass
    for _ in range(times + 1):  # the first may have begun before
        assert _looks.acquire(timeout=BOUND)


def _forked(wanted: str) -> str:
    """Let a forked child chat until it gets the wanted answer; return its first and its last."""
    readable, writable = os.pipe()
    warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)  # it is what is tested
    if not os.fork():
        os.close(readable)
        with os.fdopen(writable, "w") as told:
            told.write(_obey("chat") + "\n")
            told.flush()
            until = time.monotonic() + BOUND
            while (answer := _obey("chat")) != wanted and time.monotonic() < until:
                time.sleep(0.02)
            told.write(answer + "\n")
        os._exit(0)
    os.close(writable)
    with os.fdopen(readable) as heard:
        first = heard.readline().strip()
        _obey("store", "forced_open")
        last = heard.readline().strip()
    os.wait()
    return f"{first}, then {last}"


if __name__ == "__main__":
    _main()
