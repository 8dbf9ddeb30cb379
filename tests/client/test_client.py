"""The client as an object: one for a process, for its threads and for its children."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

import ollama_bridge
from ollama_bridge import ChatReply, ConnectionFailed, OllamaClient, ollama_client
from ollama_bridge.testing import FakeOllama, faults, when
from tests.net.crowd import chats, echo

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_django import Settings

    from tests.conftest import MakeClient

QUESTION = "What is water?"
CALLERS = 20


@pytest.fixture
def configured(settings: Settings, fake_ollama: FakeOllama) -> FakeOllama:
    """The fake server, which the singleton talks to."""
    settings.OLLAMA_BRIDGE = {"BASE_URL": fake_ollama.url}
    return fake_ollama


def test_the_singleton_chats_with_the_server_of_the_settings(configured: FakeOllama) -> None:
    reply = ollama_client.chat(QUESTION)
    assert reply
    assert isinstance(reply, ChatReply)
    assert [request.prompt for request in configured.chats] == [QUESTION]
    assert ollama_bridge.ollama_client is ollama_client


def test_a_change_of_settings_takes_effect_at_the_next_call(
    configured: FakeOllama, settings: Settings
) -> None:
    ollama_client.chat(QUESTION)
    with FakeOllama(models=["tiny"]) as other:
        settings.OLLAMA_BRIDGE = {"BASE_URL": other.url, "MODEL": "tiny", "OPTIONS": {"seed": 7}}
        ollama_client.chat(QUESTION)
        (request,) = other.chats
        assert (request.model, request.json["options"]) == ("tiny", {"seed": 7})
        with override_settings(OLLAMA_BRIDGE={"BASE_URL": configured.url}):
            ollama_client.chat(QUESTION)
        assert len(configured.chats) == 2
        ollama_client.chat(QUESTION)
        assert len(other.chats) == 2


def test_a_change_of_settings_starts_with_closed_circuits(
    configured: FakeOllama, settings: Settings
) -> None:
    ollama_client.circuit_breaker.force_open()
    settings.OLLAMA_BRIDGE = {"BASE_URL": configured.url}
    assert ollama_client.circuit_breaker.state == "closed"
    assert ollama_client.chat(QUESTION)


def test_clients_made_by_hand_follow_the_settings_for_what_they_are_not_given(
    configured: FakeOllama, settings: Settings
) -> None:
    with OllamaClient(max_retries=0) as client:
        client.chat(QUESTION)
        settings.OLLAMA_BRIDGE = {"BASE_URL": configured.url, "MODEL": "absent"}
        with pytest.raises(ollama_bridge.ModelNotFound):
            client.chat(QUESTION)
    assert len(configured.chats) == 2


def test_the_environment_configures_it(
    fake_ollama: FakeOllama, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_BASE_URL", fake_ollama.url)
    monkeypatch.setenv("OLLAMA_DEFAULT_MODEL", "llama3.2:latest")
    settings.OLLAMA_BRIDGE = {}
    assert ollama_client.chat(QUESTION).endpoint == "default"
    assert fake_ollama.chats[0].model == "llama3.2:latest"


def test_wrong_settings_are_named_at_the_first_call(settings: Settings) -> None:
    settings.OLLAMA_BRIDGE = {"TIMEOUT": "soon"}
    for _ in range(2):
        with pytest.raises(ImproperlyConfigured, match="TIMEOUT must be a number"):
            ollama_client.chat(QUESTION)
    client = OllamaClient(base_url="nowhere")
    with pytest.raises(ImproperlyConfigured, match="BASE_URL must begin with http"):
        client.chat(QUESTION)


@pytest.mark.parametrize(
    ("argument", "hint"),
    [
        ("base_ulr", "Did you mean 'base_url'"),
        ("BASE_URL", "Did you mean 'base_url'"),
        ("max_retry", "Did you mean 'max_retries'"),
        ("_lock", "unexpected argument '_lock'"),
        ("completely_else", "unexpected argument 'completely_else'"),
    ],
)
def test_an_unknown_argument_is_a_type_error_with_a_hint(argument: str, hint: str) -> None:
    with pytest.raises(TypeError, match=hint):
        OllamaClient(**{argument: "x"})


def test_an_argument_that_comes_later_is_unknown_today(make_client: MakeClient) -> None:
    call: Callable[..., Any] = make_client().chat
    for argument in ("use_case", "on_unavailable", "tools", "think", "format", "images"):
        with pytest.raises(TypeError, match=argument):
            call(QUESTION, **{argument: None})


def test_leaving_the_block_closes_its_connections(fake_ollama: FakeOllama) -> None:
    with OllamaClient(base_url=fake_ollama.url) as client:
        client.chat(QUESTION)
        assert fake_ollama.open_connections == 1
    fake_ollama.wait_for(lambda server: server.open_connections == 0)


def test_a_closed_client_opens_again_when_it_is_used_again(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    client = make_client()
    client.close()
    assert client.chat(QUESTION)
    client.close()
    client.close()
    assert client.chat(QUESTION)
    assert fake_ollama.connections == 2


def test_closing_while_others_call_fails_none_of_them(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    client = make_client(max_retries=0)
    stop = threading.Event()

    def close_again_and_again() -> int:
        times = 0
        while not stop.is_set():
            client.close()
            times += 1
        return times

    with ThreadPoolExecutor(1) as pool:
        closing = pool.submit(close_again_and_again)
        answers = chats(client, 60, 4)
        stop.set()
        assert closing.result() > 1
    assert answers["answered"] + answers["another's answer"] == 60
    client.close()
    fake_ollama.wait_for(lambda server: server.open_connections == 0)


def test_nothing_is_opened_before_the_first_call(fake_ollama: FakeOllama) -> None:
    client = OllamaClient(base_url=fake_ollama.url)
    assert repr(client) == "<OllamaClient idle>"
    assert client.circuit_breaker.state == "closed"
    assert fake_ollama.connections == 0
    assert repr(client) == "<OllamaClient default/llama3.2>"


def test_twenty_threads_share_one_client_and_its_connections(
    make_client: MakeClient,
) -> None:
    with FakeOllama(answer=echo) as server:
        client = make_client(base_url=server.url)
        assert chats(client, 1000, CALLERS) == {"answered": 1000}
        assert server.connections <= CALLERS
        assert max(request.turn for request in server.chats) >= 1000 / CALLERS


def test_the_first_calls_of_many_threads_start_one_engine(make_client: MakeClient) -> None:
    client = make_client()
    together = threading.Barrier(CALLERS)

    def breaker() -> object:
        together.wait()
        return client._running()  # the engine is not public

    with ThreadPoolExecutor(CALLERS) as pool:
        engines = [pool.submit(breaker) for _ in range(CALLERS)]
        assert len({id(engine.result()) for engine in engines}) == 1


def test_more_callers_than_the_pool_keeps_get_further_connections_without_a_warning(
    fake_ollama: FakeOllama, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    fake_ollama.misbehave(faults.Stall(0.2))
    client = make_client(pool_maxsize=2)
    with caplog.at_level(logging.WARNING):
        assert sum(chats(client, CALLERS, CALLERS).values()) == CALLERS
    assert caplog.records == []
    assert fake_ollama.peak_in_flight == CALLERS
    assert fake_ollama.connections == CALLERS
    fake_ollama.wait_for(lambda server: server.open_connections == 2)


# A child of a fork.

SECONDS = 20
pytestmark_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


def in_child(work: Callable[[], object]) -> int:
    """Run it in a forked child, and return the child's exit code: 0 where it returned truth."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            code = 0 if work() else 2
        finally:
            os._exit(code)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    pytest.fail("the child hangs")


