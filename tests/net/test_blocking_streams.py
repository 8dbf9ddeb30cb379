"""The flow of a stream on the blocking driver: what ``stream()`` will stand on."""

from __future__ import annotations

import random
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from ollama_bridge import (
    ChatReply,
    ConnectionFailed,
    InvalidReply,
    OllamaBridgeError,
    StreamInterrupted,
    Timeout,
)
from ollama_bridge.core import exchanges, flow
from ollama_bridge.core.deadline import Clock
from ollama_bridge.core.flow import Call
from ollama_bridge.core.protocol import ChatRequest, messages_of
from ollama_bridge.core.retry import RetryPolicy
from ollama_bridge.core.routing import Router
from ollama_bridge.core.types import Delta
from ollama_bridge.state.local import LocalHome
from ollama_bridge.testing import FakeOllama, faults, when
from ollama_bridge.transports.blocking import Conversation, drive, finish
from ollama_bridge.transports.pool import BlockingTransport
from tests.core.virtual import endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ollama_bridge.testing.faults import Fault

Deltas = Generator[Delta, None, ChatReply]
ANSWER = "Water is wet and blue."


@dataclass
class Streamer:
    """Streams from a fake server, without a client."""

    router: Router
    transport: BlockingTransport

    def stream(self, **facts: Any) -> Deltas:
        asked = ChatRequest(messages=messages_of("hi", "", ()), stream=True)
        call = Call(request=asked, request_id="r", **facts)
        steps = flow.answer(self.router, call, exchanges.streamed)
        return drive(steps, Conversation(self.transport, self.router.home))

    def read(self, **facts: Any) -> tuple[list[str], ChatReply]:
        """Return the pieces and the whole."""
        deltas = self.stream(**facts)
        pieces: list[str] = []
        while True:
            try:
                pieces.append(next(deltas).text)
            except StopIteration as end:
                return pieces, end.value

    def break_off(self, **facts: Any) -> tuple[list[str], OllamaBridgeError]:
        """Return the pieces that came before the error, and the error."""
        pieces: list[str] = []
        with pytest.raises(OllamaBridgeError) as caught:
            pieces.extend(delta.text for delta in self.stream(**facts))
        return pieces, caught.value


@pytest.fixture
def server() -> Iterator[FakeOllama]:
    with FakeOllama(answer=ANSWER) as server:
        yield server


@pytest.fixture
def streamer(server: FakeOllama) -> Iterator[Streamer]:
    quick = RetryPolicy(initial_delay=0.01)
    place = endpoint(base_url=server.url, model="llama3.2", retry=quick, timeout=5.0)
    router = Router(
        [place], clock=Clock(), random=random.random, observe=lambda _: None, home=LocalHome()
    )
    transport = BlockingTransport(1)
    with closing(transport):
        yield Streamer(router, transport)


def test_pieces_come_as_they_are_made(server: FakeOllama, streamer: Streamer) -> None:
    pieces, reply = streamer.read()
    assert "".join(pieces) == reply == ANSWER
    assert len(pieces) > 1
    assert reply.done_reason == "stop"
    assert reply.usage.completion_tokens > 0
    assert server.chats[0].json["stream"] is True


def test_a_connection_serves_one_stream_after_another(
    server: FakeOllama, streamer: Streamer
) -> None:
    for _ in range(3):
        assert streamer.read()[1] == ANSWER
    assert server.connections <= 3


@pytest.mark.parametrize("size", [1, 7])
def test_it_does_not_matter_where_the_network_cuts(
    server: FakeOllama, streamer: Streamer, size: int
) -> None:
    server.misbehave(faults.Resplit(size))
    pieces, _ = streamer.read()
    assert "".join(pieces) == ANSWER


def test_leaving_early_closes_the_connection(server: FakeOllama, streamer: Streamer) -> None:
    server.misbehave(faults.StallStream(after=1))
    deltas = streamer.stream()
    assert next(deltas).text
    deltas.close()
    server.wait_for(lambda server: len(server.disconnects) == 1)
    assert server.open_connections == 0
    assert streamer.router.facts("default").failures == 0


def test_the_time_that_the_reader_takes_is_no_idle_time(
    server: FakeOllama, streamer: Streamer
) -> None:
    deltas = streamer.stream(chunk_timeout=0.1)
    next(deltas)
    time.sleep(0.3)  # the reader takes its time
    assert sum(1 for _ in deltas) > 1


def test_a_silence_in_a_stream_ends_it_with_what_came(
    server: FakeOllama, streamer: Streamer
) -> None:
    server.misbehave(faults.StallStream(after=2))
    started = time.monotonic()
    pieces, error = streamer.break_off(chunk_timeout=0.2)
    assert 0.18 < time.monotonic() - started < 0.5
    assert isinstance(error, Timeout)
    assert (error.phase, error.partial) == ("idle", "".join(pieces))
    assert pieces


def test_a_deadline_that_the_caller_gives_bounds_the_whole_stream(
    server: FakeOllama, streamer: Streamer
) -> None:
    server.misbehave(faults.Drip("body", interval=0.002))
    started = time.monotonic()
    pieces, error = streamer.break_off(timeout=0.5)
    assert 0.48 < time.monotonic() - started < 1
    assert isinstance(error, Timeout)
    assert (error.phase, error.partial) == ("total", "".join(pieces))


def test_silence_before_the_first_piece_is_the_calls_own(
    server: FakeOllama, streamer: Streamer
) -> None:
    server.misbehave(faults.StallStream(after=0))
    pieces, error = streamer.break_off(timeout=0.2)
    assert isinstance(error, Timeout)
    assert (pieces, error.phase) == ([], "total")


@pytest.mark.parametrize(
    "fault",
    [
        faults.ErrorLine(after=2),
        faults.CutStream(after=2),
        faults.CutStream(after=2, reset=True),
        faults.NotDone(),
    ],
)
def test_a_stream_that_breaks_is_not_repeated_and_keeps_its_text(
    server: FakeOllama, streamer: Streamer, fault: Fault
) -> None:
    server.misbehave(fault)
    pieces, error = streamer.break_off()
    assert isinstance(error, StreamInterrupted)
    assert error.partial == "".join(pieces)
    assert ANSWER.startswith(error.partial)
    assert pieces
    assert len(server.chats) == 1


@pytest.mark.parametrize(
    "fault",
    [faults.CutStream(after=0), faults.Reset(), faults.unavailable(), faults.server_error()],
)
def test_a_failure_before_the_first_piece_is_repeated(
    server: FakeOllama, streamer: Streamer, fault: Fault
) -> None:
    server.misbehave(fault, when=when.first(1))
    assert streamer.read()[1] == ANSWER
    assert len(server.chats) == 2


def test_a_line_without_an_end_does_not_fill_the_memory(
    server: FakeOllama, streamer: Streamer
) -> None:
    server.misbehave(faults.HugeLine())
    pieces, error = streamer.break_off()
    assert isinstance(error, InvalidReply)
    assert pieces == []
    server.wait_for(lambda server: len(server.disconnects) == 1)


def test_a_killed_server_fails_a_stream_as_any_call(server: FakeOllama, streamer: Streamer) -> None:
    server.refuse()
    pieces, error = streamer.break_off()
    assert isinstance(error, ConnectionFailed)
    assert len(error.attempts) == 4
    assert pieces == []


def test_a_stream_is_not_finished_in_one_go(streamer: Streamer) -> None:
    deltas = streamer.stream()
    with pytest.raises(TypeError, match="this flow streams"):
        finish(deltas)
    deltas.close()
