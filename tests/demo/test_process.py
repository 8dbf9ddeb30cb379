"""The whole demo in a process of its own, as a visitor meets it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import pytest

import demo_project
from demo_project import simulator
from ollama_bridge.testing import FakeOllama, faults

ROOT = Path(demo_project.__file__).parents[1]
CHAT = "/api/mentor/chat/"
NOBODY = "http://127.0.0.1:9"
PATIENCE = 30.0


class Site:
    """The command while it runs, and afterwards what it said."""

    def __init__(self, port: int, environment: dict[str, str]) -> None:
        self.port = port
        self.said = ""
        self._end: signal.Signals | None = None
        self.child = subprocess.Popen(  # noqa: S603  # our own interpreter and arguments
            [sys.executable, "-W", "error", "manage.py", "demo", str(port)],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def end(self, number: signal.Signals) -> float:
        """Send a signal and return the seconds until the process ended."""
        began = time.monotonic()
        self.child.send_signal(number)
        watchdog = threading.Timer(PATIENCE, self.child.kill)
        watchdog.start()
        self.said = self.child.communicate()[0].decode()
        watchdog.cancel()
        return time.monotonic() - began

    @contextmanager
    def get(self, path: str) -> Iterator[HTTPResponse]:
        with self._asked("GET", path, None, {}) as response:
            yield response

    @contextmanager
    def ask(self, accept: str) -> Iterator[HTTPResponse]:
        headers = {"Accept": accept, "Content-Type": "application/json"}
        body = json.dumps({"message": "What is water?"})
        with self._asked("POST", CHAT, body, headers) as response:
            yield response

    @contextmanager
    def _asked(
        self, method: str, path: str, body: str | None, headers: dict[str, str]
    ) -> Iterator[HTTPResponse]:
        connection = self._connected()
        try:
            connection.request(method, path, body, headers)
            with connection.getresponse() as response:
                yield response
        finally:
            connection.close()

    def _connected(self) -> HTTPConnection:
        """Connect as soon as somebody listens."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        until = time.monotonic() + PATIENCE
        while True:
            try:
                connection.connect()
            except ConnectionRefusedError:
                if time.monotonic() > until or self.child.poll() is not None:
                    raise
                time.sleep(0.05)
            else:
                return connection


@pytest.fixture
def start(port: int, tmp_path: Path) -> Iterator[Callable[[str], Site]]:
    """Return what starts the demo with an Ollama; it is over after the test."""
    sites: list[Site] = []

    def start(url: str) -> Site:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("OLLAMA_")},
            "DJANGO_DATABASE": str(tmp_path / "demo.sqlite3"),
            "DJANGO_SETTINGS_MODULE": "demo_project.settings",
            "OLLAMA_BASE_URL": url,
        }
        sites.append(Site(port, environment))
        return sites[-1]

    yield start
    for site in sites:
        if site.child.poll() is None:
            site.child.kill()
            site.child.communicate()


@pytest.fixture(autouse=True)
def _interrupts_are_heeded() -> Iterator[None]:
    """Undo what a shell does to what it starts in the background: children would ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_the_whole_demo_serves_and_ends(start: Callable[[str], Site]) -> None:
    site = start(NOBODY)
    with site.get("/") as page:
        assert "not from a language model" in page.read().decode()
    with site.get("/static/demo/page.js") as script:
        assert script.headers["Content-Type"].startswith("text/javascript")
        assert script.read() == (ROOT / "demo_project/static/demo/page.js").read_bytes()
    with site.ask("application/json") as response:
        assert json.load(response)["success"] is True
    site.end(signal.SIGINT)
    assert site.child.returncode == 0
    assert "Answers come from the bundled simulator." in site.said
    _assert_quiet(site)


def test_an_answer_is_sent_while_it_is_written(start: Callable[[str], Site]) -> None:
    site = start(NOBODY)
    arrived: list[tuple[float, str]] = []
    with site.ask("text/event-stream") as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        arrived.extend(
            (time.monotonic(), line.decode().split()[1])
            for line in iter(response.readline, b"")
            if line.startswith(b"event: ")
        )
    site.end(signal.SIGINT)
    times, names = zip(*arrived, strict=True)
    assert len(names) > 5
    assert set(names[:-1]) == {"delta"}
    assert names[-1] == "done"
    assert times[-1] - times[0] > (len(names) - 2) / simulator.TOKENS_PER_SECOND / 2
    _assert_quiet(site)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_the_end_waits_for_no_open_stream(
    start: Callable[[str], Site], fake_ollama: FakeOllama, number: signal.Signals
) -> None:
    fake_ollama.misbehave(faults.StallStream(after=1))
    site = start(fake_ollama.url)
    with site.ask("text/event-stream") as response:
        assert response.readline() == b"event: delta\n"
        assert site.end(number) < 10
        fake_ollama.wait_for(lambda ollama: len(ollama.disconnects) == 1)
    assert site.child.returncode == 0
    _assert_quiet(site)


def _assert_quiet(site: Site) -> None:
    for trouble in ("Traceback", "Warning", "Exception", "WARNING", "ERROR"):
        assert trouble not in site.said, site.said
