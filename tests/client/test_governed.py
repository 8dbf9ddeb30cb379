"""What moves endpoints besides their calls, and what it sees of them; in virtual time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ollama_bridge.circuits import Governed, RouteFacts, endpoints_of, routes_of
from ollama_bridge.core.actions import Send
from ollama_bridge.core.breaker import State
from ollama_bridge.core.events import CooldownBegan, CooldownEnded
from ollama_bridge.core.exchanges import whole
from ollama_bridge.core.quota import Quota
from ollama_bridge.core.routing import plan_of
from ollama_bridge.core.strategies import weighted
from ollama_bridge.core.types import QuotaPolicy
from ollama_bridge.errors import QuotaExhausted, RateLimited
from tests.core.processes import two
from tests.core.virtual import World, endpoint, everywhere

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ollama_bridge.core.events import Observer
    from ollama_bridge.core.strategies import Candidate, Draw

USED_UP, PAUSE = "quota_exhausted", "rate_limited"


def governed(world: World) -> Governed:
    return Governed(world.router, [], lambda _: None)


class TestACooldown:
    def test_that_is_begun_holds_calls_back_and_leaves_the_circuits_alone(self) -> None:
        world = World()
        governed(world).cool_down("default", 60, USED_UP)
        with pytest.raises(QuotaExhausted) as caught:
            world.chat()
        assert caught.value.retry_after == 60
        assert world.events[0] == CooldownBegan("default", USED_UP, 60, is_told=True)
        assert world.router.facts("default").state is State.CLOSED

    def test_is_never_shortened(self) -> None:
        world = World()
        governed(world).cool_down("default", 60, PAUSE)
        governed(world).cool_down("default", 30, PAUSE)
        assert governed(world).cooldown("default").seconds == 60

    def test_that_is_ended_lets_calls_through_and_keeps_modes(self) -> None:
        world = World()
        found = governed(world)
        found.circuits()["default"].disable()
        found.cool_down("default", 60, USED_UP)
        found.end_cooldown("default")
        assert world.chat()
        assert world.events.count(CooldownEnded("default", is_stored=True)) == 1
        assert found.circuits()["default"].mode == "disabled"

    def test_that_is_none_cannot_end(self) -> None:
        world = World()
        governed(world).end_cooldown("default")
        assert world.events == []
        assert governed(world).cooldown("default").generation == 0

    def test_has_its_reason_until_a_call_has_tried(self) -> None:
        world = World()
        found = governed(world)
        assert found.cooldown("default").code == ""
        found.cool_down("default", 0, USED_UP)
        facts = found.cooldown("default")
        assert (facts.seconds, facts.code, facts.generation) == (0, USED_UP, 1)
        assert world.chat()
        assert found.cooldown("default").code == ""

    def test_of_no_endpoint_is_an_error(self) -> None:
        with pytest.raises(KeyError):
            governed(World()).cool_down("elsewhere", 60, PAUSE)

    def test_that_two_processes_begin_at_once_has_one_probe(self) -> None:
        """The one that is told late must not undo the probe of the other."""
        one, other = two()
        other.home.late = True
        for world in (one, other):
            governed(world).cool_down("default", 0, USED_UP)
        steps = one.flow(whole)
        action = steps.send(None)
        while not isinstance(action, Send):
            action = steps.send(one.perform(action))
        other.home.late = False
        other.home.run()
        with pytest.raises(RateLimited):
            other.chat()
        assert other.sent == []


class TestEndpoints:
    def test_are_told_with_all_that_is_known_of_them(self) -> None:
        world = World([endpoint("cloud", is_cloud=True, weight=9.0), endpoint("local")])
        quota = Quota("balance", 0.82, 5000.0, "session")
        world.router.learn_quota("cloud", quota)
        governed(world).cool_down("cloud", 60, PAUSE)
        found = endpoints_of(world.router)
        assert list(found) == ["cloud", "local"]
        cloud, local = found.values()
        assert (cloud.cooldown, cloud.cooldown_code, cloud.quota) == (60, PAUSE, quota)
        assert (cloud.url, cloud.model, cloud.weight) == ("http://cloud.test:11434", "m", 9.0)
        assert (cloud.is_cloud, local.is_cloud) == (True, False)
        assert (local.cooldown, local.cooldown_code, local.quota) == (0, "", None)

    def test_have_the_model_s_name_there(self) -> None:
        world = World([endpoint(model="gpt-oss:120b-cloud", is_cloud=True)])
        assert endpoints_of(world.router)["default"].model == "gpt-oss:120b"

    def test_are_counted_where_they_have_a_limit(self) -> None:
        limited = endpoint("cloud", quota=QuotaPolicy(limit=100))
        assert governed(World([limited, endpoint("local")])).limits == {"cloud": 100}


class Own:
    """A site's own strategy, as an object."""

    def __call__(self, candidates: Sequence[Candidate], draw: Draw) -> Sequence[Candidate]:  # noqa: ARG002  # as it is called
        return candidates


class TestRoutes:
    def test_are_told_with_strategy_targets_and_weights(self) -> None:
        one, other = endpoint("one"), endpoint("other", weight=3.0)
        routes = [
            everywhere(one, other, name="default"),
            everywhere(one, other, name="ab", strategy=weighted, weights=(9.0, 1.0)),
        ]
        world = World(plan=plan_of([one, other], routes, "default"))
        targets = ("one/m", "other/m")
        assert routes_of(world.router) == {
            "default": RouteFacts(
                name="default",
                strategy="failover",
                targets=targets,
                weights=(1.0, 3.0),
                is_default=True,
            ),
            "ab": RouteFacts(
                name="ab",
                strategy="weighted",
                targets=targets,
                weights=(9.0, 1.0),
                is_default=False,
            ),
        }

    @pytest.mark.parametrize(
        ("strategy", "name"), [(Own(), "Own"), (Own().__call__, "Own.__call__")]
    )
    def test_of_a_site_s_own_strategy_name_it(self, strategy: Own, name: str) -> None:
        both = endpoint("one"), endpoint("other")
        world = World(plan=plan_of(both, [everywhere(*both, name="ours", strategy=strategy)]))
        assert routes_of(world.router)["ours"].strategy == f"{__name__}.{name}"

    def test_are_not_those_of_an_endpoint_to_itself(self) -> None:
        one, other = endpoint("one"), endpoint("default")
        route = everywhere(one, name="default")
        assert routes_of(World(plan=plan_of([one])).router) == {}
        found = routes_of(World(plan=plan_of([one, other], [route])).router)
        assert found["default"].targets == ("one/m",)


class TestAListener:
    def test_is_told_until_it_is_ignored(self) -> None:
        listeners: list[Observer] = []
        found = Governed(World().router, listeners, lambda _: None)
        found.listen(print)
        assert listeners == [print]
        for _ in range(2):
            found.ignore(print)
        assert listeners == []
