"""The drill for failover, over HTTP; and that it notices when what it tests does not work."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from django.core.cache import caches

from ollama_bridge import ConnectionFailed, ollama_client
from ollama_bridge.reliability import failover as drill
from ollama_bridge.reliability import proofs, rig
from ollama_bridge.reliability.askers import ASKERS, Asker
from ollama_bridge.reliability.conduct import Conduct
from ollama_bridge.reliability.evidence import Failover
from ollama_bridge.reliability.plan import Act, Form, Plan
from ollama_bridge.reliability.tally import Figures, Tally

from .conftest import FORMS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ollama_bridge.testing import FakeOllama

pytestmark = pytest.mark.soak  # a drill takes the time of its chaos

CALLERS = 6
SECONDS: dict[Act, float] = {"flaky": 0.8, "slow": 1.4, "dying": 2.0, "rate-limited": 1.2}


def by(form: Form) -> pytest.MarkDecorator:
    """Ask in this form: all four take turns with the kinds of chaos."""
    return pytest.mark.parametrize("asker", [form], indirect=True)


@pytest.fixture(autouse=True)
def _site(configure: Callable[..., None]) -> None:
    """The settings of a site, whose server is not one of the drill's."""
    # As it is when the drill begins: else loading it would take most of the drill.
    import_module("ollama_bridge.transports.aiopool")


def nothing(_act: Act) -> None:
    """Watch without showing."""


class Short(NamedTuple):
    """A plan, perhaps for less time than a person may ask for."""

    acts: tuple[Act, ...]
    chaos_seconds: float


def hold(
    asker: Asker, *acts: Act, watch: Callable[[Act], object] = nothing
) -> tuple[Failover, Figures]:
    plan = Short(acts, sum(SECONDS[act] for act in acts))
    found, tally = empty(), Tally()
    drill.failover(asker, plan, found, tally, watch)  # type: ignore[arg-type]  # enough of one
    return found, tally.figures()


def empty() -> Failover:
    return Failover(profile="mixed", seed=7, callers=CALLERS, max_retries=3, threshold=5)


def bad(found: Failover, figures: Figures) -> list[str]:
    return [each.text for each in proofs.failover(found, figures, 100.0) if not each.good]


def spoil(
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[dict[str, FakeOllama]], object] = lambda _: None,
    **overrides: Any,
) -> None:
    """Let the drill meet other servers, or a client that lacks what is to be proven."""

    @contextmanager
    def spoiled(*args: Any, **given: Any) -> Iterator[Any]:
        with rig.rig_of_several(*args, **{**given, **overrides}) as (servers, client):
            change(servers)
            yield servers, client

    monkeypatch.setattr(drill, "rig_of_several", spoiled)


class TestItProves:
    @by("chat")
    def test_that_flaky_endpoints_are_survived(self, asker: Asker) -> None:
        found, figures = hold(asker, "flaky")
        assert bad(found, figures) == []
        assert figures.hops > 0
        assert set(figures.answered_by) == {"a", "b", "c"}
        assert found.requests["a"] > found.requests["b"] > found.requests["c"]

    @by("stream")
    def test_that_slow_endpoints_are_left(self, asker: Asker) -> None:
        found, figures = hold(asker, "slow")
        assert bad(found, figures) == []
        assert set(figures.answered_by) == {"c"}
        assert found.openings["a"] > 0 < found.openings["b"]
        assert found.requests["a"] < figures.sent / 2
        assert figures.passed_by > figures.hops

    @by("achat")
    def test_that_a_dying_endpoint_is_left_and_found_again(self, asker: Asker) -> None:
        found, figures = hold(asker, "dying")
        assert bad(found, figures) == []
        assert figures.answered_by["a"] > 0 < figures.answered_by["b"]
        assert found.deaths >= found.returns > 0

    @by("astream")
    def test_that_limits_of_accounts_are_heeded(self, asker: Asker) -> None:
        found, figures = hold(asker, "rate-limited")
        assert bad(found, figures) == []
        assert set(figures.answered_by) == {"b", "c"}
        assert found.requests["a"] == found.held <= CALLERS + found.probes - 1
        assert found.cooldowns == {"a": found.probes}
        assert not found.openings

    def test_several_of_these_in_one_go(self, asker: Asker) -> None:
        seen: list[Act] = []
        found, figures = hold(asker, "flaky", "rate-limited", watch=seen.append)
        assert bad(found, figures) == []
        assert found.acts == [*dict.fromkeys(seen)] == ["flaky", "rate-limited"]
        assert figures.peak == CALLERS


