from __future__ import annotations

from typing import Any

import pytest

from ollama_bridge import errors
from ollama_bridge.core.actions import FaultKind
from ollama_bridge.core.breaker import Mode, State
from ollama_bridge.core.health import HealthReport, check, is_there, judged

from .virtual import World, endpoint, reply

TAGS = reply({"models": [{"name": "m:latest"}]})
VERSION = reply({"version": "0.24.0"})
PS = reply({"models": [{"name": "m:latest"}]})


def report(world: World) -> HealthReport:
    return judged(world.run(check(world.router)), world.router)


def healthy() -> World:
    world = World()
    world.script = [TAGS, VERSION, PS]
    return world


def test_a_server_that_has_the_model_is_healthy() -> None:
    found = report(healthy())
    assert found
    assert (found.status, found.reachable, found.version) == ("healthy", True, "0.24.0")
    assert found.models == {"m": True}
    assert found.loaded == {"m:latest"}
    assert found.latency == pytest.approx(0.3)
    assert found.circuit is State.CLOSED


def test_a_connection_that_was_dropped_while_idle_is_replaced() -> None:
    world = World()
    world.script = [FaultKind.DROPPED, TAGS, VERSION, PS]
    assert report(world).status == "healthy"


def test_old_servers_and_the_cloud_may_lack_version_and_running_models() -> None:
    world = World()
    missing = reply(b"404 page not found", status=404)
    world.script = [TAGS, missing, missing]
    assert report(world).status == "healthy"
    world.script = [TAGS, reply({"version": 5}), PS]
    assert report(world).version == ""


def test_a_missing_model_is_unhealthy_though_the_server_answers() -> None:
    world = World()
    world.script = [reply({"models": []}), VERSION, PS]
    found = report(world)
    assert not found
    assert found.reachable
    assert isinstance(found.error, errors.ModelNotFound)
    assert str(found.error) == "Model m not found. Run: ollama pull m"


def test_a_model_that_the_cloud_lacks_is_not_to_be_pulled() -> None:
    world = World([endpoint("cloud", is_cloud=True, base_url="https://ollama.com")])
    world.script = [reply({"models": []}), VERSION, PS]
    found = report(world)
    assert (found.models, found.is_cloud) == ({"m": False}, True)
    assert isinstance(found.error, errors.ModelNotFound)
    assert str(found.error) == (
        "Model m not found at https://ollama.com. See https://ollama.com/search?c=cloud"
    )


def test_a_cloud_model_needs_no_pull() -> None:
    world = World([endpoint(model="gpt-oss:120b-cloud")])
    world.script = [reply({"models": []}), VERSION, PS]
    assert report(world)


@pytest.mark.parametrize(
    ("step", "reachable", "cls"),
    [
        (FaultKind.REFUSED, False, errors.ConnectionFailed),
        (FaultKind.SILENT, False, errors.Timeout),
        (reply(b"<html>"), True, errors.InvalidReply),
        (reply(b"", status=500), True, errors.ServerFailed),
    ],
    ids=repr,
)
def test_what_stands_in_the_way_is_told(step: Any, reachable: bool, cls: type) -> None:
    world = World()
    world.script = [step]
    found = report(world)
    assert (found.status, found.reachable, type(found.error)) == ("unhealthy", reachable, cls)
    assert found.models == {"m": None}, "unknown is not missing"


def test_a_probe_takes_five_seconds_at_most_and_moves_no_circuit() -> None:
    world = World()
    world.default = FaultKind.SILENT
    for _ in range(10):
        assert report(world).latency == 5.0
    assert world.router.worse(world.router.default).failures == 0


def opened(model: str = "m") -> World:
    world = healthy()
    world.script = []
    world.default = reply({"error": "boom"}, status=500)
    for _ in range(5):
        with pytest.raises(errors.ServerFailed):
            world.chat(model=model)
    world.script = [TAGS, VERSION, PS]
    return world


def test_an_open_circuit_is_unhealthy_until_it_may_be_probed() -> None:
    world = opened()
    found = report(world)
    assert (found.status, found.circuit) == ("unhealthy", State.OPEN)
    assert found.retry_after == pytest.approx(4.7)
    assert isinstance(found.error, errors.CircuitOpen)
    world.time.now += 5
    world.script = [TAGS, VERSION, PS]
    later = report(world)
    assert (later.status, later.circuit) == ("degraded", State.OPEN)


def test_a_circuit_that_an_operator_opened_is_unhealthy_without_an_end() -> None:
    world = healthy()
    world.router.set_mode("default", Mode.FORCED_OPEN)
    found = report(world)
    assert (found.status, found.retry_after) == ("unhealthy", None)


def test_a_server_that_asked_for_a_pause_is_unhealthy_until_it_is_over() -> None:
    world = healthy()
    world.script = [reply({"error": "slow"}, status=429, headers={"Retry-After": "90"})]
    with pytest.raises(errors.RateLimited):
        world.chat()
    world.script = [TAGS, VERSION, PS] * 2
    found = report(world)
    assert isinstance(found.error, errors.RateLimited)
    assert found.retry_after == pytest.approx(90, abs=1)
    world.time.now += 90
    assert report(world).status == "healthy"


@pytest.mark.parametrize("odd", [FaultKind.SILENT, reply(b"", status=500), reply(b"<html>")])
def test_nothing_that_only_adds_to_the_report_can_spoil_it(odd: Any) -> None:
    world = World()
    world.script = [TAGS, odd, odd]
    found = report(world)
    assert (found.status, found.reachable) == ("healthy", True)
    assert found.latency < 3


def test_another_models_open_circuit_only_degrades() -> None:
    found = report(opened(model="other"))
    assert found
    assert (found.status, found.circuit) == ("degraded", State.CLOSED)


@pytest.mark.parametrize(
    ("step", "there"),
    [
        (VERSION, True),
        (reply({"version": 5}), False),
        (reply(b"Ollama is running"), False),
        (reply({"version": "x"}, status=500), False),
        (FaultKind.REFUSED, False),
    ],
    ids=repr,
)
def test_a_server_is_there_if_it_tells_its_version(step: Any, there: bool) -> None:
    world = World()
    world.script = [step]
    assert world.run(is_there(endpoint(), world.router.clock)) is there


def test_a_key_that_was_refused_degrades_though_anybody_may_list_the_models() -> None:
    world = World([endpoint("cloud"), endpoint("local")])
    world.script = [reply({"error": "unauthorized"}, status=401)]
    world.chat()
    world.script = [TAGS, VERSION, PS] * 2
    found = report(world)
    assert (found.status, found.endpoints["cloud"].status) == ("degraded", "unhealthy")
    assert isinstance(found.endpoints["cloud"].error, errors.AuthenticationFailed)
    world.chat()
    world.script = [TAGS, VERSION, PS] * 2
    assert report(world).status == "healthy"
