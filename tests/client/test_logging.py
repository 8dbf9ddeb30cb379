"""The lines that operators search for, word for word, and the fields beside them."""

from __future__ import annotations

import logging
import re
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TYPE_CHECKING

import pytest

from ollama_bridge import (
    CircuitOpen,
    ConnectionFailed,
    ModelNotFound,
    OllamaClient,
    Overloaded,
    ServerFailed,
    ollama_client,
)
from ollama_bridge.context import request_id
from ollama_bridge.core.breaker import Mode, State
from ollama_bridge.core.events import (
    CircuitClosed,
    CircuitFollowed,
    CircuitOpened,
    CircuitProbing,
    CooldownBegan,
    CooldownEnded,
    CooldownProbed,
    ModelSkipped,
    StrategyFailed,
)
from ollama_bridge.logs import log as log_event
from ollama_bridge.testing import FakeOllama, faults, when
from tests.net.held import Held

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_django import Settings

    from ollama_bridge.core.events import Event
    from tests.conftest import MakeClient

QUESTION = "What is water? Please tell me all about it."
CLIENT, CIRCUIT, FAILOVER = (f"ollama_bridge.{name}" for name in ("client", "circuit", "failover"))
FIELDS = ("endpoint", "model", "code", "request_id")

Line = tuple[str, str, str]
Facts = tuple[object, ...]


