"""The drills, over HTTP; and that each notices when what it tests does not work."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from ollama_bridge import ConnectionFailed, OllamaClient, conf, ollama_client
from ollama_bridge.circuits import CircuitBreaker
from ollama_bridge.reliability import drills, proofs, recovery, rig
from ollama_bridge.reliability.askers import Asker
from ollama_bridge.testing import FakeOllama, faults

from .conftest import in_all_forms

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
    **overrides: Any,
) -> None:
    """Let a drill meet another server, or a client that lacks what is to be proven."""

    @contextmanager
    def spoiled(*args: Any, **given: Any) -> Iterator[tuple[FakeOllama, OllamaClient]]:
        with rig.rig(*args, **{**given, **overrides}) as (server, client):
            change(server)
            yield server, client

    monkeypatch.setattr(module, "rig", spoiled)


@pytest.fixture(autouse=True)
def _site(configure: Callable[..., None]) -> None:
    """The settings of a site, whose server is not that of the drills."""


@in_all_forms
def test_pooling_is_proven_by_one_connection(asker: Asker) -> None:
    found = drills.pooling(asker, nothing)
    assert (found.calls, found.requests, found.connections) == (10, 10, 1)
    assert good(proofs.pooling(found))


@in_all_forms
def test_connections_that_are_not_kept_prove_no_pooling(
    asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, drills, lambda server: server.misbehave(faults.CloseAfterReply()))
    found = drills.pooling(asker, nothing)
    assert (found.answered, found.connections) == (10, 10)
    assert not good(proofs.pooling(found))


@in_all_forms
def test_retries_are_proven_by_a_server_that_fails_each_first_attempt(asker: Asker) -> None:
    found = drills.retries(asker, conf.current(), nothing)
    assert (found.answered, found.requests, found.retries, found.status) == (10, 20, 10, 503)
    assert good(proofs.retries(found))


@in_all_forms
def test_a_client_that_repeats_nothing_proves_no_retries(
    asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, drills, max_retries=0)
    found = drills.retries(asker, conf.current(), nothing)
    assert (found.answered, found.requests) == (0, 5)  # and then the circuit is open
    assert not good(proofs.retries(found))


@pytest.mark.parametrize(
    ("statuses", "tried"), [([429], 429), ([500, 504], 504), ([], None), ([408], None)]
)
def test_retries_are_tried_with_a_status_that_the_settings_repeat(
    asker: Asker, configure: Callable[..., None], statuses: list[int], tried: int | None
) -> None:
    configure(RETRY_STATUSES=statuses)
    found = drills.retries(asker, conf.current(), nothing)
    assert found.status == tried
    assert good(proofs.retries(found)) == (tried is not None)


def test_without_retries_in_the_settings_there_is_no_drill(
    asker: Asker, configure: Callable[..., None]
) -> None:
    configure(MAX_RETRIES=0)
    assert not drills.retries(asker, conf.current(), nothing).calls


in_pieces = pytest.mark.parametrize("asker", ["stream", "astream"], indirect=True)


@in_pieces
def test_errors_in_mid_stream_are_proven_by_streams_that_break_off(asker: Asker) -> None:
    seen: list[float] = []
    found = drills.cuts(asker, seen.append)
    assert (found.calls, found.told, found.requests) == (9, 9, 9)
    assert seen == [*range(1, 10)]
    assert good(proofs.cuts(found))


@in_pieces
def test_the_settings_of_the_site_do_not_spoil_the_streams_that_break_off(
    asker: Asker, configure: Callable[..., None]
) -> None:
    configure(FAILURE_THRESHOLD=1, MAX_CHUNKS=1)
    assert good(proofs.cuts(drills.cuts(asker, nothing)))


@in_pieces
def test_streams_that_come_to_their_end_prove_nothing_about_errors(
    asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, drills, lambda server: setattr(server, "misbehave", lambda _: None))
    found = drills.cuts(asker, nothing)
    assert (found.told, found.requests) == (0, 9)
    assert not good(proofs.cuts(found))


@in_pieces
def test_an_answer_that_breaks_off_before_its_first_piece_is_none_in_mid_stream(
    asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fails as any call does, and is repeated."""
    monkeypatch.setattr(drills, "_BREAKS", (faults.CutStream(after=0),))
    found = drills.cuts(asker, nothing)
    assert found.told == 0
    assert found.requests > 9


