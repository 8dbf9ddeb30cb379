"""The four forms of asking, over HTTP: what is an answer, and what an interrupt leaves behind."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from ollama_bridge import ModelNotFound, StreamInterrupted
from ollama_bridge.reliability.askers import Answer, Asker
from ollama_bridge.reliability.crowd import Crowd
from ollama_bridge.reliability.tally import Tally
from ollama_bridge.testing import FakeOllama, faults

from .conftest import in_all_forms

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.conftest import MakeClient

in_pieces = pytest.mark.parametrize("asker", ["stream", "astream"], indirect=True)
as_one = pytest.mark.parametrize("asker", ["chat", "achat"], indirect=True)
# A thread that waits in chat() cannot be reached.
that_can_be_left = pytest.mark.parametrize("asker", ["stream", "achat", "astream"], indirect=True)


@in_all_forms
def test_an_answer_is_whole(asker: Asker, make_client: MakeClient, fake_ollama: FakeOllama) -> None:
    answer = asker.run(asker.ask(make_client(), "What is water?", max_tokens=5, timeout=20))
    assert str(answer.reply)
    assert answer.reply.usage.completion_tokens == 5
    assert fake_ollama.chats[0].prompt == "What is water?"


@in_pieces
def test_the_time_to_the_first_piece_is_not_that_of_the_answer(
    asker: Asker, make_client: MakeClient, fake_ollama: FakeOllama
) -> None:
    fake_ollama.misbehave(faults.StallStream(seconds=0.3))
    began = time.monotonic()
    answer = asker.run(asker.ask(make_client(), "What is water?"))
    assert answer.first_token is not None
    assert 0 < answer.first_token < time.monotonic() - began - 0.2


@as_one
def test_an_answer_in_one_piece_has_no_first_one(asker: Asker, make_client: MakeClient) -> None:
    assert asker.run(asker.ask(make_client(), "What is water?")).first_token is None


@in_pieces
@pytest.mark.parametrize(
    "fault", [faults.CutStream(), faults.ErrorLine(), faults.NotDone()], ids=repr
)
def test_a_stream_that_does_not_come_to_its_end_is_no_answer(
    asker: Asker, make_client: MakeClient, fake_ollama: FakeOllama, fault: faults.Fault
) -> None:
    fake_ollama.misbehave(fault)
    with pytest.raises(StreamInterrupted):
        asker.run(asker.ask(make_client(), "What is water?"))
    assert len(fake_ollama.chats) == 1


@in_all_forms
def test_an_error_is_that_of_the_client(asker: Asker, make_client: MakeClient) -> None:
    with pytest.raises(ModelNotFound, match="ollama pull qwen3"):
        asker.run(asker.ask(make_client(model="qwen3"), "What is water?"))


@in_all_forms
def test_the_report_is_a_new_one(
    asker: Asker, make_client: MakeClient, fake_ollama: FakeOllama
) -> None:
    client = make_client()
    assert asker.run(asker.report(client))
    fake_ollama.refuse()
    assert not asker.run(asker.report(client))


def asking(asker: Asker, make_client: MakeClient) -> Callable[[int], Awaitable[Answer]]:
    client = make_client()
    return lambda number: asker.ask(client, f"Call {number}")


@that_can_be_left
@pytest.mark.parametrize("fault", [faults.BlackHole(), faults.StallStream()], ids=repr)
def test_an_interrupt_closes_what_is_under_way_and_repeats_nothing(
    asker: Asker, make_client: MakeClient, fake_ollama: FakeOllama, fault: faults.Fault
) -> None:
    fake_ollama.misbehave(fault)

    def interrupted() -> None:
        fake_ollama.wait_for(lambda server: server.in_flight == 5)
        raise KeyboardInterrupt

    tally = Tally()
    crowd = Crowd(asker, asking(asker, make_client), tally, callers=5)
    with pytest.raises(KeyboardInterrupt):
        crowd.run(interrupted)
    fake_ollama.wait_for(lambda server: len(server.disconnects) == 5)
    assert len(fake_ollama.chats) == 5
    figures = tally.figures()
    assert (figures.unfinished, figures.answered, figures.failures) == (5, 0, ())


@in_all_forms
def test_a_crowd_asks_at_once(
    asker: Asker, make_client: MakeClient, fake_ollama: FakeOllama
) -> None:
    class Together:
        """Nobody is answered before all have asked."""

        async def reply(self, exchange: faults.Exchange) -> None:
            while fake_ollama.peak_in_flight < 20:
                await exchange.sleep(0.01)
            await exchange.send(exchange.honest())

    fake_ollama.misbehave(Together())
    tally = Tally()
    Crowd(asker, asking(asker, make_client), tally, callers=20).run(lambda: None)
    assert (tally.figures().answered, fake_ollama.peak_in_flight) == (20, 20)