class Log:
    """What the bridge has logged, at INFO and above."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    @property
    def records(self) -> list[logging.LogRecord]:
        return [
            record
            for record in self._caplog.records
            if record.name.startswith("ollama_bridge") and record.levelno >= logging.INFO
        ]

    @property
    def lines(self) -> list[Line]:
        return [(record.levelname, record.name, record.getMessage()) for record in self.records]

    def facts(self, number: int) -> Facts:
        return tuple(getattr(self.records[number], name) for name in FIELDS)

    def clear(self) -> None:
        self._caplog.clear()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[Log]:
    with caplog.at_level(logging.DEBUG, "ollama_bridge"):
        yield Log(caplog)


@pytest.fixture
def request_7() -> Iterator[None]:
    token = request_id.set("request-7")
    yield
    request_id.reset(token)


def test_a_client_tells_once_where_it_calls(
    fake_ollama: FakeOllama, make_client: MakeClient, log: Log
) -> None:
    client = make_client()
    assert log.lines == []
    for _ in range(2):
        assert client.circuit_breaker.state == "closed"
    line = f"OllamaClient initialized: {fake_ollama.url}, model: llama3.2"
    assert log.lines == [("INFO", CLIENT, line)]
    assert log.facts(0) == ("default", "llama3.2", "", "")


@pytest.mark.usefixtures("request_7")
def test_an_answer_has_two_lines(make_client: MakeClient, log: Log) -> None:
    client = make_client()
    assert client.circuit_breaker.state == "closed"
    log.clear()
    client.chat(QUESTION)
    started, answered = log.lines
    assert started == ("INFO", CLIENT, "Generating response for prompt (length: 43)")
    assert answered[:2] == ("INFO", CLIENT)
    assert re.fullmatch(r"Response generated successfully in \d+\.\d\ds", answered[2])
    assert log.facts(0) == log.facts(1) == ("default", "llama3.2", "", "request-7")


def test_the_length_is_that_of_the_message_alone(make_client: MakeClient, log: Log) -> None:
    make_client(system_prompt="Be kind.").chat(
        "Öl?", history=[{"role": "user", "content": "Hello."}]
    )
    assert log.lines[1][2] == "Generating response for prompt (length: 3)"


def test_the_seconds_are_those_of_the_call(
    fake_ollama: FakeOllama, make_client: MakeClient, log: Log
) -> None:
    fake_ollama.misbehave(faults.Stall(0.25))
    reply = make_client().chat(QUESTION)
    assert log.lines[-1][2] == f"Response generated successfully in {reply.latency:.2f}s"
    assert 0.25 <= reply.latency < 0.5


@pytest.mark.usefixtures("request_7")
def test_each_attempt_that_failed_and_the_end_have_a_line(
    fake_ollama: FakeOllama, make_client: MakeClient, log: Log
) -> None:
    fake_ollama.misbehave(faults.bad_gateway())
    client = make_client()
    assert client.circuit_breaker.state == "closed"
    log.clear()
    with pytest.raises(ServerFailed) as caught:
        client.chat(QUESTION)
    _, *repeated, failed = log.lines
    assert [line[:2] for line in repeated] == [("WARNING", CLIENT)] * 3
    for number, (_, _, line) in enumerate(repeated, start=1):
        pattern = rf"Ollama call failed \(attempt {number}/4\)\. Retrying in 0\.\d\ds"
        assert re.fullmatch(pattern, line)
    reason = str(caught.value)
    assert failed == ("ERROR", CLIENT, f"Ollama call failed after 3 retries: {reason}")
    expected = ("default", "llama3.2", "upstream_failed", "request-7")
    assert [log.facts(number) for number in range(1, 5)] == [expected] * 4


def test_a_failure_without_repeats_says_so(
    fake_ollama: FakeOllama, make_client: MakeClient, log: Log
) -> None:
    fake_ollama.misbehave(faults.model_missing())
    with pytest.raises(ModelNotFound):
        make_client().chat(QUESTION)
    assert log.lines[-1] == (
        "ERROR",
        CLIENT,
        "Ollama call failed after 0 retries: Model llama3.2 not found. Run: ollama pull llama3.2",
    )
    assert log.facts(-1)[2] == "model_not_found"


@pytest.mark.usefixtures("request_7")
def test_a_circuit_tells_its_whole_story(
    fake_ollama: FakeOllama, make_client: MakeClient, log: Log
) -> None:
    fake_ollama.refuse()
    client = make_client(max_retries=0, open_seconds=0.1)
    for _ in range(5):
        with pytest.raises(ConnectionFailed):
            client.chat(QUESTION)
    left = client.circuit_breaker.retry_after
    fake_ollama.listen()
    assert left is not None
    time.sleep(left)  # it is time itself that is tested
    client.chat(QUESTION)
    story = [line for line in log.lines if line[1] == CIRCUIT]
    assert story == [
        ("ERROR", CIRCUIT, "Circuit breaker: Opening circuit after 5 failures"),
        ("INFO", CIRCUIT, "Circuit breaker: Attempting recovery (half-open state)"),
        ("INFO", CIRCUIT, "Circuit breaker: recovered to CLOSED state"),
    ]
    facts = [log.facts(number) for number, line in enumerate(log.lines) if line[1] == CIRCUIT]
    assert [fact[:3] for fact in facts] == [
        ("default", "", "connection_failed"),
        ("default", "", ""),
        ("default", "", ""),
    ]


def test_a_models_circuit_names_the_model(
    fake_ollama: FakeOllama, make_client: MakeClient, log: Log
) -> None:
    fake_ollama.misbehave(faults.out_of_memory())
    client = make_client(max_retries=0, failure_threshold=1)
    with pytest.raises(ServerFailed):
        client.chat(QUESTION)
    opened = [number for number, line in enumerate(log.lines) if line[1] == CIRCUIT]
    assert [log.facts(number)[:3] for number in opened] == [
        ("default", "llama3.2", "upstream_failed")
    ]


GPU = "gpu/llama3.2"
QUOTA = "quota_exhausted"


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (CircuitOpened("gpu", 5, 5.0, "x"), "Opening circuit after 5 failures (gpu)"),
        (CircuitOpened(GPU, 5, 5.0, "x"), f"Opening circuit after 5 failures ({GPU})"),
        (CircuitProbing(GPU), f"Attempting recovery (half-open state) ({GPU})"),
        (CircuitClosed(GPU), f"recovered to CLOSED state ({GPU})"),
        (
            CircuitFollowed(GPU, State.OPEN, Mode.AUTO),
            f"open, as another process has told ({GPU})",
        ),
        (
            CircuitFollowed("gpu", State.CLOSED, Mode.FORCED_OPEN),
            "forced_open, as another process has told (gpu)",
        ),
        (CircuitOpened("default", 5, 5.0, "x"), "Opening circuit after 5 failures"),
        (CircuitOpened("default/m", 5, 5.0, "x"), "Opening circuit after 5 failures"),
        (CircuitProbing("default"), "Attempting recovery (half-open state)"),
        (CircuitClosed("default"), "recovered to CLOSED state"),
    ],
    ids=str,
)
def test_a_line_says_which_circuit_but_for_the_one_server(
    log: Log, event: Event, line: str
) -> None:
    log_event(event)
    assert [each[1:] for each in log.lines] == [(CIRCUIT, f"Circuit breaker: {line}")]


def test_a_cooldown_says_which_endpoint_is_left_alone_and_why(log: Log) -> None:
    log_event(CooldownBegan("eu", QUOTA, 3600.0))
    log_event(CooldownBegan("eu", "rate_limited", 59.6, is_told=True))
    log_event(CooldownProbed("eu"))
    log_event(CooldownEnded("eu"))
    assert log.lines == [
        (
            "WARNING",
            CIRCUIT,
            "Cooldown: leaving endpoint eu alone for 3600 s, usage limit reached",
        ),
        (
            "INFO",
            CIRCUIT,
            "Cooldown: leaving endpoint eu alone for 60 s, the server asked for it",
        ),
        ("INFO", CIRCUIT, "Cooldown: over, trying whether endpoint eu answers again"),
        ("INFO", CIRCUIT, "Cooldown: ended for endpoint eu"),
    ]
    assert [log.facts(number)[:3] for number in range(4)] == [
        ("eu", "", QUOTA),
        ("eu", "", "rate_limited"),
        ("eu", "", ""),
        ("eu", "", ""),
    ]


def test_a_hop_says_from_where_and_to_where(
    fake_ollama: FakeOllama, make_client: MakeClient, log: Log
) -> None:
    with FakeOllama() as other:
        fake_ollama.misbehave(faults.unavailable())
        client = make_client(
            endpoints={
                "us": {"BASE_URL": fake_ollama.url},
                "eu": {"BASE_URL": other.url},
            },
            routes={"default": {"TARGETS": ["us", "eu"]}},
        )
        assert client.chat(QUESTION).endpoint == "eu"
    (hop,) = [line for line in log.lines if line[1] == FAILOVER]
    failed = f"Ollama at {fake_ollama.url} answered with HTTP 503. See the server's log"
    line = f"llm_failover from us/llama3.2 to eu/llama3.2: {failed}"
    assert hop == ("WARNING", FAILOVER, line)


def test_a_model_that_is_skipped_is_pulled_but_for_the_cloud_where_nobody_can(log: Log) -> None:
    log_event(ModelSkipped("gpu", "m"))
    log_event(ModelSkipped("cloud", "m", is_cloud=True))
    skipped = "Model m is not on endpoint {}, which is skipped. {}"
    assert [line[2] for line in log.lines] == [
        skipped.format("gpu", "Run there: ollama pull m"),
        skipped.format("cloud", "See https://ollama.com/search?c=cloud"),
    ]


def test_a_strategy_that_fails_is_an_error_of_its_route(log: Log) -> None:
    log_event(StrategyFailed("default", "LookupError in nearest, line 7"))
    line = (
        "The strategy of route default failed (LookupError in nearest, line 7). "
        "Its targets are tried as the settings list them"
    )
    assert log.lines == [("ERROR", FAILOVER, line)]


def test_refusals_do_not_flood_the_log(
    make_client: MakeClient, log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    client = make_client()
    client.circuit_breaker.force_open()
    log.clear()
    for _ in range(10):
        with pytest.raises(CircuitOpen):
            client.chat(QUESTION)
    assert {line[0] for line in log.lines} <= {"INFO"}
    told = [record for record in caplog.records if "refused" in record.getMessage()]
    assert {record.levelname for record in told} == {"DEBUG"}, "for who looks closely"
    assert len(told) == 10


def test_a_call_that_would_wait_in_vain_is_told_of(
    fake_ollama: FakeOllama, make_client: MakeClient, log: Log
) -> None:
    client = make_client(max_concurrency=1, max_waiting=0)
    held = Held()
    fake_ollama.misbehave(held)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(client.chat, QUESTION)
        fake_ollama.wait_for(lambda server: server.in_flight == 1)
        log.clear()
        with pytest.raises(Overloaded):
            client.chat(QUESTION)
        held.let_go()
    level, _, text = log.lines[0]
    assert (level, text[:45]) == ("WARNING", "Ollama call refused: Too many calls wait for ")


def test_a_call_outside_of_any_request_has_an_id_of_its_own(
    make_client: MakeClient, log: Log
) -> None:
    client = make_client()
    replies = [client.chat(QUESTION) for _ in range(2)]
    ids = {reply.request_id for reply in replies}
    assert len(ids) == 2
    assert all(re.fullmatch(r"[0-9a-f]{32}", each) for each in ids)
    assert {getattr(record, "request_id", "") for record in log.records[1:]} == ids


@pytest.mark.usefixtures("request_7")
def test_the_id_of_the_request_is_the_replys_and_crosses_threads_with_its_context(
    make_client: MakeClient,
) -> None:
    client = make_client()
    assert client.chat(QUESTION).request_id == "request-7"
    with ThreadPoolExecutor(1) as pool:
        context = copy_context()
        assert pool.submit(context.run, client.chat, QUESTION).result().request_id == "request-7"
        assert pool.submit(client.chat, QUESTION).result().request_id != "request-7"


def test_urllib3_does_not_warn_of_what_the_bridge_reports(
    fake_ollama: FakeOllama, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    fake_ollama.refuse()
    with pytest.raises(ConnectionFailed):
        make_client(max_retries=0).chat(QUESTION)
    others = logging.getLogger("urllib3.connectionpool")
    others.warning("a line without values")
    others.warning("a line with %(one)s", {"one": 1})
    lines = [record.getMessage() for record in caplog.records if record.name == others.name]
    assert lines == ["a line without values", "a line with 1"]


def test_nothing_is_logged_at_info_for_a_dropped_connection(
    fake_ollama: FakeOllama, make_client: MakeClient, log: Log
) -> None:
    fake_ollama.misbehave(faults.Drop(), when=when.reused())
    client = make_client()
    for _ in range(3):
        client.chat(QUESTION)
    assert {line[0] for line in log.lines} == {"INFO"}


def test_the_singleton_logs_as_any_client_does(
    fake_ollama: FakeOllama, settings: Settings, log: Log
) -> None:
    settings.OLLAMA_BRIDGE = {"BASE_URL": fake_ollama.url}
    ollama_client.chat(QUESTION)
    assert [line[2].partition(":")[0] for line in log.lines][:2] == [
        "OllamaClient initialized",
        "Generating response for prompt (length",
    ]
    assert isinstance(ollama_client, OllamaClient)
