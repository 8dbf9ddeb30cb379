"""What servers are asked about themselves, and how often, in virtual time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from ollama_bridge import errors
from ollama_bridge.core import exchanges
from ollama_bridge.core.actions import FaultKind, Send
from ollama_bridge.core.events import CooldownBegan, ModelSkipped
from ollama_bridge.core.knowledge import REFUSED
from ollama_bridge.core.quota import Quota
from ollama_bridge.core.routing import Plan, plan_of
from ollama_bridge.core.scouting import LARGEST, LONGEST, Intervals, Scouting, loaded_at
from ollama_bridge.core.strategies import STRATEGIES, least_busy
from ollama_bridge.core.types import Response

from .processes import two
from .virtual import World, endpoint, everywhere, reply

PS, TAGS, BALANCE = "/api/ps", "/api/tags", "/api/balance"
MISSING = reply(b"404 page not found", status=404)
LATE = (
    "http://cloud.test:11434 did not tell within 2 s what is left of the allowance. Try again later"
)
NO_ADDRESS = (
    "Cannot connect to Ollama at http://cloud.test:11434: no address for cloud.test. "
    "Check CLOUD_ENDPOINT or BASE_URL of cloud"
)
Step = Response | FaultKind | Callable[[], Response]


def models(*names: str, **facts: object) -> Response:
    return reply({"models": [{"name": name, **facts} for name in names]})


def account(left: float = 45) -> Response:
    return reply({"included": {"balance_usd": left, "allowance_usd": 60}})


@dataclass
class Site:
    """A world whose servers speak of themselves, and what they were asked."""

    plan: Plan
    intervals: Intervals = field(default_factory=Intervals)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.world = World(plan=self.plan, seconds=self.seconds)
        self.scouting = Scouting(self.world.router, self.intervals)
        self.said: dict[tuple[str, str], Step] = {}  # by endpoint and path
        self.asked: list[tuple[float, str, str]] = []

    def go(self, route: str) -> None:
        """Run what is due, as the thread does."""
        steps = self.scouting.go(route)
        self._answer(steps)

    def tell_accounts(self) -> Mapping[str, errors.OllamaBridgeError | None]:
        found: Mapping[str, errors.OllamaBridgeError | None] = self._answer(
            self.scouting.ask_accounts()
        )
        return found

    def pass_time(self, route: str, seconds: int, *, every: float = 0.1) -> None:
        """Let calls be made: each asks for what is due."""
        end = self.world.time.now + seconds
        while self.world.time.now < end:
            if self.scouting.due_at(route) <= self.world.time.now:
                self.go(route)
            self.world.time.now += every

    def times(self, endpoint: str, path: str) -> list[float]:
        """Return after how many seconds an endpoint was asked."""
        return [round(at - 1000, 6) for at, *what in self.asked if what == [endpoint, path]]

    def paths(self) -> Counter[str]:
        return Counter(f"{name} {path}" for _, name, path in self.asked)

    def _answer(self, steps: Any) -> Any:
        world = self.world

        def perform(action: Send) -> Any:
            path = action.request.path
            self.asked.append((world.time.now, action.endpoint.name, path))
            assert action.until == world.time.now + LONGEST
            assert action.endpoint.max_response_bytes == LARGEST
            step = self.said.get((action.endpoint.name, path), models("m"))
            world.always[action.endpoint.name] = step() if callable(step) else step
            return World.perform(world, action)

        world.perform = perform  # type: ignore[method-assign,assignment]  # only these are sent
        try:
            return world.run(steps)
        finally:
            del world.perform
            world.always.clear()


def site(*names: str, seconds: float = 0.0, **facts: Any) -> Site:
    endpoints = [endpoint(name) for name in names or ("a", "b")]
    route = everywhere(*endpoints, **{"strategy": least_busy, **facts})
    return Site(plan_of(endpoints, [route]), seconds=seconds)


def cloud(**facts: Any) -> Site:
    found = endpoint("cloud", **{"is_cloud": True, "api_key": "secret", **facts})
    made = Site(plan_of([found]))
    made.said["cloud", BALANCE] = account()
    return made


class TestARouteOfSeveralTargets:
    def test_has_its_endpoints_asked_for_their_models(self) -> None:
        found = site()
        found.go("everywhere")
        assert found.paths() == {f"{name} {path}": 1 for name in "ab" for path in (TAGS, PS)}

    def test_has_them_asked_at_most_as_often_as_documented(self) -> None:
        found = site()
        found.pass_time("everywhere", 60)
        for name in "ab":
            assert found.times(name, PS) == pytest.approx([3 * n for n in range(20)], abs=0.2 * 20)
            assert found.times(name, TAGS) == pytest.approx([0, 30], abs=0.2)
            gaps = between(found.times(name, PS))
            assert min(gaps) >= 3
        assert found.scouting.routes == ["everywhere"]

    def test_has_them_asked_only_while_calls_are_made(self) -> None:
        found = site()
        found.go("everywhere")
        found.world.time.now += 3600
        assert len(found.asked) == 4
        found.go("everywhere")
        found.go("everywhere")
        assert len(found.asked) == 8

    def test_shares_what_was_asked_with_other_routes(self) -> None:
        endpoints = [endpoint(name) for name in "abc"]
        routes = [
            everywhere(*endpoints[:2], name="one", strategy=least_busy),
            everywhere(*endpoints[1:], name="other", strategy=least_busy),
        ]
        found = Site(plan_of(endpoints, routes))
        found.go("one")
        found.go("other")
        assert found.paths()["b /api/ps"] == 1
        assert found.paths()["c /api/ps"] == 1

    @pytest.mark.parametrize(
        ("strategy", "affinity", "is_asked"),
        [
            *((name, None, name in {"least_busy", "lowest_cost"}) for name in STRATEGIES),
            *((name, True, True) for name in STRATEGIES),
            *((name, False, False) for name in STRATEGIES),
        ],
    )
    def test_has_ps_asked_only_where_somebody_looks(
        self, strategy: str, affinity: bool | None, is_asked: bool
    ) -> None:
        found = site(strategy=STRATEGIES[strategy], affinity=affinity)
        found.go("everywhere")
        assert (found.paths()["a /api/ps"] == 1) is is_asked
        assert found.paths()["a /api/tags"] == 1

    def test_has_ps_asked_for_a_strategy_of_ones_own(self) -> None:
        def own(candidates: Sequence[Any], _: Any) -> Sequence[Any]:
            return candidates

        found = site(strategy=own)
        found.go("everywhere")
        assert found.paths()["a /api/ps"] == 1

    def test_has_no_model_of_the_cloud_looked_for(self) -> None:
        both = [endpoint("a"), endpoint("cloud", is_cloud=True)]
        found = Site(plan_of(both, [everywhere(*both)]))
        found.go("everywhere")
        assert found.paths() == {"a /api/tags": 1}


@pytest.mark.parametrize(
    "facts", [{}, {"api_key": "secret"}, {"is_cloud": True}, {"is_cloud": True, "api_key": ""}]
)
def test_a_single_server_is_never_asked(facts: dict[str, Any]) -> None:
    found = Site(plan_of([endpoint("a", **facts)]))
    assert found.scouting.routes == []
    assert found.scouting.accounts == []


class TestAServerThatDoesNotAnswer:
    @pytest.mark.parametrize(
        "step",
        [FaultKind.REFUSED, FaultKind.TOO_LARGE, MISSING, reply(b"<html>"), reply({}),
         reply({"models": 5}), reply({"models": {}}), reply([]), reply(b"", status=500)],
        ids=repr,
    )  # fmt: skip
    def test_is_asked_less_and_less_often(self, step: Step) -> None:
        found = site()
        found.said["a", PS] = found.said["a", TAGS] = step
        found.pass_time("everywhere", 130)
        assert found.times("a", PS) == pytest.approx(
            [0, 3, 6, 10, 18, 34, 64, 94, 124], abs=0.1 * 9
        )
        assert found.times("a", TAGS) == pytest.approx([0, 30, 60, 90, 120], abs=0.1 * 5)
        assert len(found.times("b", PS)) > 40

    def test_is_asked_as_often_as_before_once_it_answers(self) -> None:
        found = site()
        found.said["a", PS] = FaultKind.REFUSED
        found.pass_time("everywhere", 20)
        del found.said["a", PS]
        found.asked.clear()
        found.pass_time("everywhere", 60)
        assert len(found.times("a", PS)) > 10

    def test_moves_no_circuit_and_changes_nothing_that_is_known(self) -> None:
        found = site()
        found.go("everywhere")
        found.said["a", PS] = found.said["a", TAGS] = FaultKind.SILENT
        found.pass_time("everywhere", 300)
        assert found.world.router.facts("a").failures == 0
        assert not found.world.events
        assert found.world.router.place(found.plan.endpoints[0]).model("m").is_warm

    def test_comes_last_and_takes_two_seconds_at_most(self) -> None:
        found = site()
        found.said["a", PS] = found.said["a", TAGS] = FaultKind.SILENT
        found.go("everywhere")
        assert found.world.time.now == 1004
        found.world.time.now = 1060
        found.asked.clear()
        found.go("everywhere")
        assert [name for _, name, _ in found.asked] == ["b", "b", "a", "a"]


def between(times: Sequence[float]) -> list[float]:
    return [round(after - before, 6) for before, after in pairwise(times)]


class TestAModel:
    def test_that_is_loaded_somewhere_is_looked_for_there(self) -> None:
        found = site()
        found.said["a", PS] = models()
        found.go("everywhere")
        assert {found.world.chat().endpoint for _ in range(5)} == {"b"}

    def test_whose_time_is_over_is_not_loaded(self) -> None:
        found = site()
        then = datetime.fromtimestamp(1000, UTC) - timedelta(seconds=1)
        found.said["a", PS] = models("m", expires_at=then.isoformat())
        found.go("everywhere")
        assert {found.world.chat().endpoint for _ in range(5)} == {"b"}

    def test_is_loaded_by_the_clock_of_its_server(self) -> None:
        body = models("m", expires_at="2020-01-01T00:05:00Z").body
        head = {"Date": "Wed, 01 Jan 2020 00:00:00 GMT"}
        found = site()
        found.said["a", PS] = models()
        found.world.time.now = 1_800_000_000.0
        found.said["b", PS] = Response(200, head, body)
        found.go("everywhere")
        assert found.world.chat().endpoint == "b"

    def test_that_loads_just_now_is_as_good_as_loaded(self) -> None:
        found = site()
        found.said["a", PS] = found.said["b", PS] = models()
        found.go("everywhere")
        loading = found.world.flow(exchanges.whole, using="a")
        next(loading)
        found.world.time.now += 3
        found.go("everywhere")
        place = found.world.router.place(found.plan.endpoints[0])
        assert place.model("m").is_warm, "or a herd would load it everywhere"
        loading.close()
        found.world.time.now += 3
        found.go("everywhere")
        assert not place.model("m").is_warm

    def test_that_is_not_pulled_is_skipped_with_one_warning_until_it_is(self) -> None:
        found = site(strategy=STRATEGIES["failover"])
        found.said["a", TAGS] = models("other")
        for _ in range(70):
            found.go("everywhere")
            assert found.world.chat().endpoint == "b"
            found.world.time.now += 1
        skipped = [event for event in found.world.events if isinstance(event, ModelSkipped)]
        assert skipped == [ModelSkipped("a", "m")]
        found.said["a", TAGS] = models("m:latest")
        found.world.time.now += 30
        found.go("everywhere")
        assert found.world.chat().endpoint == "a"

    def test_that_is_missing_everywhere_is_an_error_that_names_what_to_pull(self) -> None:
        found = site()
        found.said["a", TAGS] = found.said["b", TAGS] = reply({"models": None})
        found.go("everywhere")
        found.world.default = reply({"error": "model 'm' not found"}, status=404)
        with pytest.raises(errors.ModelNotFound) as caught:
            found.world.chat()
        assert str(caught.value) == (
            "a: Model m not found. Run: ollama pull m; b: Model m not found. Run: ollama pull m"
        )

    def test_of_the_cloud_needs_no_pull(self) -> None:
        endpoints = [endpoint(name, model="gpt-oss:120b-cloud") for name in "ab"]
        found = Site(plan_of(endpoints, [everywhere(*endpoints)]))
        found.said["a", TAGS] = models()
        found.go("everywhere")
        assert found.world.chat().endpoint == "a"

    def test_that_visitors_name_is_looked_for_too(self) -> None:
        found = site(strategy=STRATEGIES["failover"])
        found.world.chat(model="x")
        found.said["a", TAGS] = models("m")
        found.said["b", TAGS] = models("m", "x")
        found.go("everywhere")
        assert found.world.chat(model="x").endpoint == "b"


def test_each_call_tells_which_route_it_takes_and_holds_no_lock_meanwhile() -> None:
    told: list[tuple[str, bool]] = []
    found = site()
    router = found.world.router
    router.scout = lambda route: told.append((route, router.lock._is_owned()))
    found.world.chat()
    found.world.chat(using="b")
    assert told == [("everywhere", False), ("b", False)]


def test_what_is_loaded_is_what_time_is_left_for() -> None:
    at = 1_800_000_000.0
    rows = [
        {"name": "over", "expires_at": "2027-01-15T07:59:59.539759506Z"},
        {"name": "Kept", "expires_at": "2027-01-15T09:01:00.5+01:00"},
        {"name": "forever:1b", "expires_at": "2319-03-02T22:48:51.806995986Z"},
        {"name": "unknown"},
        {"name": "odd", "expires_at": "soon"},
        {"expires_at": "2319-03-02T22:48:51Z"},
        "nonsense",
    ]
    found = loaded_at(at, {"models": rows})
    assert found == {"kept:latest", "forever:1b", "unknown:latest", "odd:latest"}


def test_other_processes_are_heard_of_models_that_nobody_called_here() -> None:
    one, other = two(model="m")
    one.script = [reply({"error": "boom"}, status=500)] * 5
    for _ in range(5):
        with pytest.raises(errors.ServerFailed):
            one.chat(timeout=0.5)
    other.home.next = 1e9  # it is not time to look for news
    other.router.learn_models("default", frozenset({"m:latest"}), frozenset())
    with pytest.raises(errors.CircuitOpen):
        other.chat()


class TestAnAccount:
    def test_is_asked_for_its_balance_once_a_minute_at_most(self) -> None:
        found = cloud()
        found.pass_time("cloud", 180)
        assert found.times("cloud", BALANCE) == pytest.approx([0, 60, 120], abs=0.3)
        assert found.paths() == {"cloud /api/balance": 3}
        assert found.world.router.quotas()["cloud"] == Quota("balance", 0.25, limit=60, unit="USD")

    def test_is_asked_on_a_route_too(self) -> None:
        both = [endpoint("cloud", is_cloud=True, api_key="secret"), endpoint("a")]
        found = Site(plan_of(both, [everywhere(*both)]))
        found.said["cloud", BALANCE] = account()
        found.go("everywhere")
        found.go("cloud")
        assert found.paths() == {"cloud /api/balance": 1, "a /api/tags": 1}
        assert found.scouting.route_to("cloud") in {"cloud", "everywhere"}
        assert found.scouting.route_to("a") is None

    @pytest.mark.parametrize(
        "step",
        [MISSING, reply(b"", status=405), reply(b"unauthorized\n", status=401),
         reply(b"", status=403), reply(b"", status=307), reply(b"<html>"), reply({}),
         reply({"included": {"session": 5}})],
        ids=repr,
    )  # fmt: skip
    def test_that_does_not_tell_is_not_asked_for_an_hour(self, step: Response) -> None:
        found = cloud()
        found.said["cloud", BALANCE] = step
        found.pass_time("cloud", 2 * 3600 - 1, every=10)
        assert found.times("cloud", BALANCE) == [0, 3600]

    def test_that_does_not_accept_the_key_says_so_of_its_endpoint(self) -> None:
        found = cloud()
        place = found.world.router.place(found.world.router.default.endpoint)
        found.go("cloud")
        assert not place.refused_until
        found.said["cloud", BALANCE] = reply(b"unauthorized\n", status=401)
        found.tell_accounts()
        assert place.refused_until == found.world.time.now + REFUSED
        found.said["cloud", BALANCE] = account()
        found.tell_accounts()
        assert not place.refused_until
        assert not found.world.events

    @pytest.mark.parametrize("step", [FaultKind.REFUSED, FaultKind.SILENT, reply(b"", status=502)])
    def test_that_cannot_tell_just_now_is_asked_as_usual(self, step: Step) -> None:
        found = cloud()
        found.said["cloud", BALANCE] = step
        found.pass_time("cloud", 600, every=1)
        assert len(found.times("cloud", BALANCE)) in {9, 10}

    @pytest.mark.parametrize(
        ("after", "seconds"), [(None, 600), ("30", 600), ("900", 900), ("x", 600)]
    )
    def test_that_is_asked_too_often_is_left_in_peace(
        self, after: str | None, seconds: int
    ) -> None:
        found = cloud()
        head = {} if after is None else {"Retry-After": after}
        found.said["cloud", BALANCE] = reply(b"", status=429, headers=head)
        found.pass_time("cloud", seconds + 1, every=1)
        assert found.times("cloud", BALANCE) == [0, seconds]
        assert not found.world.events, "it is no cooldown"

    def test_that_is_used_up_tells_until_when_to_leave_it_alone(self) -> None:
        found = cloud()
        found.world.default = reply({"error": "weekly usage limit"}, status=429)
        with pytest.raises(errors.QuotaExhausted):
            found.world.chat()
        ends = datetime.fromtimestamp(found.world.time.now + 7200, UTC).isoformat()
        weekly = {"remaining_percent": 0, "resets_at": ends}
        found.said["cloud", BALANCE] = reply({"included": {"weekly": weekly}})
        found.go("cloud")
        began = [each for each in found.world.events if isinstance(each, CooldownBegan)]
        assert [round(each.seconds) for each in began] == [600, 7200]


class TestAllAccountsAskedNow:
    def test_tell_whatever_was_asked_before(self) -> None:
        found = cloud()
        found.go("cloud")
        found.said["cloud", BALANCE] = account(30)
        assert found.tell_accounts() == {"cloud": None}
        assert found.scouting.due_at("cloud") == 1060
        quota = found.world.router.quotas()["cloud"]
        assert quota is not None
        assert quota.used == 0.5

    @pytest.mark.parametrize(
        ("step", "cls", "sentence"),
        [
            (MISSING, errors.InvalidReply,
             "http://cloud.test:11434 does not tell what is left of the allowance (HTTP 404)"),
            (reply({}), errors.InvalidReply,
             "http://cloud.test:11434 does not tell what is left of the allowance (HTTP 200)"),
            (reply(b"unauthorized\n", status=401), errors.AuthenticationFailed,
             ("The server at http://cloud.test:11434 does not accept the key. "
             "Set OLLAMA_API_KEY, or API_KEY of cloud")),
            (reply(b"", status=429), errors.RateLimited,
             "The server at http://cloud.test:11434 asks for fewer requests"),
            (reply(b"", status=500), errors.ServerFailed,
             "Ollama at http://cloud.test:11434 answered with HTTP 500. See the server's log"),
            (FaultKind.UNRESOLVED, errors.ConnectionFailed,
             NO_ADDRESS),
            (FaultKind.SILENT, errors.Timeout,
             LATE),
            (FaultKind.SLOW, errors.Timeout,
             LATE),
        ],
        ids=repr,
    )  # fmt: skip
    def test_tell_why_they_do_not(
        self, step: Step, cls: type[errors.OllamaBridgeError], sentence: str
    ) -> None:
        found = cloud()
        found.said["cloud", BALANCE] = step
        told = found.tell_accounts()["cloud"]
        assert type(told) is cls
        assert str(told) == sentence
        assert told.endpoint == "cloud"
        assert not found.world.events
