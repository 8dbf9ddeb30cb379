"""A site behind a real server, in a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, TYPE_CHECKING, Any, Final

from .reading import Answer
from .settings import VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT: Final = Path(__file__).parents[2]
BOUND: Final = 20.0
"""Seconds for what takes a moment on a machine that has nothing else to do."""

ECHO: Final = 0.1

GUNICORN: Final = "gunicorn"
UVICORN: Final = "uvicorn"
_COMMANDS: Final[Mapping[str, tuple[str, ...]]] = {
    GUNICORN: ("-k", "gthread", "--threads", "12", "--bind", "127.0.0.1:0"),
    UVICORN: ("--port", "0", "--lifespan", "off", "--no-access-log", "--no-use-colors"),
}
_APPLICATIONS: Final[Mapping[str, tuple[str, ...]]] = {
    GUNICORN: ("django.core.wsgi:get_wsgi_application()",),
    UVICORN: ("--factory", "django.core.asgi:get_asgi_application"),
}
# Uvicorn ends by the signal that it got: SIGINT lets Python end in good order.
_ENDING: Final[Mapping[str, signal.Signals]] = {
    GUNICORN: signal.SIGTERM,
    UVICORN: signal.SIGINT,
}
_LISTENING: Final = re.compile(r"(?:Listening at:|Uvicorn running on) http://127\.0\.0\.1:(\d+)")
_NO_NEWS: Final = re.compile(r"INFO: |\[[^]]+\] \[\d+\] \[INFO\] ")

QUICK: Final[Mapping[str, Any]] = {
    "PERMISSION_CLASSES": [],
    "THROTTLE_RATE": None,
    "RETRY_INITIAL_DELAY": 0.001,
    "RETRY_MAX_DELAY": 0.002,
}
"""Settings of the bridge that tests have in common."""


class Server:
    """Such a server while it runs.

    Attributes:
        kind: GUNICORN or UVICORN.
        said: the lines that it wrote, except for plain information.
    """

    def __init__(self, kind: str, process: subprocess.Popen[str], upstream: str) -> None:
        self.kind = kind
        self.said: list[str] = []
        self.port = 0
        self._process = process
        self._upstream = upstream
        self._listening = threading.Event()
        self._reader = threading.Thread(target=self._listen, args=(process.stderr,))
        self._reader.start()

    def wait_until_it_listens(self) -> None:
        assert self._listening.wait(BOUND), self.said
        assert self.port, self.said

    def configure(self, *, heartbeat: float = 15.0, lease: float = BOUND, **bridge: object) -> None:
        """Let the site begin anew, with these settings of the bridge.

        ``heartbeat`` is the seconds of silence before one; its repetition follows ``ECHO`` later.
        After ``lease`` seconds a stream ends that nobody has begun to read.
        """
        settings = {"BASE_URL": self._upstream, **QUICK, **bridge}
        body = {"heartbeats": [heartbeat, ECHO], "lease": lease, "bridge": settings}
        with self.post("/controls/configure/", body) as answer:
            assert answer.status == 200, answer.text()

    def let_go(self) -> None:
        """Let responses pass that ``controls.WayOut`` holds."""
        with self.request("GET", "/controls/let-go/") as answer:
            assert answer.status == 200

    def state(self) -> dict[str, Any]:
        """Return what ``controls.state`` tells."""
        with self.request("GET", "/controls/state/") as answer:
            found: dict[str, Any] = answer.json()
        return found

    def wait_for_state(self, wanted: dict[str, Any]) -> None:
        """Wait until the state is as wanted."""
        until = time.monotonic() + BOUND
        while (found := self.state()) != found | wanted:
            assert time.monotonic() < until, found
            time.sleep(0.02)

    def post(self, path: str, body: object, **headers: str) -> Answer:
        sent = json.dumps(body).encode()
        return self.request("POST", path, sent, {"Content-Type": "application/json", **headers})

    def chat(self, path: str = "/api/chat/", **fields: object) -> Answer:
        """Ask a question, as a browser would that takes compressed answers."""
        question = {"message": "What is water?", **fields}
        return self.post(path, question, **{"Accept-Encoding": "gzip"})

    def stream(self, path: str = "/api/chat/", **fields: object) -> Answer:
        return self.chat(path, stream=True, **fields)

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] = {}
    ) -> Answer:
        connection = self.begin(method, path, body, headers)
        try:
            return Answer(connection, connection.getresponse())
        except BaseException:
            connection.close()
            raise

    def begin(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] = {}
    ) -> HTTPConnection:
        """Send a request; do not wait for its answer."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=BOUND)
        connection.request(method, path, body, dict(headers))
        return connection

    def end(self) -> int:
        """Ask it to end, and return its status.

        Raises:
            subprocess.TimeoutExpired: it did not within ``BOUND`` seconds.
        """
        self._process.send_signal(_ENDING[self.kind])
        return self._process.wait(BOUND)

    def clean_up(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join(BOUND)

    def _listen(self, stderr: IO[str]) -> None:
        with stderr:
            for line in stderr:
                if found := _LISTENING.search(line):
                    self.port = int(found[1])
                    self._listening.set()
                if not _NO_NEWS.match(line):
                    self.said.append(line.rstrip())
        self._listening.set()


@contextmanager
def serving(kind: str, upstream: str, *options: str, **site: Any) -> Iterator[Server]:
    """Serve a site, see ``settings.py``, until the block ends.

    Any warning is an error there, and whatever else than information it writes fails the test.
    """
    with TemporaryDirectory() as home:  # gunicorn keeps a socket there
        site = {
            "bridge": {"BASE_URL": upstream, **QUICK},
            "database": {"NAME": f"{home}/site.sqlite3"},  # Django closes none in memory
            **site,
        }
        environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.servers.settings",
            VARIABLE: json.dumps(site),
            "HOME": home,
        }
        environment.pop("XDG_RUNTIME_DIR", None)
        command = [sys.executable, "-W", "error", "-m", kind, *_COMMANDS[kind], *options]
        process = subprocess.Popen(  # noqa: S603  # a server that the tests need
            [*command, *_APPLICATIONS[kind]],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        server = Server(kind, process, upstream)
        try:
            server.wait_until_it_listens()
            yield server
            status = server.end()
        finally:
            server.clean_up()
    assert server.said == [], "\n".join(server.said)
    assert status == 0
