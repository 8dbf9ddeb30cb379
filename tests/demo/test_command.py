"""``manage.py demo``: everything in one step."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import Client

from demo_project import server, simulator
from demo_project.management.commands import demo
from ollama_bridge import conf
from ollama_bridge.testing import FakeOllama

NOBODY = "http://127.0.0.1:9"
URL = "/api/mentor/chat/"


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch, port: int) -> Callable[..., str]:
    """Run the command, with something else to do in place of serving; return what it says."""

    def serve(url: str, meanwhile: Callable[[], None]) -> str:
        prepared: list[object] = []

        def instead(listener: socket.socket) -> None:
            assert prepared == ["migrate"]
            assert listener.getsockname() == ("127.0.0.1", port)
            meanwhile()

        monkeypatch.setenv("OLLAMA_BASE_URL", url)
        monkeypatch.setattr(demo, "call_command", lambda name, **_: prepared.append(name))
        monkeypatch.setattr(server, "serve", instead)
        said = StringIO()
        call_command("demo", f"127.0.0.1:{port}", stdout=said, skip_checks=True)
        *others, last = said.getvalue().splitlines(keepends=True)
        assert last == f"The demo is at http://127.0.0.1:{port}/ until you press Ctrl-C.\n"
        return "".join(others)

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

    def test_is_held_from_the_beginning_and_given_back(self, port: int) -> None:
        with server.listening("127.0.0.1", port), pytest.raises(CommandError, match="Cannot"):
            call_command("demo", str(port), skip_checks=True)
        with server.listening("127.0.0.1", port):
            pass

    @pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
    def test_may_be_of_ipv6(self, port: int) -> None:
        with server.listening("[::1]", port) as listener:
            assert listener.getsockname()[:2] == ("::1", port)


class TestTheEnd:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
    def test_may_come_at_any_time_and_is_quiet(self, number: signal.Signals) -> None:
        before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
        went_on = False
        with server.ending_quietly():
            signal.raise_signal(number)
            went_on = True
        assert not went_on
        assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before

    def test_hides_no_trouble(self) -> None:
        with pytest.raises(LookupError), server.ending_quietly():
            raise LookupError


def test_without_uvicorn_it_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(CommandError) as caught:
        call_command("demo", skip_checks=True)
    assert str(caught.value) == (
        "The demo is served by uvicorn, which is not installed. "
        f"Type: {sys.executable} -m pip install --group demo"
    )
