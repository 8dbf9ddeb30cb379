"""Many calls, some at a time: answers in their order, errors in their place."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

from ollama_bridge import ChatReply, ModelNotFound, OllamaBridgeError, OllamaClient, ServerFailed
from ollama_bridge.testing import FakeOllama, faults, when
from tests.net.crowd import echo
from tests.net.held import Held

if TYPE_CHECKING:
    from ollama_bridge.testing.when import Predicate
    from tests.conftest import MakeClient

Many: TypeAlias = "Callable[..., list[ChatReply | OllamaBridgeError]]"
QUESTIONS = [f"What is water? Question {number}." for number in range(10)]


@pytest.fixture
def server() -> Iterator[FakeOllama]:
    with FakeOllama(answer=echo) as server:
        yield server


def chat_many(client: OllamaClient, *args: Any, **kwargs: Any) -> Any:
    return client.chat_many(*args, **kwargs)


def achat_many(client: OllamaClient, *args: Any, **kwargs: Any) -> Any:
    return asyncio.run(client.achat_many(*args, **kwargs))


@pytest.fixture(params=[chat_many, achat_many])
def many(request: pytest.FixtureRequest) -> Many:
    made: Many = request.param
    return made


def asks(*numbers: int) -> Predicate:
    words = [f"Question {number}." for number in numbers]
    return lambda request: any(word in request.prompt for word in words)


def test_answers_come_in_the_order_of_the_questions(
    server: FakeOllama, make_client: MakeClient, many: Many
) -> None:
    server.misbehave(faults.Stall(0.2), when=asks(0, 3))
    answers = many(make_client(base_url=server.url), QUESTIONS)
    assert answers == [echo(question) for question in QUESTIONS]
    assert all(isinstance(answer, ChatReply) for answer in answers)
    assert [request.prompt for request in server.chats] != QUESTIONS or len(server.chats) == 10


def test_an_error_is_in_the_place_of_its_answer(
    server: FakeOllama, make_client: MakeClient, many: Many
) -> None:
    server.misbehave(faults.server_error(), when=asks(2, 7))
    client = make_client(base_url=server.url, max_retries=0)
    answers = many(client, QUESTIONS)
    failed = [number for number, it in enumerate(answers) if isinstance(it, OllamaBridgeError)]
    assert failed == [2, 7]
    assert all(isinstance(answers[number], ServerFailed) for number in failed)
    assert answers[3] == echo(QUESTIONS[3])
    assert client.get_stats()["successful_requests"] == 8


def test_a_kept_error_holds_no_frames(
    server: FakeOllama, make_client: MakeClient, many: Many
) -> None:
    server.misbehave(faults.server_error())
    answers = many(make_client(base_url=server.url, max_retries=0), QUESTIONS[:3])
    assert all(
        isinstance(answer, ServerFailed) and answer.__traceback__ is None for answer in answers
    )


def test_what_holds_for_all_is_sent_with_each(
    server: FakeOllama, make_client: MakeClient, many: Many
) -> None:
    client = make_client(base_url=server.url)
    many(client, iter(QUESTIONS[:3]), "Be brief.", model="llama3.2:latest", temperature=0.5)
    for request in server.chats:
        assert request.model == "llama3.2:latest"
        assert request.json["messages"][0] == {"role": "system", "content": "Be brief."}
        assert request.json["options"] == {"temperature": 0.5}


def test_a_history_that_can_be_read_only_once_goes_with_each(
    server: FakeOllama, make_client: MakeClient, many: Many
) -> None:
    history = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hi."}]
    many(make_client(base_url=server.url), QUESTIONS[:3], history=iter(history))
    assert [request.json["messages"][:2] for request in server.chats] == [history] * 3


def test_no_questions_have_no_answers(
    server: FakeOllama, make_client: MakeClient, many: Many
) -> None:
    client = make_client(base_url=server.url)
    assert many(client, []) == []
    assert many(client, [], raise_on_error=True) == []
    assert server.connections == 0


@pytest.mark.parametrize(
    ("settings", "arguments", "most"),
    [({}, {}, 4), ({"max_concurrency": 2}, {}, 2), ({}, {"max_concurrency": 7}, 7)],
    ids=["four", "as the server serves", "as asked"],
)
def test_no_more_are_under_way_than_may_be(
    server: FakeOllama,
    make_client: MakeClient,
    many: Many,
    settings: dict[str, Any],
    arguments: dict[str, Any],
    most: int,
) -> None:
    server.misbehave(faults.Stall(0.05))
    client = make_client(base_url=server.url, **settings)
    assert len(many(client, QUESTIONS, **arguments)) == 10
    assert server.peak_in_flight == most


def test_with_raise_on_error_the_first_error_is_raised_and_the_rest_cancelled(
    server: FakeOllama, make_client: MakeClient, many: Many
) -> None:
    server.misbehave(faults.BlackHole(), when=asks(0, 1))
    server.misbehave(_Late(server), when=asks(2))
    client = make_client(base_url=server.url, max_retries=0, timeout=30)
    started = time.monotonic()
    with pytest.raises(ServerFailed):
        many(client, QUESTIONS, max_concurrency=3, raise_on_error=True)
    assert time.monotonic() - started < 10
    server.wait_for(lambda server: len(server.disconnects) == 2)
    assert len(server.chats) == 3
    stats = client.get_stats()
    assert (stats["in_flight"], stats["waiting"]) == (0, 0)
    assert (stats["failed_requests"], stats["cancelled_requests"]) == (1, 2)
    assert client.chat("What is ice?")


class _Late:
    """Fails once the others are there."""

    def __init__(self, server: FakeOllama) -> None:
        self._server = server

    async def reply(self, exchange: Any) -> None:
        while self._server.in_flight < 3:
            await exchange.sleep(0.005)
        await faults.server_error().reply(exchange)


def test_with_raise_on_error_good_answers_are_returned(
    server: FakeOllama, make_client: MakeClient, many: Many
) -> None:
    client = make_client(base_url=server.url)
    assert len(many(client, QUESTIONS, raise_on_error=True)) == 10


@pytest.mark.parametrize(
    ("messages", "arguments", "error", "says"),
    [
        ("What is water?", {}, TypeError, "messages must be a list"),
        (["fine", 7], {}, TypeError, r"messages\[1\]: "),
        (["fine", "fine", ""], {}, ValueError, r"messages\[2\]: "),
        (["fine"], {"max_concurrency": 0}, ValueError, "max_concurrency"),
        (["fine"], {"timeout": -1}, ValueError, "timeout"),
        (["fine"], {"max_chunks": 3}, TypeError, "'max_chunks'"),
    ],
)
def test_a_wrong_argument_is_named_before_anything_is_sent(
    server: FakeOllama,
    make_client: MakeClient,
    many: Many,
    messages: Any,
    arguments: dict[str, Any],
    error: type[Exception],
    says: str,
) -> None:
    with pytest.raises(error, match=says):
        many(make_client(base_url=server.url), messages, **arguments)
    assert server.connections == 0


def test_a_missing_model_fails_each_of_them(
    server: FakeOllama, make_client: MakeClient, many: Many
) -> None:
    answers = many(make_client(base_url=server.url), QUESTIONS[:3], model="absent")
    assert all(isinstance(answer, ModelNotFound) for answer in answers)


def test_a_batch_waits_behind_all_other_calls(
    server: FakeOllama, make_client: MakeClient, many: Many
) -> None:
    held = Held()
    server.misbehave(held, when=when.prompt("first"))
    client = make_client(base_url=server.url, max_concurrency=1)
    with ThreadPoolExecutor(8) as threads:
        first = threads.submit(client.chat, "first")
        server.wait_for(lambda server: server.in_flight == 1)
        batch = threads.submit(many, client, QUESTIONS[:2], max_concurrency=2)
        waits(client, 2)
        later = [threads.submit(client.chat, f"later {number}") for number in range(3)]
        waits(client, 5)
        held.let_go()
        assert first.result()
        assert len(batch.result()) == 2
        assert all(call.result() for call in later)
    order = [request.prompt.split()[0] for request in server.chats]
    assert order == ["first", *["later"] * 3, *["What"] * 2]


def waits(client: OllamaClient, number: int) -> None:
    end = time.monotonic() + 10
    while client.get_stats()["waiting"] < number:
        assert time.monotonic() < end
        time.sleep(0.002)


def test_a_batch_that_is_cancelled_cancels_its_calls(
    server: FakeOllama, make_client: MakeClient
) -> None:
    server.misbehave(faults.BlackHole())
    client = make_client(base_url=server.url)

    async def go() -> None:
        batch = asyncio.create_task(client.achat_many(QUESTIONS))
        await asyncio.to_thread(server.wait_for, lambda server: server.in_flight == 4)
        batch.cancel()
        with pytest.raises(asyncio.CancelledError):
            await batch
        assert client.get_stats()["in_flight"] == 0

    asyncio.run(go())
    server.wait_for(lambda server: len(server.disconnects) == 4)
    assert len(server.chats) == 4


@pytest.mark.parametrize("many_of", [chat_many, achat_many])
def test_what_is_no_error_of_ours_ends_the_batch_at_once(
    server: FakeOllama,
    make_client: MakeClient,
    monkeypatch: pytest.MonkeyPatch,
    many_of: Many,
) -> None:
    first = Held()
    server.misbehave(first, when=asks(0))
    server.misbehave(faults.BlackHole(), when=asks(1, 2, 3))
    client = make_client(base_url=server.url, timeout=30)

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    def let_go() -> None:
        server.wait_for(lambda server: server.in_flight == 4)
        first.let_go()

    monkeypatch.setattr("ollama_bridge.core.flow._reply", fail)
    started = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(let_go)
        with pytest.raises(ZeroDivisionError):
            many_of(client, QUESTIONS)
    assert time.monotonic() - started < 10
    server.wait_for(lambda server: len(server.disconnects) == 3)


INTERRUPTED = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # who runs the tests may ignore it
import django
from django.conf import settings
settings.configure(INSTALLED_APPS=["ollama_bridge"], OLLAMA_BRIDGE={{"BASE_URL": {url!r}}})
django.setup()
import asyncio
from ollama_bridge import ollama_client
try:
    {call}
except KeyboardInterrupt:
    print("interrupted", ollama_client.get_stats()["in_flight"])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for one process")
@pytest.mark.parametrize(
    "call",
    [
        "ollama_client.chat_many(['a', 'b', 'c', 'd', 'e'])",
        "asyncio.run(ollama_client.achat_many(['a', 'b', 'c', 'd', 'e']))",
    ],
    ids=["chat_many", "achat_many"],
)
def test_an_interrupt_ends_a_batch_at_once(server: FakeOllama, call: str) -> None:
    server.misbehave(faults.BlackHole())
    code = INTERRUPTED.format(url=server.url, call=call)
    with subprocess.Popen(  # noqa: S603  # our own code
        [sys.executable, "-W", "error", "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as child:
        try:
            server.wait_for(lambda server: server.in_flight == 4, 20)
            started = time.monotonic()
            child.send_signal(signal.SIGINT)
            said, _ = child.communicate(timeout=20)
        finally:
            child.kill()
    assert said == "interrupted 0\n"
    assert time.monotonic() - started < 10
    server.wait_for(lambda server: len(server.disconnects) == 4)
    assert len(server.chats) == 4
