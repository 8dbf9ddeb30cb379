"""``manage.py demo``: everything in one step."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import Client

from demo_project import simulator
from demo_project.management.commands import demo
from ollama_bridge import conf
from ollama_bridge.testing import FakeOllama

ROOT = Path(demo.__file__).parents[3]
NOBODY = "http://127.0.0.1:9"
URL = "/api/mentor/chat/"


@pytest.fixture
def port() -> int:
    """A port that was free just now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        number: int = probe.getsockname()[1]
        return number


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch, port: int) -> Callable[..., str]:
    """Run the command, with something else to do in place of serving; return what it says."""

    def serve(url: str, meanwhile: Callable[[], None]) -> str:
        done: list[tuple[Any, ...]] = []

        def instead(*arguments: object, **options: object) -> None:
            done.append((*arguments, options))
            if isinstance(arguments[0], demo.Serve):
                meanwhile()

        monkeypatch.setenv("OLLAMA_BASE_URL", url)
        monkeypatch.setattr(demo, "call_command", instead)
        said = StringIO()
        call_command("demo", f"127.0.0.1:{port}", stdout=said, skip_checks=True)
        assert done[0][0] == "migrate"
        assert isinstance(done[1][0], demo.Serve)
        assert done[1][1] == f"127.0.0.1:{port}"
        assert done[1][2] == {"use_reloader": False, "insecure_serving": True}
        return said.getvalue()

    return serve


def _answer() -> Any:
    body = json.dumps({"message": "What is water?"})
    return Client().post(URL, body, content_type="application/json").json()


class TestWhoAnswers:
    def test_is_the_simulator_where_no_ollama_does(
        self, serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(simulator, "TOKENS_PER_SECOND", 1000)
        answers = []
        said = serve(NOBODY, lambda: answers.append(_answer()))
        assert said.splitlines() == [
            f"No Ollama answers at {NOBODY}. Answers come from the bundled simulator.",
            "To use a real one: ollama serve, then ollama pull llama3.2, then start this again.",
        ]
        assert answers[0]["success"] is True
        assert "simulator" in answers[0]["response"]
        assert (os.environ["OLLAMA_BASE_URL"], conf.current().BASE_URL) == (NOBODY, NOBODY)

    def test_is_the_ollama_that_does(
        self, serve: Callable[..., str], fake_ollama: FakeOllama
    ) -> None:
        answers = []
        said = serve(fake_ollama.url, lambda: answers.append(_answer()))
        assert said == (f"Ollama answers at {fake_ollama.url}. Answers come from llama3.2 there.\n")
        assert answers[0]["success"] is True
        assert len(fake_ollama.chats) == 1

    def test_is_nobody_yet_where_the_model_is_missing(self, serve: Callable[..., str]) -> None:
        with FakeOllama(models=["mistral"]) as ollama:
            said = serve(ollama.url, lambda: None)
        assert "It is not ready yet: Model llama3.2 not found. Run: ollama pull llama3.2" in said


class TestTheSimulator:
    def test_leaves_no_trace(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(simulator.VARIABLE, raising=False)
        before = conf.current().BASE_URL
        with simulator.standing_in("qwen3:0.6b") as url:
            assert url == conf.current().BASE_URL
            assert simulator.is_running_at(url)
        assert before == conf.current().BASE_URL
        assert not simulator.is_running_at(url)
        assert simulator.VARIABLE not in os.environ


class TestTheAddress:
    @pytest.mark.parametrize(
        ("given", "meant"),
        [
            ("8001", ("127.0.0.1", 8001)),
            ("localhost:8001", ("localhost", 8001)),
            ("[::1]:8001", ("[::1]", 8001)),
        ],
    )
    def test_may_be_short(self, given: str, meant: tuple[str, int]) -> None:
        assert demo.split(given) == meant

    @pytest.mark.parametrize("given", ["", "web", "localhost", "0", "65536", "localhost:", "-1"])
    def test_needs_a_port(self, given: str) -> None:
        with pytest.raises(CommandError, match=r"is no port\. Type for example: manage\.py demo"):
            demo.split(given)

    def test_that_is_taken_is_refused_with_another_one(self, taken: int) -> None:
        with pytest.raises(CommandError) as caught:
            call_command("demo", str(taken), skip_checks=True)
        said = str(caught.value)
        assert said.startswith(f"Cannot listen on 127.0.0.1:{taken}: ")
        assert said.endswith(f"Choose another port: manage.py demo 127.0.0.1:{taken + 1}")

    @pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
    def test_may_be_of_ipv6(self, port: int) -> None:
        demo.refuse_taken("[::1]", port)


@pytest.fixture
def _interrupts_are_heeded() -> Iterator[None]:
    """Undo what a shell does to what it starts in the background: children would ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interrupts_are_heeded")
def test_the_whole_demo_serves_and_ends(port: int, tmp_path: Path) -> None:
    """In a process of its own, as a visitor meets it."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("OLLAMA_")},
        "DJANGO_DATABASE": str(tmp_path / "demo.sqlite3"),
        "DJANGO_SETTINGS_MODULE": "demo_project.settings",
        "OLLAMA_BASE_URL": NOBODY,
    }
    command = [sys.executable, "-W", "error", "manage.py", "demo", str(port)]
    with subprocess.Popen(  # noqa: S603  # our own interpreter and arguments
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as child:
        try:
            page = _get(f"http://127.0.0.1:{port}/")
            answer = json.loads(_get(f"http://127.0.0.1:{port}{URL}", {"message": "Hi"}))
        finally:
            child.send_signal(signal.SIGINT)
            watchdog = threading.Timer(20, child.kill)
            watchdog.start()
            said = child.communicate()[0].decode()
            watchdog.cancel()
    assert "not from a language model" in page
    assert answer["success"] is True
    assert "Answers come from the bundled simulator." in said
    assert "Traceback" not in said
    assert child.returncode == 0


def _get(url: str, body: object = None) -> str:
    """Ask until somebody listens."""
    data = None if body is None else json.dumps(body).encode()
    request = Request(url, data, {"Content-Type": "application/json"})  # noqa: S310  # our own
    until = time.monotonic() + 20
    while True:
        try:
            with urlopen(request, timeout=20) as response:  # noqa: S310  # our own
                text: str = response.read().decode()
                return text
        except URLError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
