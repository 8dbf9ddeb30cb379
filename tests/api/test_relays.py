"""How a stream becomes the bytes of a response: one reader, one writer, a short queue between."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import OperationalError

from ollama_bridge import errors
from ollama_bridge.api import events, threads
from ollama_bridge.api.relay import Item
from ollama_bridge.core.types import Delta
from tests.api import sse
from tests.api.relays import LONGEST, RELAYS, AsyncRelay, Relay, SyncRelay, ThreadedRelay
from tests.api.test_events import Ended

CANARY = "heliotrope-armadillo"

SHORT = 0.05

A = Delta("A")
LIQUID = Delta(" liquid.")


@pytest.fixture(params=RELAYS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> type[Relay]:
    kind: type[Relay] = request.param
    return kind


@pytest.fixture
def relay(kind: type[Relay]) -> Iterator[Relay]:
    with kind() as relay:
        yield relay


def _rest(relay: Relay) -> list[sse.Event]:
    return sse.parse(b"".join(iter(relay.read, b"")))


class TestBeginning:
    def test_waits_for_the_first_event(self, relay: Relay) -> None:
        relay.feed(A)
        relay.begin()
        assert sse.parse(relay.read()) == [("delta", {"text": "A"})]

    def test_takes_no_piece_without_words_for_an_event(self, relay: Relay) -> None:
        relay.feed(Delta(), Delta(tool_calls=({},)), Delta(thinking="Hm"))
        relay.begin()
        assert sse.parse(relay.read()) == [("thinking", {"text": "Hm"})]

    @pytest.mark.parametrize("error", [errors.CircuitOpen(), ZeroDivisionError()])
    def test_raises_what_ended_the_stream_before_it(self, relay: Relay, error: Exception) -> None:
        relay.feed(Delta(), error)
        with pytest.raises(type(error)) as caught:
            relay.begin()
        assert caught.value is error
        assert relay.released.reaches(1)

    def test_may_find_the_end_already(self, relay: Relay) -> None:
        relay.feed(None)
        relay.begin()
        assert _rest(relay) == [("done", Ended().answered(relay.reply))]

    def test_becomes_a_heartbeat_when_patience_ends(self, relay: Relay) -> None:
        relay.begin(0.01)
        assert relay.read() == events.HEARTBEAT
        relay.feed(A, None)
        assert [event.name for event in _rest(relay)] == ["delta", "done"]


class TestReading:
    def test_gives_every_piece_once_and_the_end_once(self, relay: Relay) -> None:
        relay.feed(A, Delta(" clear", "Hm"), LIQUID, None)
        relay.begin()
        assert _rest(relay) == [
            ("delta", {"text": "A"}),
            ("thinking", {"text": "Hm"}),
            ("delta", {"text": " clear"}),
            ("delta", {"text": " liquid."}),
            ("done", Ended().answered(relay.reply)),
        ]
        assert relay.read() == b""

    def test_gives_a_piece_while_the_next_is_not_there_yet(self, relay: Relay) -> None:
        relay.feed(A)
        relay.begin()
        assert sse.texts(sse.parse(relay.read())) == "A"
        relay.feed(LIQUID)
        assert sse.texts(sse.parse(relay.read())) == " liquid."

    def test_gives_at_once_all_that_waits(self, relay: Relay) -> None:
        relay.feed(*[A] * 10)
        relay.begin()
        assert relay.taken.reaches(10)
        relay.feed(Delta("B"))  # taken only when the ten are in the queue
        assert relay.taken.reaches(11)
        assert sse.texts(sse.parse(relay.read())).startswith("A" * 10)

    def test_holds_up_the_stream_where_it_is_slow(self, relay: Relay) -> None:
        relay.feed(*[A] * 200, None)
        relay.begin()
        most = 1 + events.MOST_QUEUED + 1  # the first, the queue, and one that waits for its place
        assert relay.taken.reaches(most)
        assert not relay.taken.reaches(most + 1, within=0.1)
        assert sse.texts(_rest(relay)) == "A" * 200

    def test_tells_of_an_error_at_the_end(self, relay: Relay) -> None:
        relay.feed(A, errors.StreamInterrupted(retry_after=3.0))
        relay.begin()
        delta, (name, body) = _rest(relay)
        assert delta == ("delta", {"text": "A"})
        assert (name, body["code"], body["retry_after"]) == ("error", "stream_interrupted", 3)
        assert relay.read() == b""

    def test_tells_of_an_error_that_came_after_patience(self, relay: Relay) -> None:
        relay.begin(0.01)
        relay.feed(errors.CircuitOpen())
        ((name, body),) = _rest(relay)
        assert (name, body["code"]) == ("error", "circuit_open")

    def test_tells_of_a_bug_once_without_its_text_and_logs_it(
        self, relay: Relay, caplog: pytest.LogCaptureFixture
    ) -> None:
        bug = ZeroDivisionError(CANARY)
        relay.feed(A, bug)
        relay.begin()
        read = b"".join(iter(relay.read, b""))
        assert [event.name for event in sse.parse(read)] == ["delta", "error"]
        assert CANARY.encode() not in read
        (record,) = [each for each in caplog.records if each.levelno == logging.ERROR]
        assert record.exc_info
        assert record.exc_info[1] is bug


class TestSilence:
    def test_is_filled_with_heartbeats(
        self, kind: type[Relay], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(events, "HEARTBEAT_EVERY", 0.01)
        monkeypatch.setattr(events, "FIRST_HEARTBEAT", 0.005)
        with kind() as relay:
            relay.feed(A)
            relay.begin()
            assert relay.read() != events.HEARTBEAT
            assert [relay.read() for _ in range(3)] == [events.HEARTBEAT] * 3
            relay.feed(LIQUID, None)
            assert sse.texts(_rest(relay)) == " liquid."

    @pytest.mark.parametrize("kind", [SyncRelay, ThreadedRelay], ids=lambda kind: kind.name)
    def test_before_the_first_event_has_its_second_heartbeat_soon(
        self, relay: Relay, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A connection that the client has closed fails at the second write; ASGI tells of it."""
        monkeypatch.setattr(events, "FIRST_HEARTBEAT", 0.01)
        relay.begin(0.01)
        began = time.monotonic()
        assert [relay.read(), relay.read()] == [events.HEARTBEAT] * 2
        assert time.monotonic() - began < events.HEARTBEAT_EVERY / 2

    def test_has_two_heartbeats_close_together_each_time(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Under WSGI, where only the second of them tells that the client has gone."""
        monkeypatch.setattr(events, "HEARTBEAT_EVERY", 0.01)
        monkeypatch.setattr(events, "FIRST_HEARTBEAT", 0.005)
        waits: list[float | None] = []
        with SyncRelay() as relay:
            relay.feed(A)
            relay.begin()
            get = relay.events._queue.get

            def noted(block: bool = True, timeout: float | None = None) -> Item:
                waits.extend([timeout] if block else [])
                return get(block, timeout)

            monkeypatch.setattr(relay.events._queue, "get", noted)
            relay.read()
            assert [relay.read() for _ in range(4)] == [events.HEARTBEAT] * 4
            assert waits == [0.01, 0.005, 0.01, 0.005]

    def test_that_is_short_has_none(self, relay: Relay) -> None:
        relay.feed(A)
        relay.begin()
        relay.read()
        with ThreadPoolExecutor(1) as thread:
            waiting = thread.submit(relay.read)
            relay.feed(LIQUID)
            assert sse.texts(sse.parse(waiting.result(LONGEST))) == " liquid."


class TestALease:
    @pytest.fixture(autouse=True)
    def _short(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(events, "LEASE", SHORT)

    def test_ends_a_stream_that_nobody_reads(self, relay: Relay) -> None:
        """As Django does with the response of a client that left while middleware was at work."""
        relay.feed(*[A] * 200)
        relay.begin()
        assert relay.left.reaches(1)
        assert relay.released.reaches(1)
        assert relay.read() == b""

    @pytest.mark.parametrize("kind", [SyncRelay, ThreadedRelay], ids=lambda kind: kind.name)
    def test_ends_a_pump_that_has_only_the_end_left_to_hand_on(self, relay: Relay) -> None:
        relay.feed(*[A] * (1 + events.MOST_QUEUED), None)
        relay.begin()
        assert relay.left.reaches(1)

    def test_is_over_once_somebody_reads_however_slowly(self, relay: Relay) -> None:
        relay.feed(*[A] * 200, None)
        relay.begin()
        read = relay.read()
        assert not relay.left.reaches(1, within=4 * SHORT)
        assert sse.texts(sse.parse(read) + _rest(relay)) == "A" * 200

    def test_is_as_long_as_somebody_may_be_late(
        self, kind: type[Relay], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(events, "LEASE", LONGEST)
        with kind() as relay:
            relay.feed(*[A] * 200, None)
            relay.begin()
            assert not relay.left.reaches(1, within=4 * SHORT)
            assert [event.name for event in _rest(relay)][-1] == "done"


class TestTheSeat:
    def test_is_kept_while_the_stream_goes_on(self, relay: Relay) -> None:
        relay.feed(A)
        relay.begin()
        relay.read()
        assert relay.released.number == 0

    @pytest.mark.parametrize("last", [None, errors.StreamInterrupted(), ZeroDivisionError()])
    def test_is_freed_by_the_end_although_nobody_has_read_it(
        self, relay: Relay, last: Exception | None
    ) -> None:
        relay.feed(A, last)
        relay.begin()
        assert relay.released.reaches(1)

    def test_is_freed_by_leaving(self, relay: Relay) -> None:
        relay.feed(A)
        relay.begin()
        relay.close()
        assert relay.released.reaches(1)


class TestLeaving:
    def test_before_it_has_begun_frees_the_seat(self, relay: Relay) -> None:
        relay.close()
        assert relay.released.reaches(1)

    def test_before_anything_was_read_ends_the_stream(self, relay: Relay) -> None:
        relay.feed(A)
        relay.begin()
        relay.close()
        assert relay.left.reaches(1)
        assert relay.read() == b""

    def test_while_the_stream_waits_for_its_reader_ends_it(self, relay: Relay) -> None:
        relay.feed(*[A] * 200)
        relay.begin()
        assert relay.taken.reaches(events.MOST_QUEUED + 2)
        relay.close()
        assert relay.left.reaches(1)
        assert relay.read() == b""

    @pytest.mark.parametrize("kind", [SyncRelay, ThreadedRelay], ids=lambda kind: kind.name)
    def test_while_the_writer_waits_ends_its_wait(self, relay: Relay) -> None:
        """Under ASGI the server cancels the one who waits."""
        relay.feed(A)
        relay.begin()
        relay.read()
        with ThreadPoolExecutor(1) as thread:
            waiting = thread.submit(relay.read)
            relay.close()
            assert waiting.result(events.HEARTBEAT_EVERY / 2) == b""
            relay.feed(None)
        assert relay.left.reaches(1)

    def test_leaves_the_end_for_a_writer_who_waits_already(self) -> None:
        with SyncRelay() as relay:
            relay.feed(A, None)
            relay.begin()
            assert relay.released.reaches(1)
            relay.close()
            assert relay.events._next().is_last

    def test_after_the_end_is_no_harm_nor_is_it_twice(self, relay: Relay) -> None:
        relay.feed(A, None)
        relay.begin()
        assert len(_rest(relay)) == 2
        for _ in range(3):
            relay.close()
        assert relay.read() == b""

    def test_because_a_database_connection_does_not_close_frees_the_seat(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def fail() -> None:
            raise OperationalError

        monkeypatch.setattr(threads, "release", fail)
        with AsyncRelay() as relay:
            relay.feed(A)
            relay.begin()
            with pytest.raises(OperationalError):
                relay.read()
            assert relay.left.reaches(1)
            assert relay.released.reaches(1)

    def test_writes_nothing_into_the_log(
        self, relay: Relay, caplog: pytest.LogCaptureFixture
    ) -> None:
        relay.feed(A)
        relay.begin()
        relay.close()
        assert relay.released.reaches(relay.releases)
        assert caplog.records == []
