"""The drills, over HTTP; and that each notices when what it tests does not work."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from ollama_bridge import ConnectionFailed, OllamaClient, conf, ollama_client
from ollama_bridge.circuits import CircuitBreaker
from ollama_bridge.reliability import drills, proofs, recovery, rig
from ollama_bridge.testing import FakeOllama, faults

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def nothing(_done: float) -> None:
    """Watch without showing."""


def good(sentences: tuple[Any, ...]) -> bool:
    return all(each.good for each in sentences)


def spoil(
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    change: Callable[[FakeOllama], object] = lambda _: None,
    **overrides: object,
) -> None:
    """Let a drill meet another server, or a client that lacks what is to be proven."""

    @contextmanager
    def spoiled(**given: object) -> Iterator[tuple[FakeOllama, OllamaClient]]:
        with rig.rig(**{**given, **overrides}) as (server, client):
            change(server)
            yield server, client

    monkeypatch.setattr(module, "rig", spoiled)


@pytest.fixture(autouse=True)
def _site(configure: Callable[..., None]) -> None:
    """The settings of a site, whose server is not that of the drills."""


def test_pooling_is_proven_by_one_connection() -> None:
    found = drills.pooling(nothing)
    assert (found.calls, found.requests, found.connections) == (10, 10, 1)
    assert good(proofs.pooling(found))


def test_connections_that_are_not_kept_prove_no_pooling(monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, drills, lambda server: server.misbehave(faults.CloseAfterReply()))
    found = drills.pooling(nothing)
    assert (found.answered, found.connections) == (10, 10)
    assert not good(proofs.pooling(found))


def test_retries_are_proven_by_a_server_that_fails_each_first_attempt() -> None:
    found = drills.retries(conf.current(), nothing)
    assert (found.answered, found.requests, found.retries, found.status) == (10, 20, 10, 503)
    assert good(proofs.retries(found))


def test_a_client_that_repeats_nothing_proves_no_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, drills, max_retries=0)
    found = drills.retries(conf.current(), nothing)
    assert (found.answered, found.requests) == (0, 5)  # and then the circuit is open
    assert not good(proofs.retries(found))


@pytest.mark.parametrize(
    ("statuses", "tried"), [([429], 429), ([500, 504], 504), ([], None), ([408], None)]
)
def test_retries_are_tried_with_a_status_that_the_settings_repeat(
    configure: Callable[..., None], statuses: list[int], tried: int | None
) -> None:
    configure(RETRY_STATUSES=statuses)
    found = drills.retries(conf.current(), nothing)
    assert found.status == tried
    assert good(proofs.retries(found)) == (tried is not None)


def test_without_retries_in_the_settings_there_is_no_drill(configure: Callable[..., None]) -> None:
    configure(MAX_RETRIES=0)
    assert not drills.retries(conf.current(), nothing).calls


class TestRecovery:
    def test_goes_through_all_steps_and_leaves_the_circuit_of_the_site_alone(
        self, fake_ollama: FakeOllama, caplog: pytest.LogCaptureFixture
    ) -> None:
        fake_ollama.refuse()
        for _ in range(2):
            with pytest.raises(ConnectionFailed):
                ollama_client.chat("What is water?")
        before = circuit_of_the_site()
        assert before["default"][1] == 2  # something that the drill could disturb
        steps: list[float] = []
        caplog.set_level(logging.DEBUG)
        caplog.clear()
        found = recovery.recovery(conf.current(), steps.append)
        assert good(proofs.recovery(found)), proofs.recovery(found)
        assert steps == [1, 2, 3, 4, 5]
        assert 0 < found.waited <= recovery.OPEN_SECONDS
        assert circuit_of_the_site() == before
        # Its opening would be a false alarm.
        assert not [each for each in caplog.records if each.name.startswith("ollama_bridge")]

    def test_needs_as_many_failures_as_the_settings_say(
        self, configure: Callable[..., None]
    ) -> None:
        configure(FAILURE_THRESHOLD=2, MAX_RETRIES=0, RECOVERY_TIMEOUT=1, MAX_CONCURRENCY=1)
        found = recovery.recovery(conf.current(), nothing)
        assert (found.threshold, found.failed) == (2, 2)
        assert good(proofs.recovery(found)), proofs.recovery(found)

    def test_is_not_held_without_a_circuit_breaker(self, configure: Callable[..., None]) -> None:
        configure(CIRCUIT_BREAKER=False)
        found = recovery.recovery(conf.current(), nothing)
        assert (found.enabled, found.healthy) == (False, 0)
        assert not good(proofs.recovery(found))

    def test_notices_a_circuit_that_does_not_open(self, monkeypatch: pytest.MonkeyPatch) -> None:
        spoil(monkeypatch, recovery, circuit_breaker=False)
        found = recovery.recovery(conf.current(), nothing)
        assert (found.healthy, found.failed, found.opened) == (3, 5, False)

    def test_notices_a_circuit_that_opens_late(self, monkeypatch: pytest.MonkeyPatch) -> None:
        spoil(monkeypatch, recovery, failure_threshold=6)
        assert not recovery.recovery(conf.current(), nothing).opened

    def test_notices_a_circuit_that_lets_calls_through(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        spoil(monkeypatch, recovery, open_seconds=0.000001)
        found = recovery.recovery(conf.current(), nothing)
        assert found.refused < 3
        assert found.leaked > 0
        assert not good(proofs.recovery(found))

    def test_notices_a_server_that_does_not_answer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        spoil(monkeypatch, recovery, lambda server: server.misbehave(faults.bad_option()))
        found = recovery.recovery(conf.current(), nothing)
        assert (found.healthy, found.failed) == (0, 0)

    def test_notices_a_server_that_does_not_die(self, monkeypatch: pytest.MonkeyPatch) -> None:
        spoil(monkeypatch, recovery, lambda server: setattr(server, "refuse", lambda: None))
        found = recovery.recovery(conf.current(), nothing)
        assert (found.healthy, found.failed, found.opened) == (3, 0, False)

    @pytest.mark.parametrize(
        ("meddle", "probes", "sentence"),
        [
            (CircuitBreaker.force_open, 0, "no call was let through"),
            (CircuitBreaker.disable, 2, "2 probes, and others were let through too"),
        ],
    )
    def test_notices_a_circuit_that_does_not_let_exactly_one_call_through(
        self,
        monkeypatch: pytest.MonkeyPatch,
        meddle: Callable[[CircuitBreaker], None],
        probes: int,
        sentence: str,
    ) -> None:
        """Somebody meddles while the drill waits for the end of the open time."""
        drilled: list[OllamaClient] = []

        @contextmanager
        def watched(**given: object) -> Iterator[tuple[FakeOllama, OllamaClient]]:
            with rig.rig(**given) as (server, client):
                drilled.append(client)
                yield server, client

        monkeypatch.setattr(recovery, "rig", watched)
        monkeypatch.setattr(recovery, "sleep", lambda _: meddle(drilled[0].circuit_breaker))
        monkeypatch.setattr(recovery, "PATIENCE", 0.5)
        found = recovery.recovery(conf.current(), nothing)
        assert (found.probes, found.held_back) == (probes, False)
        assert sentence in proofs.recovery(found)[-1].text


def circuit_of_the_site() -> dict[str, tuple[object, ...]]:
    return {
        name: (each.generation, each.failures, each.state, each.mode, each.last_error)
        for name, each in ollama_client.circuit_breakers.items()
    }