class TestRecovery:
    @in_all_forms
    def test_goes_through_all_steps_and_leaves_the_circuit_of_the_site_alone(
        self, asker: Asker, fake_ollama: FakeOllama, caplog: pytest.LogCaptureFixture
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
        found = recovery.recovery(asker, conf.current(), steps.append)
        assert good(proofs.recovery(found)), proofs.recovery(found)
        assert steps == [1, 2, 3, 4, 5]
        assert 0 < found.waited <= recovery.OPEN_SECONDS
        assert circuit_of_the_site() == before
        # Its opening would be a false alarm.
        assert not [each for each in caplog.records if each.name.startswith("ollama_bridge")]

    def test_needs_as_many_failures_as_the_settings_say(
        self, asker: Asker, configure: Callable[..., None]
    ) -> None:
        configure(FAILURE_THRESHOLD=2, MAX_RETRIES=0, RECOVERY_TIMEOUT=1, MAX_CONCURRENCY=1)
        found = recovery.recovery(asker, conf.current(), nothing)
        assert (found.threshold, found.failed) == (2, 2)
        assert good(proofs.recovery(found)), proofs.recovery(found)

    def test_is_not_held_without_a_circuit_breaker(
        self, asker: Asker, configure: Callable[..., None]
    ) -> None:
        configure(CIRCUIT_BREAKER=False)
        found = recovery.recovery(asker, conf.current(), nothing)
        assert (found.enabled, found.healthy) == (False, 0)
        assert not good(proofs.recovery(found))

    def test_notices_a_circuit_that_does_not_open(
        self, asker: Asker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        spoil(monkeypatch, recovery, circuit_breaker=False)
        found = recovery.recovery(asker, conf.current(), nothing)
        assert (found.healthy, found.failed, found.opened) == (3, 5, False)

    def test_notices_a_circuit_that_opens_late(
        self, asker: Asker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        spoil(monkeypatch, recovery, failure_threshold=6)
        assert not recovery.recovery(asker, conf.current(), nothing).opened

    @in_all_forms
    def test_notices_a_circuit_that_lets_calls_through(
        self, asker: Asker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        spoil(monkeypatch, recovery, open_seconds=0.000001)
        found = recovery.recovery(asker, conf.current(), nothing)
        assert found.refused < 3
        assert found.leaked > 0
        assert not good(proofs.recovery(found))

    def test_notices_a_server_that_does_not_answer(
        self, asker: Asker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        spoil(monkeypatch, recovery, lambda server: server.misbehave(faults.bad_option()))
        found = recovery.recovery(asker, conf.current(), nothing)
        assert (found.healthy, found.failed) == (0, 0)

    @in_all_forms
    def test_notices_a_server_that_does_not_die(
        self, asker: Asker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        spoil(monkeypatch, recovery, lambda server: setattr(server, "refuse", lambda: None))
        found = recovery.recovery(asker, conf.current(), nothing)
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
        asker: Asker,
        monkeypatch: pytest.MonkeyPatch,
        meddle: Callable[[CircuitBreaker], None],
        probes: int,
        sentence: str,
    ) -> None:
        """Somebody meddles while the drill waits for the end of the open time."""
        drilled: list[OllamaClient] = []

        @contextmanager
        def watched(**given: Any) -> Iterator[tuple[FakeOllama, OllamaClient]]:
            with rig.rig(**given) as (server, client):
                drilled.append(client)
                yield server, client

        monkeypatch.setattr(recovery, "rig", watched)
        monkeypatch.setattr(recovery, "sleep", lambda _: meddle(drilled[0].circuit_breaker))
        monkeypatch.setattr(recovery, "PATIENCE", 0.5)
        found = recovery.recovery(asker, conf.current(), nothing)
        assert (found.probes, found.held_back) == (probes, False)
        assert sentence in proofs.recovery(found)[-1].text


def circuit_of_the_site() -> dict[str, tuple[object, ...]]:
    return {
        name: (each.generation, each.failures, each.state, each.mode, each.last_error)
        for name, each in ollama_client.circuit_breakers.items()
    }
