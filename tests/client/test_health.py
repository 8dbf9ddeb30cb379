"""The health report, over HTTP: what it says, what it costs, and what it leaves alone."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from ollama_bridge import (
    AuthenticationFailed,
    CircuitOpen,
    ConnectionFailed,
    ModelNotFound,
    OllamaBridgeError,
    ServerFailed,
    Timeout,
)
from ollama_bridge.testing import FakeOllama, faults, when
from tests.net.rawserver import ConnectBlackHole

if TYPE_CHECKING:
    from ollama_bridge.testing.faults import Fault
    from tests.conftest import MakeClient

QUESTION = "What is water?"
ASKED = ["/api/tags", "/api/version", "/api/ps"]


def paths(server: FakeOllama) -> list[str]:
    return [request.path for request in server.requests]


def test_a_server_in_good_health_is_healthy(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    client = make_client()
    report = client.health_check()
    assert report
    assert report.status == "healthy"
    assert report.reachable
    assert (report.endpoint, report.url, report.model) == ("default", fake_ollama.url, "llama3.2")
    assert report.version == "0.24.0"
    assert report.models == {"llama3.2": True}
    assert report.loaded == frozenset()
    assert report.circuit == "closed"
    assert (report.error, report.retry_after) == (None, None)
    assert 0 < report.latency < 5
    assert sorted(paths(fake_ollama)) == sorted(ASKED)


def test_it_tells_which_models_are_loaded(fake_ollama: FakeOllama, make_client: MakeClient) -> None:
    client = make_client()
    client.chat(QUESTION)
    assert client.health_check().loaded == {"llama3.2:latest"}
    assert len(fake_ollama.chats) == 1


def test_a_missing_model_is_unhealthy_and_names_the_command(make_client: MakeClient) -> None:
    with FakeOllama(models=["tiny"]) as server:
        report = make_client(base_url=server.url).health_check()
    assert not report
    assert (report.status, report.reachable) == ("unhealthy", True)
    assert report.models == {"llama3.2": False}
    assert isinstance(report.error, ModelNotFound)
    assert str(report.error) == "Model llama3.2 not found. Run: ollama pull llama3.2"


def test_a_killed_server_is_unhealthy(fake_ollama: FakeOllama, make_client: MakeClient) -> None:
    fake_ollama.refuse()
    report = make_client().health_check()
    assert (report.status, report.reachable) == ("unhealthy", False)
    assert isinstance(report.error, ConnectionFailed)
    assert "Start it with: ollama serve" in str(report.error)


def test_a_server_that_does_not_answer_is_unhealthy_after_a_while(
    make_client: MakeClient,
) -> None:
    with ConnectBlackHole() as hole:
        report = make_client(base_url=hole.url, connect_timeout=0.1).health_check()
    assert isinstance(report.error, Timeout)
    assert not report.reachable


@pytest.mark.parametrize(
    ("fault", "error", "reachable"),
    [
        (faults.BlackHole(), Timeout, False),
        (faults.Drip("body"), Timeout, False),
        (faults.Reset(), ConnectionFailed, False),
        (faults.server_error(), ServerFailed, True),
        (faults.bad_gateway(), ServerFailed, True),
        (faults.unauthorized(), AuthenticationFailed, True),
        (faults.forbidden(), AuthenticationFailed, True),
        (faults.WrongType(), OllamaBridgeError, True),
        (faults.Garbage(), OllamaBridgeError, True),
        (faults.page_not_found(), OllamaBridgeError, True),
    ],
)
def test_what_stands_in_the_way_is_told(
    fake_ollama: FakeOllama,
    make_client: MakeClient,
    fault: Fault,
    error: type[OllamaBridgeError],
    reachable: bool,
) -> None:
    fake_ollama.misbehave(fault, path=None)
    started = time.monotonic()
    report = make_client(timeout=0.3).health_check()
    assert time.monotonic() - started < 0.5
    assert not report
    assert isinstance(report.error, error)
    assert report.reachable is reachable


def test_no_health_check_moves_the_circuit(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    client = make_client(failure_threshold=1)
    fake_ollama.refuse()
    for _ in range(3):
        assert not client.health_check(force=True)
    assert (client.circuit_breaker.state, client.circuit_breaker.generation) == ("closed", 0)
    with pytest.raises(ConnectionFailed):
        client.chat(QUESTION)
    fake_ollama.listen()
    report = client.health_check(force=True)
    assert report.reachable
    assert client.circuit_breaker.state == "open"


def test_an_open_circuit_is_unhealthy_until_it_may_be_probed(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    client = make_client(failure_threshold=1, open_seconds=1.0, max_retries=0)
    fake_ollama.misbehave(faults.bad_gateway(), when=when.first(1))
    with pytest.raises(ServerFailed):
        client.chat(QUESTION)
    report = client.health_check()
    assert (report.status, report.reachable, report.circuit) == ("unhealthy", True, "open")
    assert isinstance(report.error, CircuitOpen)
    assert report.retry_after is not None
    assert 0 < report.retry_after <= 1.0
    time.sleep(report.retry_after)  # it is time itself that is tested
    report = client.health_check()
    assert (report.status, report.circuit) == ("degraded", "open")
    assert report
    client.chat(QUESTION)
    report = client.health_check()
    assert (report.status, report.circuit) == ("healthy", "closed")


def test_a_good_report_is_kept(fake_ollama: FakeOllama, make_client: MakeClient) -> None:
    client = make_client()
    reports = [client.health_check() for _ in range(5)]
    assert all(reports)
    assert len(fake_ollama.requests) == len(ASKED)


def test_force_asks_the_server_in_any_case(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    client = make_client()
    for _ in range(3):
        assert client.health_check(force=True)
    assert len(fake_ollama.requests) == 3 * len(ASKED)


def test_a_bad_report_is_kept_for_a_shorter_time(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    fake_ollama.misbehave(faults.server_error(), path=None, when=when.first(1))
    client = make_client(health_cache_seconds=1.0)
    assert not client.health_check()
    assert not client.health_check()
    assert len(fake_ollama.requests) == 1
    time.sleep(1.0)  # it is time itself that is tested
    assert client.health_check()


def test_a_transition_of_the_circuit_makes_the_report_old(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    client = make_client()
    client.health_check()
    client.circuit_breaker.force_open()
    report = client.health_check()
    assert report.status == "unhealthy"
    assert report.retry_after is None
    assert len(fake_ollama.requests) == 2 * len(ASKED)


def test_a_crowd_gets_the_old_report_while_one_asks_for_a_new_one(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    client = make_client(health_cache_seconds=0)
    client.health_check()
    fake_ollama.misbehave(faults.Stall(1.0), path="/api/tags")
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(client.health_check)
        fake_ollama.wait_for(lambda server: server.in_flight == 1)
        started = time.monotonic()
        assert all(client.health_check() for _ in range(10))
        assert time.monotonic() - started < 0.8
        assert asking.result()
    assert paths(fake_ollama).count("/api/tags") == 2


def test_a_crowd_without_any_report_waits_for_the_one_that_comes(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    client = make_client()
    fake_ollama.misbehave(faults.Stall(0.2), path="/api/tags")
    together = threading.Barrier(20)

    def check() -> bool:
        together.wait()
        return bool(client.health_check())

    with ThreadPoolExecutor(20) as pool:
        calls = [pool.submit(check) for _ in range(20)]
        assert all(call.result() for call in calls)
    assert paths(fake_ollama).count("/api/tags") == 1


def test_old_servers_without_version_and_running_models_are_healthy(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    for path in ("/api/version", "/api/ps"):
        fake_ollama.misbehave(faults.page_not_found(), path=path)
    report = make_client().health_check()
    assert report.status == "healthy"
    assert (report.version, report.loaded) == ("", frozenset())


@pytest.mark.parametrize("fault", [faults.Drop(), faults.Reset()])
def test_a_connection_that_was_dropped_is_replaced_unnoticed(
    fake_ollama: FakeOllama, make_client: MakeClient, fault: Fault
) -> None:
    fake_ollama.misbehave(fault, path=None, when=when.reused())
    client = make_client()
    client.chat(QUESTION)
    for _ in range(10):
        report = client.health_check(force=True)
        assert report.error is None
        assert report


def test_a_server_that_closes_each_connection_after_its_reply_is_healthy(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    fake_ollama.misbehave(faults.CloseAfterReply(), path=None)
    client = make_client()
    assert all(client.health_check(force=True) for _ in range(30))


@pytest.mark.parametrize("model", ["llama3.2:latest", "LLAMA3.2", "library/llama3.2"])
def test_a_model_may_be_spelled_in_several_ways(make_client: MakeClient, model: str) -> None:
    assert make_client(model=model).health_check()
