"""Who leaves a call harms nobody else's, whoever has the connection by then."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from ollama_bridge import OllamaClient, RequestRejected
from ollama_bridge.testing import FakeOllama, faults, when
from tests.net.held import Held, HeldInside
from tests.net.scripts import run_script

if TYPE_CHECKING:
    from ollama_bridge.testing.exchange import Exchange
    from tests.conftest import MakeClient

    Ask = Callable[[OllamaClient], str]

ANSWER = "Water is wet and blue."
PATIENT = {"retry_backoff": "fixed", "retry_delay": 30, "timeout": 60}


@pytest.fixture
def server() -> Iterator[FakeOllama]:
    with FakeOllama(answer=ANSWER) as server:
        yield server


def chat(client: OllamaClient) -> str:
    return client.chat("bystander")


def stream(client: OllamaClient) -> str:
    return "".join(client.stream("bystander"))


ASKS = pytest.mark.parametrize("ask", [chat, stream])


@contextmanager
def bystander(server: FakeOllama, client: OllamaClient, ask: Ask) -> Iterator[None]:
    """Somebody else asks on a kept connection, and is in the midst of the answer in this block."""
    held = HeldInside()
    server.misbehave(held, when=when.prompt("bystander"))
    with ThreadPoolExecutor(1) as threads:
        try:
            before = len(server.chats)
            asking = threads.submit(ask, client)
            server.wait_for(lambda server: len(server.chats) == before + 1)
            yield
        finally:
            held.let_go()
        assert asking.result() == ANSWER
    turns = [request.turn for request in server.chats if request.prompt == "bystander"]
    assert turns == [2]  # asked once, and where somebody else had asked before
    assert client.circuit_breaker.failures == 0


def sleeps(client: OllamaClient) -> None:
    """Return once a call waits for its next attempt."""
    end = time.monotonic() + 10
    while client.get_stats()["retries"] < 1:
        assert time.monotonic() < end
        time.sleep(0.002)


@ASKS
def test_closing_a_stream_that_waits_for_its_retry(
    server: FakeOllama, make_client: MakeClient, ask: Ask
) -> None:
    server.misbehave(faults.unavailable(), when=when.prompt("leaver"))
    client = make_client(base_url=server.url, **PATIENT)
    leaver = client.stream("leaver")
    with ThreadPoolExecutor(1) as threads:
        reading = threads.submit(list, leaver)
        sleeps(client)
        with bystander(server, client, ask):
            leaver.close()
            assert reading.result() == []


class HeldFault(Held):
    """Holds every call until ``let_go()``, which then meets a fault."""

    def __init__(self, fault: faults.Status) -> None:
        super().__init__()
        self._fault = fault

    async def reply(self, exchange: Exchange) -> None:
        await self.held(exchange)
        await self._fault.reply(exchange)


@ASKS
def test_cancelling_a_batch_whose_other_call_waits_for_its_retry(
    server: FakeOllama, make_client: MakeClient, ask: Ask
) -> None:
    leaver = HeldFault(faults.unavailable())
    rejected = HeldFault(faults.Status(400, b'{"error": "invalid format"}'))
    server.misbehave(leaver, when=when.prompt("leaver"))
    server.misbehave(rejected, when=when.prompt("rejected"))
    client = make_client(base_url=server.url, **PATIENT)
    with ThreadPoolExecutor(1) as threads:
        batch = threads.submit(client.chat_many, ["leaver", "rejected"], raise_on_error=True)
        server.wait_for(lambda server: server.in_flight == 2)
        leaver.let_go()
        sleeps(client)
        with bystander(server, client, ask):
            rejected.let_go()
            with pytest.raises(RequestRejected):
                batch.result()


def lines(*words: str) -> bytes:
    """Return the body of a whole stream."""
    messages = [{"role": "assistant", "content": word} for word in words]
    return b"".join(
        json.dumps({"model": "llama3.2", "message": message, "done": done}).encode() + b"\n"
        for message, done in zip(messages, [False] * (len(words) - 1) + [True], strict=True)
    )


@ASKS
def test_leaving_a_stream_whose_body_has_come_whole(
    server: FakeOllama, make_client: MakeClient, ask: Ask
) -> None:
    whole = faults.Status(200, lines("Ice", " is", " cold", ""), "application/x-ndjson")
    server.misbehave(whole, when=when.prompt("leaver"))
    client = make_client(base_url=server.url)
    with client.stream("leaver") as leaver:
        assert next(leaver) == "Ice"
        with bystander(server, client, ask):
            leaver.close()


FORKED = """
    chunks = ollama_client.stream("parent")
    text = next(chunks)
    pid = os.fork()
    if not pid:
        try:
            {leave}
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert ollama_client.chat("The child is gone.")
    print(text + "".join(chunks))
"""
COLLECTED = "warnings.simplefilter('ignore'); del chunks"


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
@pytest.mark.parametrize("leave", ["chunks.close()", COLLECTED], ids=["closed", "collected"])
def test_leaving_a_stream_in_a_forked_child_which_is_its_parents(
    server: FakeOllama, leave: str
) -> None:
    held = HeldInside()
    server.misbehave(held, when=when.prompt("parent"))
    with ThreadPoolExecutor(1) as threads:
        said = threads.submit(run_script, server, FORKED.format(leave=leave))
        server.wait_for(lambda server: len(server.chats) == 2 or said.done(), 30)
        held.let_go()
        assert said.result() == f"{ANSWER}\nend\n"
    assert server.disconnects == []
