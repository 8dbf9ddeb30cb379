"""Whether all who are compared do the same work."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks import askers, peers, project
from benchmarks.cases import threads
from benchmarks.contest import CannotRunError
from benchmarks.growth import growth
from benchmarks.replies import ANSWER, MODEL
from benchmarks.rounds import play
from benchmarks.upstream import upstream

if TYPE_CHECKING:
    from benchmarks.askers import Asker
    from ollama_bridge.testing import FakeOllama

ASKERS = [askers.OURS, askers.OFFICIAL, askers.SESSION, askers.ADAPTER, askers.ROUTER]


@pytest.fixture(params=ASKERS, ids=lambda asker: asker.key)
def asker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Asker:
    """Each of them, where it is installed."""
    found: Asker = request.param
    if found.needs and not peers.is_here(found.needs):
        pytest.skip(f"{found.needs} is not installed here")
    monkeypatch.setenv(*project.WITHOUT_NETWORK)
    return found


def test_everybody_sends_the_same_question_on_a_connection_that_is_kept(
    asker: Asker, fake_ollama: FakeOllama
) -> None:
    with asker.open(fake_ollama.url) as ask:
        for _ in range(3):
            ask()

    assert len(fake_ollama.chats) == 3
    for chat in fake_ollama.chats:
        (message,) = chat.json["messages"]  # LiteLLM adds that it has no images
        assert [{"role": message["role"], "content": message["content"]}] == askers.MESSAGES
        assert (chat.json["model"], chat.json["stream"]) == (MODEL, False)
    connections = {chat.connection for chat in fake_ollama.chats}
    assert len(connections) == 1 or asker is askers.ROUTER


def test_everybody_returns_the_text_of_the_answer(asker: Asker) -> None:
    with upstream() as url, asker.open(url) as ask:
        assert ask() == ANSWER


def test_another_answer_than_the_servers_is_not_accepted() -> None:
    with pytest.raises(CannotRunError, match="another answer"):
        askers.check("I do not know.")


def test_a_crowd_waits_for_one_answer_and_not_for_all_in_turn() -> None:
    with threads.gather(8, seconds=0.2) as contestants:
        figures = play(contestants, rounds=1, warm_up=False, tell=lambda _: None)

    for seconds in figures["ours"] + figures["session"]:
        assert 0.2 <= seconds < 8 * 0.2


def test_growth_is_what_calls_leave_behind() -> None:
    kept: list[bytes] = []

    def keep() -> str:
        kept.append(b"." * 1_000_000)
        return ""

    def forget() -> str:
        return str(len(b"." * 1_000_000))

    assert growth(keep, 20) > 10_000_000 > growth(forget, 20)
