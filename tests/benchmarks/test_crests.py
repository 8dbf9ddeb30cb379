"""Crowds: what they hold at their crest, and how long they wait."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from benchmarks import peers
from benchmarks.cases import crests, crowd
from benchmarks.crest import Held, Report, measure
from benchmarks.process import descriptors
from benchmarks.rounds import play

CALLERS = 6


def test_a_crowd_waits_for_one_answer_and_not_for_all_in_turn() -> None:
    with crowd.gather(CALLERS, seconds=0.2) as contestants:
        figures = play(contestants, rounds=1, warm_up=False, tell=lambda _: None)

    for seconds in figures["ours"] + figures["bare"]:
        assert 0.2 <= seconds < CALLERS * 0.2


def test_the_crest_is_the_most_that_is_held_while_all_are_under_way() -> None:
    async def call() -> None:
        with Path(os.devnull).open("rb"):  # noqa: ASYNC230  # its descriptor is the point
            held = b"." * 5_000_000
            await asyncio.sleep(0.2)  # so that one of the looks, each 50 ms, meets all of them
            assert held

    found = asyncio.run(measure(call, CALLERS, 2))

    for crest in found.crests:
        assert crest.descriptors - found.before.descriptors == CALLERS
        # Not all of it: what the process has free already serves some.
        assert crest.memory - found.before.memory > (CALLERS - 2) * 5_000_000


@pytest.mark.soak
def test_streams_are_read_in_a_process_of_their_own_and_each_has_a_descriptor() -> None:
    with crests.gather_streams(
        CALLERS,
        growth=crests.grown_descriptors,
        each=crests.opened,
        chunks=5,
        pause=0.1,
    ) as contestants:
        figures = play(contestants, rounds=1, warm_up=False, tell=lambda _: None)

    assert (figures["ours"], figures["ours_each"]) == ([0], [1])
    assert not peers.is_here("aiohttp") or figures["bare_each"] == [1]


def test_memory_is_that_of_a_chat_among_all() -> None:
    with crests.gather_chats(CALLERS, seconds=0.3) as contestants:
        (ours,) = play(contestants[:1], rounds=1, warm_up=False, tell=lambda _: None)["ours"]

    assert 0 <= ours < 1_000_000


def test_this_process_has_descriptors() -> None:
    before = descriptors()
    with Path(os.devnull).open("rb"):
        assert descriptors() == before + 1


def test_growth_is_counted_from_the_second_crowd() -> None:
    held = [Held(memory=memory, descriptors=9) for memory in (100, 300, 310, 320)]
    found = Report(before=Held(memory=40, descriptors=3), crests=tuple(held))

    assert (crests.grown_memory(found), crests.memory(found)) == (20, 280)
    assert (crests.grown_descriptors(found), crests.opened(found)) == (0, 7)