@pytestmark_fork
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_chats_on_a_connection_of_its_own(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    client = make_client()
    client.chat(QUESTION)
    assert in_child(lambda: client.chat("What is ice?")) == 0
    assert client.chat("What is steam?")
    assert [request.connection for request in fake_ollama.chats] == [1, 2, 1]


@pytestmark_fork
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_fork_while_others_are_inside_calls_hurts_nobody(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    fake_ollama.misbehave(faults.Stall(0.5), when=when.prompt("slow"))
    client = make_client()
    client.chat(QUESTION)
    with ThreadPoolExecutor(4) as pool:
        slow = [pool.submit(client.chat, f"slow {number}") for number in range(4)]
        fake_ollama.wait_for(lambda server: server.in_flight == 4)
        assert in_child(lambda: client.chat("What is ice?")) == 0
        assert all(call.result() for call in slow)
    assert client.chat("What is steam?")


@pytestmark_fork
def test_a_fork_at_any_moment_of_others_leaves_the_child_without_their_locks() -> None:
    assert run_file("forks.py") == "20 children chatted\n"


def works(client: OllamaClient) -> bool:
    fine = bool(client.chat(QUESTION)) and bool(client.health_check())
    client.close()
    return fine


@pytestmark_fork
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("lock", ["router", "client", "transport", "health"])
def test_a_lock_that_another_thread_holds_at_the_fork_is_free_in_the_child(
    make_client: MakeClient, lock: str
) -> None:
    client = make_client()
    client.chat(QUESTION)
    client.health_check()
    engine: Any = client._running()  # locks are not public
    held = {
        "router": engine.router.lock,
        "client": client._lock,
        "transport": engine.transport._lock,
        "health": engine._health._lock,
    }[lock]
    holding, done = threading.Event(), threading.Event()

    def hold() -> None:
        with held:
            holding.set()
            done.wait(SECONDS)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(hold)
        holding.wait(SECONDS)
        code = in_child(lambda: works(client))
        done.set()
    assert code == 0


@pytestmark_fork
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_an_open_circuit_stays_open_in_a_child(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    client = make_client(failure_threshold=1, max_retries=0)
    fake_ollama.refuse()
    with pytest.raises(ConnectionFailed):
        client.chat(QUESTION)
    assert in_child(lambda: client.circuit_breaker.state == "open") == 0


# What an import costs.


def run(code: str) -> str:
    """Run code in a fresh interpreter whose warnings are errors, and return what it prints."""
    return printed("-W", "error", "-c", code)


def run_file(name: str) -> str:
    """Run a file of this folder in a fresh interpreter, unmeasured, and return what it prints."""
    unmeasured = {key: value for key, value in os.environ.items() if "COVERAGE" not in key}
    multithreaded = "ignore::DeprecationWarning"  # what Python 3.12 says of each fork
    file = str(Path(__file__).with_name(name))
    return printed("-W", "error", "-W", multithreaded, file, env=unmeasured)


def printed(*arguments: str, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(  # noqa: S603  # our own code
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=env,
    )
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout


HEAVY = ("requests", "urllib3", "aiohttp", "rest_framework", "ssl")


@pytest.mark.parametrize(
    "imported",
    [
        "import ollama_bridge",
        "from ollama_bridge import ollama_client",
        "from ollama_bridge import OllamaClient, ChatReply, check_availability",
        "from ollama_bridge import retry_on_ollama_failure, CircuitOpen",
        "import ollama_bridge.apps",
        "import ollama_bridge.client, ollama_bridge.streams, ollama_bridge.batches",
        "import ollama_bridge.testing",
    ],
)
def test_an_import_loads_no_http_library_and_opens_nothing(imported: str) -> None:
    code = f"""
import gc, socket, sys, threading
class Watched(socket.socket):
    def __init__(self, *args, **kwargs):
        raise AssertionError("a socket at import")
socket.socket = Watched
{imported}
print([name for name in {HEAVY[:4]} if name in sys.modules], threading.active_count())
"""
    assert run(code) == "[] 1\n"


def test_the_package_alone_does_not_even_load_django() -> None:
    code = "import sys, ollama_bridge; print('django' in sys.modules, ollama_bridge.__version__)"
    assert run(code) == f"False {ollama_bridge.__version__}\n"


def test_setting_django_up_loads_neither_requests_nor_a_thread() -> None:
    code = """
import sys, threading, django
from django.conf import settings
settings.configure(INSTALLED_APPS=["ollama_bridge"])
django.setup()
print([name for name in ("requests", "aiohttp") if name in sys.modules], threading.active_count())
"""
    assert run(code) == "[] 1\n"


def test_a_process_that_has_chatted_ends_without_a_warning() -> None:
    code = """
import django
from django.conf import settings
from ollama_bridge.testing import FakeOllama
with FakeOllama() as server:
    settings.configure(INSTALLED_APPS=["ollama_bridge"], OLLAMA_BRIDGE={"BASE_URL": server.url})
    django.setup()
    from ollama_bridge import OllamaClient, ollama_client
    ollama_client.chat("What is water?")
    forgotten = OllamaClient()
    forgotten.chat("What is ice?")
    del forgotten
    kept = OllamaClient()
    kept.chat("What is steam?")
print("done")
"""
    assert run(code) == "done\n"


def test_every_public_name_is_there_and_listed() -> None:
    for name in ollama_bridge.__all__:
        assert getattr(ollama_bridge, name) is not None
        assert name in dir(ollama_bridge)
    with pytest.raises(AttributeError, match="no attribute 'ollama_clint'"):
        _ = ollama_bridge.ollama_clint
