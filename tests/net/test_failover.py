"""What one endpoint fails, another answers: on real connections, in each form of a call."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from ollama_bridge import (
    RequestRejected,
    StreamInterrupted,
    Timeout,
)
from ollama_bridge.testing import faults
from ollama_bridge.transports import aiopool  # noqa: F401  # it takes its time, once
from tests.client.forms import AChat, AStream, Chat, Form, Stream
from tests.net.held import Held
from tests.net.pair import Pair, codes, tried
from tests.net.rawserver import ConnectBlackHole

if TYPE_CHECKING:
    from ollama_bridge import OllamaClient
    from ollama_bridge.testing.faults import Fault

SHORT, LONG = 0.1, 0.3
MISS = 0.1
AT_ONCE = 0.05
TRIES = 3
CROWD = 20
LOG = "ollama_bridge.failover"


@dataclass(frozen=True)
class Case:
    """How the first endpoint fails, what its settings are, and how that is told."""

    name: str
    code: str
    fault: Fault | None = None
    status: int | None = None
    own: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0  # that it takes to fail


CASES = [
    Case("refused", "connection_failed"),
    Case("reset", "connection_failed", faults.Reset()),
    Case("dropped", "connection_failed", faults.Drop()),
    Case("garbage", "invalid_reply", faults.Garbage()),
    Case("HTML", "invalid_reply", faults.WrongType(), 200),
    Case("redirect", "invalid_reply", faults.redirect("http://127.0.0.1:1/"), 307),
    Case("black hole", "timeout", faults.BlackHole(), own={"TIMEOUT": SHORT}, seconds=SHORT),
    Case("drip", "timeout", faults.Drip("body"), own={"TIMEOUT": SHORT}, seconds=SHORT),
    Case("500", "upstream_failed", faults.server_error(), 500),
    Case("503", "upstream_failed", faults.unavailable(), 503),
    Case("error in 200", "upstream_failed", faults.ErrorInOK(), 200),
    Case("busy", "overloaded", faults.busy(), 503),
    Case("401", "upstream_auth", faults.unauthorized(), 401),
    Case("403", "upstream_auth", faults.forbidden(), 403),
    Case("404", "model_not_found", faults.model_missing(), 404),
    Case("429", "rate_limited", faults.rate_limited(), 429),
    Case("usage limit", "quota_exhausted", faults.usage_limit(), 429),
]


@pytest.fixture
def hops(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[logging.LogRecord]]]:
    """Return what gives the lines of failovers so far."""
    with caplog.at_level(logging.DEBUG, LOG):
        yield lambda: [record for record in caplog.records if record.name == LOG]


def is_told(record: logging.LogRecord, code: str) -> None:
    assert (record.levelname, record.msg.split()[0]) == ("WARNING", "llm_failover")
    facts = vars(record)
    assert facts["request_id"]
    told = {name: facts[name] for name in ("endpoint", "model", "code", "to")}
    assert told == {"endpoint": "a", "model": "llama3.2", "code": code, "to": "b/llama3.2"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_one_fails_the_other_answers_at_once(
    two: Pair, form: Form, hops: Callable[[], list[logging.LogRecord]], case: Case
) -> None:
    if case.fault is None:
        two.a.refuse()
    else:
        two.a.misbehave(case.fault)
    client = two.client(a=case.own, retry_initial_delay=30, retry_max_delay=30)
    assert client.circuit_breaker.state == "closed"  # loads what is loaded once
    reply = form.ask(client)
    assert (reply, reply.endpoint, len(two.b.chats)) == ("Wet.", "b", 1)
    failed, answered = reply.attempts
    assert (failed.endpoint, failed.code, failed.status) == ("a", case.code, case.status)
    assert (answered.endpoint, answered.code, answered.status) == ("b", "", 200)
    assert case.seconds <= reply.latency < case.seconds + 1
    (hop,) = hops()
    is_told(hop, case.code)
    assert vars(hop)["request_id"] == reply.request_id


def test_an_address_that_does_not_answer_costs_one_connect_timeout(
    two: Pair, form: Form, hops: Callable[[], list[logging.LogRecord]]
) -> None:
    with ConnectBlackHole() as hole:
        client = two.client(a={"BASE_URL": hole.url}, connect_timeout=SHORT)
        reply = form.ask(client)
    assert codes(reply.attempts) == ["a:timeout", "b:"]
    assert SHORT <= reply.attempts[0].seconds < SHORT + MISS
    (hop,) = hops()
    is_told(hop, "timeout")


@pytest.mark.parametrize("kind", [Stream, AStream], ids=lambda kind: kind.name)
@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (faults.CutStream(after=0), "connection_failed"),
        (faults.ErrorLine(after=0), "upstream_failed"),
        (faults.StallStream(after=0), "timeout"),
    ],
    ids=["cut", "error line", "stalled"],
)
def test_a_stream_goes_elsewhere_as_long_as_nothing_of_it_has_come(
    two: Pair, kind: type[Form], fault: Fault, code: str
) -> None:
    two.a.misbehave(fault)
    with kind() as form:
        told = form.tell(two.client(a={"FIRST_TOKEN_TIMEOUT": SHORT}))
    assert told.reply is not None
    assert codes(told.reply.attempts) == [f"a:{code}", "b:"]
    assert "".join(told.pieces) == "Wet."


@pytest.mark.parametrize("kind", [Stream, AStream], ids=lambda kind: kind.name)
@pytest.mark.parametrize("fault", [faults.CutStream(), faults.ErrorLine()], ids=["cut", "error"])
def test_a_stream_of_which_a_piece_has_come_ends_where_it_is(
    two: Pair,
    hops: Callable[[], list[logging.LogRecord]],
    kind: type[Form],
    fault: Fault,
) -> None:
    two.a.misbehave(fault)
    with kind() as form:
        told = form.tell(two.client())
    assert isinstance(told.error, StreamInterrupted)
    assert told.error.partial == "".join(told.pieces) == told.text != ""
    assert tried(told.error) == ["a:stream_interrupted"]
    assert (two.b.chats, hops()) == ([], [])


@pytest.mark.parametrize("kind", [Chat, AChat], ids=lambda kind: kind.name)
def test_an_answer_that_breaks_off_as_a_whole_is_begun_anew_elsewhere(
    two: Pair, kind: type[Form]
) -> None:
    two.a.misbehave(faults.CutBody())
    with kind() as form:
        reply = form.ask(two.client())
    assert (reply, codes(reply.attempts)) == ("Wet.", ["a:connection_failed", "b:"])


def test_a_request_that_is_wrong_goes_to_nobody_else(two: Pair, form: Form) -> None:
    two.a.misbehave(faults.bad_option())
    error = form.fail(two.client())
    assert isinstance(error, RequestRejected)
    assert two.b.chats == []


class TestTheDeadline:
    def late(self, form: Form, client: OllamaClient, seconds: float) -> tuple[Any, float]:
        """Return the error, and by how much the call missed its end: at the best of some times."""
        assert client.circuit_breaker.state == "closed"
        misses = []
        for _ in range(TRIES):
            started = time.monotonic()
            error = form.fail(client, timeout=seconds)
            misses.append(time.monotonic() - started - seconds)
            if misses[-1] < MISS:
                break
        return error, min(misses)

    def test_holds_over_both(self, two: Pair, form: Form) -> None:
        for server in (two.a, two.b):
            server.misbehave(faults.BlackHole())
        client = two.client(a={"TIMEOUT": SHORT}, circuit_breaker=False)
        error, missed = self.late(form, client, LONG)
        assert isinstance(error, Timeout)
        assert tried(error) == ["a:timeout", "b:timeout"]
        assert -0.02 < missed < MISS

    def test_of_the_settings_leaves_each_its_own(self, two: Pair, form: Form) -> None:
        for server in (two.a, two.b):
            server.misbehave(faults.BlackHole())
        client = two.client(a={"TIMEOUT": SHORT}, b={"TIMEOUT": LONG})
        assert client.circuit_breaker.state == "closed"
        error = form.fail(client)
        assert isinstance(error, Timeout)
        assert tried(error) == ["a:timeout", "b:timeout"]
        first, second = (attempt.seconds for attempt in error.attempts)
        assert SHORT - 0.02 <= first < SHORT + MISS  # it is measured from the attempt on
        assert LONG - SHORT - MISS < second < LONG - SHORT + MISS

    def test_holds_over_a_connect_that_hangs_and_a_drip(self, two: Pair, form: Form) -> None:
        two.b.misbehave(faults.Drip("body"))
        with ConnectBlackHole() as hole:
            client = two.client(
                a={"BASE_URL": hole.url}, connect_timeout=SHORT, circuit_breaker=False
            )
            error, missed = self.late(form, client, LONG)
        assert tried(error) == ["a:timeout", "b:timeout"]
        assert -0.02 < missed < MISS

    def test_holds_over_pauses_and_further_rounds(self, two: Pair, form: Form) -> None:
        for server in (two.a, two.b):
            server.misbehave(faults.unavailable())
        client = two.client(
            retry_backoff="fixed", retry_delay=0.1, max_retries=9, circuit_breaker=False
        )
        error, missed = self.late(form, client, LONG)
        assert missed < MISS
        assert error.status == 503
        assert 4 <= len(error.attempts) <= 8


def test_who_names_an_endpoint_is_answered_by_no_other(two: Pair, form: Form) -> None:
    two.a.refuse()
    client = two.client(max_retries=0)
    assert tried(form.fail(client, using="a")) == ["a:connection_failed"]
    assert form.ask(client, using="b").endpoint == "b"
    assert len(two.b.chats) == 1


def test_who_leaves_a_call_that_went_on_elsewhere_ends_it_there(two: Pair, form: Form) -> None:
    two.a.misbehave(faults.unavailable())
    two.b.misbehave(faults.BlackHole())
    client = two.client(max_concurrency=1)
    under_way = form.begin_to_leave(client)
    two.b.wait_for(lambda server: len(server.chats) == 1)
    assert under_way.leave().left
    two.b.wait_for(lambda server: len(server.disconnects) == 1)
    figures = client.get_stats()
    assert (figures["in_flight"], figures["waiting"]) == (0, 0)
    assert client.circuit_breakers["b"].failures == 0


def test_an_endpoint_that_comes_back_is_tried_by_one_and_the_others_do_not_wait(
    two: Pair, form: Form
) -> None:
    held = Held()
    two.a.refuse()
    client = two.client(failure_threshold=1, open_seconds=0.2)
    assert form.ask(client).endpoint == "b"
    two.a.listen()
    two.a.misbehave(held)
    until(lambda: not client.circuit_breakers["a"].retry_after)
    probe = form.begin(client)
    two.a.wait_for(lambda server: len(server.chats) == 1)
    others = [form.begin(client) for _ in range(CROWD)]
    replies = [other.result().reply for other in others]
    assert [reply and codes(reply.attempts) for reply in replies] == (
        [["a:circuit_open", "b:"]] * CROWD
    )
    held.let_go()
    reply = probe.result().reply
    assert (reply and reply.endpoint, client.circuit_breakers["a"].state) == ("a", "closed")
    assert form.ask(client).endpoint == "a"


def until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < end, "this does not come true"
        time.sleep(0.001)