class TestItNotices:
    def test_endpoints_that_are_all_dead(
        self, asker: Asker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def kill(servers: dict[str, FakeOllama]) -> None:
            for each in servers.values():
                each.refuse()

        spoil(monkeypatch, kill)
        found, figures = hold(asker, "flaky")
        assert figures.answered == 0
        assert figures.failures[0].code in {"connection_failed", "circuit_open"}
        assert bad(found, figures)[0] == f"0 of {figures.sent} calls answered, 100 % wanted"

    def test_a_client_that_does_not_fail_over(
        self, asker: Asker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        spoil(monkeypatch, routes={"default": {"TARGETS": ["a"]}})
        found, figures = hold(asker, "slow")
        assert (figures.answered, figures.hops) == (0, 0)
        assert "0 hops to another endpoint after a failed request" in bad(found, figures)

    def test_a_client_that_forgets_the_limit_of_an_account(
        self, asker: Asker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        spoil(monkeypatch, cooldown_seconds=0.01)
        found, figures = hold(asker, "rate-limited")
        assert figures.answered == figures.sent
        (sentence,) = bad(found, figures)
        assert sentence.startswith("rate-limited: an account over its limit got ")

    def test_a_client_that_never_goes_back(
        self, asker: Asker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        spoil(monkeypatch, open_seconds=60.0, recovery_timeout=60.0, cooldown_seconds=60.0)
        assert "came back to serve 0 times" in bad(*hold(asker, "dying"))[0]
        assert "and 0 after a cooldown each" in bad(*hold(asker, "rate-limited"))[0]

    def test_endpoints_that_do_not_misbehave(
        self, asker: Asker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Conduct, "reply", lambda _, exchange: exchange.send(exchange.honest()))
        found, figures = hold(asker, "flaky")
        assert figures.answered == figures.sent
        assert len(bad(found, figures)) == 2  # nothing was left behind, and nothing failed

    def test_settings_that_give_up_soon(self, asker: Asker, configure: Callable[..., None]) -> None:
        configure(FAILURE_THRESHOLD=1)
        _, figures = hold(asker, "flaky")
        assert figures.answered < figures.sent
        assert {each.code for each in figures.failures} >= {"circuit_open"}


@pytest.mark.parametrize("form", FORMS)
def test_it_leaves_nothing_behind_and_touches_nothing_of_the_site(
    form: Form, fake_ollama: FakeOllama, caplog: pytest.LogCaptureFixture
) -> None:
    fake_ollama.refuse()
    with pytest.raises(ConnectionFailed):
        ollama_client.chat("What is water?")
    site, threads, sockets = state_of_the_site(fake_ollama), alive(), open_sockets()
    caplog.set_level(logging.DEBUG)
    caplog.clear()
    with ASKERS[form]() as asker:
        hold(asker, "rate-limited", "dying")
    wait_until(lambda: alive() <= threads and open_sockets() <= sockets)
    assert not [each for each in caplog.records if each.name.startswith("ollama_bridge")]
    assert state_of_the_site(fake_ollama) == site


@pytest.mark.parametrize(
    ("form", "act"),
    [("chat", "slow"), ("stream", "flaky"), ("achat", "rate-limited"), ("astream", "dying")],
)
def test_an_interrupt_ends_it_soon_with_what_was_found_and_leaves_nothing(
    form: Form, act: Act, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    threads, found, tally = alive(), empty(), Tally()
    plan = Plan(chaos=act, duration=600.0)

    def interrupt(_: Act) -> None:
        if tally.progress()[0] >= CALLERS:
            raise KeyboardInterrupt

    with ASKERS[form]() as asker, pytest.raises(KeyboardInterrupt):
        drill.failover(asker, plan, found, tally, interrupt)
    figures = tally.figures()
    assert (figures.sent - figures.answered, figures.failures) == (figures.unfinished, ())
    assert 0 < figures.unfinished <= CALLERS
    assert found.acts == [act]
    assert found.requests.total() >= figures.answered
    wait_until(lambda: alive() <= threads)
    assert not [each for each in caplog.records if each.name.startswith("ollama_bridge")]


def state_of_the_site(server: FakeOllama) -> object:
    circuits = {
        name: (each.generation, each.failures, each.state, each.mode)
        for name, each in ollama_client.circuit_breakers.items()
    }
    cached = set(caches["default"]._cache)  # type: ignore[attr-defined]  # in memory, in tests
    return circuits, len(server.chats), ollama_client.get_stats()["total_requests"], cached


def alive() -> set[threading.Thread]:
    return set(threading.enumerate())


def open_sockets() -> int:
    """Return how many there are; where nobody can tell, always the same."""
    here = Path("/proc/self/fd")
    links = []
    for each in here.iterdir() if here.is_dir() else ():
        with suppress(FileNotFoundError):  # that of the listing itself
            links.append(str(each.readlink()))
    return sum(link.startswith("socket:") for link in links)


def wait_until(is_true: Callable[[], bool]) -> None:
    until = time.monotonic() + 10.0
    while not is_true():
        assert time.monotonic() < until, (alive(), open_sockets())
        time.sleep(0.01)
