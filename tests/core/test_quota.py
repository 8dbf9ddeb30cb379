"""What is known of an account's allowance: who says so, who is believed, when it is warned of."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_bridge import errors
from ollama_bridge.core.events import CooldownBegan, QuotaLow
from ollama_bridge.core.protocol import decode_object
from ollama_bridge.core.quota import FRESH, Quota, from_balance, from_headers, moment_of
from ollama_bridge.core.types import Head, QuotaPolicy, Response

from .virtual import World, delta, endpoint, last, reply, stream

WALL = 1_800_000_000.0
UNTIL = "2027-01-15T08:00:00Z"  # WALL
HOUR = 3600.0

CREDITS = {
    "included": {
        "balance_usd": 45,
        "allowance_usd": 60,
        "period": {"from": "2026-12-15T08:00:00Z", "until": UNTIL},
    },
    "purchased": {"balance_usd": 12.5},
}
LEGACY = {
    "included": {
        "session": {"remaining_percent": 75, "resets_at": "2027-01-15T09:00:00Z"},
        "weekly": {"remaining_percent": 40, "resets_at": "2027-01-18T00:00:00Z"},
    },
    "purchased": {"balance_usd": 25},
}


def included(**facts: Any) -> dict[str, Any]:
    return {"included": facts}


class TestABalance:
    def test_of_credits_is_the_used_share_of_the_allowance(self) -> None:
        assert from_balance(CREDITS) == Quota(
            "balance", 0.25, WALL, limit=60.0, unit="USD", bought=12.5
        )

    def test_of_percents_is_that_of_the_scarcest_window(self) -> None:
        found = from_balance(LEGACY)
        assert found == Quota("balance", 0.6, WALL + 64 * HOUR, "weekly", bought=25.0)

    def test_of_equal_windows_is_that_which_comes_back_last(self) -> None:
        both = {
            name: {"remaining_percent": 0, "resets_at": moment}
            for name, moment in [("weekly", "2027-01-18T00:00:00Z"), ("session", UNTIL)]
        }
        found = from_balance(included(**both))
        assert found is not None
        assert (found.window, found.resets_at) == ("weekly", WALL + 64 * HOUR)

    @pytest.mark.parametrize(
        ("reply", "used", "resets_at"),
        [
            (included(balance_usd=61, allowance_usd=60), 0.0, None),
            (included(balance_usd=-6, allowance_usd=60), 1.1, None),
            (included(balance_usd=0.0, allowance_usd=1, period="soon"), 1.0, None),
            (included(balance_usd=0, allowance_usd=1, period={"until": 7}), 1.0, None),
            (included(session={"remaining_percent": 110}), 0.0, None),
            (included(session={"remaining_percent": 20, "resets_at": "soon"}), 0.8, None),
            (included(session={}, weekly={"remaining_percent": 50}), 0.5, None),
            (included(balance_usd="1", weekly={"remaining_percent": 50}), 0.5, None),
        ],
    )
    def test_is_read_as_far_as_it_makes_sense(
        self, reply: dict[str, Any], used: float, resets_at: float | None
    ) -> None:
        found = from_balance(reply)
        assert found is not None
        assert found.used == pytest.approx(used)
        assert found.resets_at == resets_at

    @pytest.mark.parametrize(
        "reply",
        [
            {},
            {"included": None},
            {"included": [1]},
            included(),
            included(balance_usd=1),
            included(balance_usd="1", allowance_usd=2),
            included(balance_usd=True, allowance_usd=2),
            included(balance_usd=1, allowance_usd=0),
            included(balance_usd=1, allowance_usd=-2),
            included(balance_usd=float("nan"), allowance_usd=2),
            included(balance_usd=1, allowance_usd=float("inf")),
            included(balance_usd=1, allowance_usd=10**400),
            included(session=75),
            included(session={"remaining_percent": "75"}),
            included(session={"remaining_percent": None}),
            included(**{"a window that nobody knows": {"remaining_percent": 75}}),
        ],
        ids=repr,
    )
    def test_that_makes_no_sense_is_none(self, reply: dict[str, Any]) -> None:
        assert from_balance(reply) is None

    @pytest.mark.parametrize("bought", [None, "12", True, [], -3])
    def test_with_a_purchase_that_makes_no_sense_has_none(self, bought: object) -> None:
        found = from_balance({**CREDITS, "purchased": {"balance_usd": bought}})
        assert found is not None
        assert found.bought == 0.0

    def test_is_not_used_up_while_something_is_bought(self) -> None:
        spent = included(balance_usd=0, allowance_usd=60)
        quota = from_balance(spent)
        assert quota is not None
        assert quota.is_used_up
        quota = from_balance({**spent, "purchased": {"balance_usd": 0.01}})
        assert quota is not None
        assert not quota.is_used_up

    @given(st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
        | st.just(UNTIL),
        lambda inner: st.dictionaries(
            st.sampled_from(["included", "purchased", "balance_usd", "allowance_usd", "period",
                             "until", "session", "weekly", "remaining_percent", "resets_at"]),
            inner),
        max_leaves=30,
    ))  # fmt: skip
    def test_may_be_anything_and_is_a_sound_quota_or_none(self, anything: object) -> None:
        decoded = decode_object(json.dumps({"included": anything}).encode())
        assert decoded is not None
        found = from_balance(decoded)
        assert found is None or (0 <= found.used < 1e30 and found.bought >= 0)


class Headers(Mapping[str, str]):
    """Finds names in any case, as those of real replies do."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = {name.lower(): value for name, value in headers.items()}

    def __getitem__(self, name: str) -> str:
        return self._headers[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._headers)

    def __len__(self) -> int:
        return len(self._headers)


def headers(remaining: object, limit: object = 100, reset: object = None) -> Headers:
    named = {"Remaining": remaining, "Limit": limit, "Reset": reset}
    return Headers({f"X-RateLimit-{k}": str(v) for k, v in named.items() if v is not None})


class TestHeaders:
    @pytest.mark.parametrize("prefix", ["X-RateLimit-", "x-ratelimit-", "X-Rate-Limit-"])
    def test_have_either_spelling_in_any_case(self, prefix: str) -> None:
        found = Headers({prefix + "Limit": "100", prefix + "Remaining": "25"})
        assert from_headers(found, wall=WALL) == Quota(
            "headers", 0.75, limit=100.0, unit="requests"
        )

    def test_that_are_absent_say_nothing(self) -> None:
        assert from_headers(Headers({"X-RateLimit-Limit": "100"}), wall=WALL) is None

    @pytest.mark.parametrize(
        ("reset", "resets_at"),
        [
            (None, None),
            ("0", WALL),
            ("60", WALL + 60),
            (" 12.5 ", WALL + 12.5),
            (str(int(WALL) + 60), WALL + 60),
            (str(int(WALL) * 1000 + 60_000), WALL + 60),
            ("2027-01-15T09:00:00Z", WALL + HOUR),
            ("2027-01-15T10:00:00+01:00", WALL + HOUR),
            ("2027-01-15T09:00:00", WALL + HOUR),
            ("Fri, 15 Jan 2027 09:00:00 GMT", WALL + HOUR),
            ("Fri, 15 Jan 2027 09:00:00 -0000", WALL + HOUR),
            ("5000000", None),  # neither soon nor since 1970
            ("900000000000000", None),
            ("-60", None),
            ("1e3", None),
            ("nan", None),
            ("6m0s", None),
            ("", None),
        ],
    )
    def test_tell_the_reset_in_several_ways(
        self, reset: str | None, resets_at: float | None
    ) -> None:
        quota = from_headers(headers(18, reset=reset), wall=WALL)
        assert quota is not None
        assert quota.resets_at == resets_at

    @pytest.mark.parametrize(
        ("remaining", "limit", "used"),
        [
            ("100", "100", 0.0),
            ("120", "100", 0.0),
            (" 0 ", "100", 1.0),
            ("0", None, 1.0),
            ("0", "0", 1.0),
            ("0", "unlimited", 1.0),
            ("50, 10;w=1", "100, 100;w=60", 0.5),
        ],
    )
    def test_are_read_as_far_as_they_make_sense(
        self, remaining: str, limit: str | None, used: float
    ) -> None:
        quota = from_headers(headers(remaining, limit), wall=WALL)
        assert quota is not None
        assert quota.used == used

    @pytest.mark.parametrize(
        ("remaining", "limit"),
        [("", "100"), ("many", "100"), ("-1", "100"), ("1.5", "9"), ("5", None), ("5", "0"),
         ("9" * 20, "9" * 20), ("²", "9")],
    )  # fmt: skip
    def test_that_make_no_sense_say_nothing(self, remaining: str, limit: str | None) -> None:
        assert from_headers(headers(remaining, limit), wall=WALL) is None

    @given(*[st.none() | st.text(max_size=12) | st.integers().map(str)] * 3)
    def test_may_be_anything(self, remaining: object, limit: object, reset: object) -> None:
        quota = from_headers(headers(remaining, limit, reset), wall=WALL)
        assert quota is None or 0 <= quota.used <= 1
        if quota is not None and quota.resets_at is not None:
            assert datetime.fromtimestamp(quota.resets_at, UTC)


@pytest.mark.parametrize(
    "text",
    [None, 5, "", "soon", "2027-13-01T00:00:00Z", "0001-01-01T00:00:00+12:00 ", "Fri, 99 Jan 2027"],
    ids=repr,
)
def test_a_moment_that_is_none_is_none(text: object) -> None:
    found = moment_of(text)
    assert found is None or found < 0


def test_a_moment_may_have_nanoseconds() -> None:
    assert moment_of("2027-01-15T08:00:00.539759506Z") == pytest.approx(WALL + 0.54, abs=0.01)


@given(st.text())
def test_a_moment_may_be_anything(text: str) -> None:
    assert moment_of(text) is None or isinstance(moment_of(text), float)


def world(**facts: Any) -> World:
    return World([endpoint("cloud", **{"api_key": "secret", **facts})])


def warnings(world: World) -> list[QuotaLow]:
    return [event for event in world.events if isinstance(event, QuotaLow)]


def learn(world: World, *told: Quota) -> Quota | None:
    for each in told:
        world.router.learn_quota("cloud", each)
    return world.router.quotas()["cloud"]


class TestWhoIsBelieved:
    headers, balance, counted = (
        Quota("headers", 0.1),
        Quota("balance", 0.2),
        Quota("counted", 0.3),
    )

    def test_is_the_best_who_says_anything(self) -> None:
        found = world()
        assert found.router.quotas() == {"cloud": None}
        assert learn(found, self.counted) == self.counted
        assert learn(found, self.balance) == self.balance
        assert learn(found, self.headers) == self.headers
        assert learn(found, self.counted, self.balance) == self.headers

    def test_is_who_says_it_last_of_the_same(self) -> None:
        assert learn(world(), self.balance, self.balance._replace(used=0.0)) == Quota(
            "balance", 0.0
        )

    def test_is_another_once_that_is_ten_minutes_old(self) -> None:
        found = world()
        learn(found, self.headers)
        found.time.now += FRESH - 1
        assert learn(found, self.balance) == self.headers
        found.time.now += 1
        assert learn(found, self.counted) == self.counted

    def test_is_another_once_the_allowance_has_come_back(self) -> None:
        found = world()
        learn(found, self.headers._replace(resets_at=found.time.now + 60))
        found.time.now += 60
        assert found.router.quotas() == {"cloud": None}
        assert learn(found, self.counted) == self.counted


class TestAWarning:
    def test_comes_at_four_fifths(self) -> None:
        found = world()
        learn(found, Quota("balance", 0.79, None, "session"))
        assert warnings(found) == []
        learn(found, Quota("balance", 0.8, 9000.0, "session"))
        assert warnings(found) == [QuotaLow("cloud", 0.8, "balance", "session", 9000.0)]

    def test_comes_where_the_settings_say(self) -> None:
        found = world(quota=QuotaPolicy(warning=0.5))
        learn(found, Quota("balance", 0.5))
        assert len(warnings(found)) == 1

    def test_comes_once_in_each_window(self) -> None:
        found = world()
        session = Quota("balance", 0.8, found.time.now + 5 * HOUR, "session")
        learn(found, session, session._replace(used=0.9), session._replace(used=0.5), session)
        assert len(warnings(found)) == 1
        learn(found, session._replace(window="weekly"))
        assert [each.window for each in warnings(found)] == ["session", "weekly"]

    def test_comes_again_after_it_came_back(self) -> None:
        found = world()
        for _ in range(3):
            session = Quota("balance", 0.8, found.time.now + 5 * HOUR, "session")
            learn(found, session, session)
            found.time.now += 5 * HOUR
        assert len(warnings(found)) == 3

    def test_comes_again_after_it_came_back_as_nobody_had_foretold(self) -> None:
        found = world()
        for _ in range(3):
            learn(found, Quota("headers", 0.9), Quota("headers", 0.9), Quota("headers", 0.1))
            found.time.now += FRESH
        assert len(warnings(found)) == 3

    @pytest.mark.parametrize("reset", [None, 1.0, 30.0])
    def test_comes_once_in_ten_minutes_of_windows_that_are_short(self, reset: float | None) -> None:
        found = world()
        for second in range(600):
            ends = None if reset is None else found.time.now + reset
            learn(found, Quota("headers", 0.9 if second % 2 else 0.1, ends))
            found.time.now += 1
        assert len(warnings(found)) == 1

    def test_never_comes_of_a_window_that_is_over(self) -> None:
        found = world()
        learn(found, Quota("headers", 1.0, found.time.now))
        assert warnings(found) == []

    def test_never_comes_from_who_is_not_believed(self) -> None:
        found = world()
        learn(found, Quota("balance", 0.1), Quota("counted", 3.0))
        assert warnings(found) == []

    def test_refuses_and_reroutes_nothing(self) -> None:
        both = World([endpoint("cloud", api_key="secret"), endpoint("local")])
        learn(both, Quota("balance", 1.5, both.time.now + HOUR))
        assert both.chat().endpoint == "cloud"
        assert not any(isinstance(event, CooldownBegan) for event in both.events)


class TestACooldown:
    def cooling(self) -> World:
        found = world()
        found.default = reply({"error": "you have reached your usage limit"}, status=429)
        with pytest.raises(errors.QuotaExhausted):
            found.chat()
        return found

    def left(self, found: World) -> float:
        return found.router.cooldown(found.router.default.endpoint)

    def test_lasts_until_an_allowance_that_is_used_up_comes_back(self) -> None:
        found = self.cooling()
        learn(found, Quota("balance", 1.0, found.time.now + 5 * HOUR, "session"))
        assert self.left(found) == pytest.approx(5 * HOUR)

    @pytest.mark.parametrize(
        "quota",
        [
            Quota("balance", 0.5, 1000 + 5 * HOUR, "weekly"),  # that was not it
            Quota("balance", 1.0, 1000 + 5 * HOUR, bought=3.0),
            Quota("balance", 1.0, None),
            Quota("balance", 1.0, 1000.0),
        ],
    )
    def test_lasts_no_longer_for_anything_else(self, quota: Quota) -> None:
        found = self.cooling()
        learn(found, quota)
        assert self.left(found) == pytest.approx(600)


def answered(**named: str) -> Any:
    fields = {f"X-RateLimit-{name}": value for name, value in named.items()}
    return reply(headers=Headers({"Content-Type": "application/json", **fields}))


class TestHeadersOfReplies:
    @pytest.mark.parametrize("key", ["secret", None], ids=["key", "without"])
    def test_are_heeded_with_a_key_or_without(self, key: str | None) -> None:
        found = world(api_key=key)
        found.default = answered(Limit="10", Remaining="1", Reset="3600")
        found.chat()
        quota = found.router.quotas()["cloud"]
        assert quota == Quota("headers", 0.9, 1000.1 + HOUR, limit=10.0, unit="requests")
        assert len(warnings(found)) == 1

    def test_are_heeded_in_streams(self) -> None:
        found = world()
        _, *pieces = stream(delta("Water"), last())
        found.script = [[Head(200, answered(Limit="4", Remaining="3").headers), *pieces]]
        found.stream()
        quota = found.router.quotas()["cloud"]
        assert quota is not None
        assert quota.used == 0.25

    def test_of_a_429_tell_until_when_to_leave_it_alone(self) -> None:
        found = world()
        used_up = reply({"error": "you have reached your usage limit"}, status=429)
        fields = answered(Limit="10", Remaining="0", Reset="7200").headers
        found.default = Response(429, fields, used_up.body)
        with pytest.raises(errors.QuotaExhausted) as caught:
            found.chat()
        assert caught.value.retry_after == pytest.approx(7200)

    @pytest.mark.parametrize("status", [404, 500])
    def test_of_other_failures_are_not_heeded(self, status: int) -> None:
        found = world()
        body = reply({"error": "boom"}, status=status).body
        fields = answered(Limit="10", Remaining="0").headers
        found.default = Response(status, fields, body)
        with pytest.raises(errors.OllamaBridgeError):
            found.chat(timeout=0.5)
        assert found.router.quotas() == {"cloud": None}

    def test_that_say_nothing_teach_nothing(self) -> None:
        found = world()
        found.chat()
        assert found.router.quotas() == {"cloud": None}


def test_the_allowance_of_nobody_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        world().router.learn_quota("nobody", Quota("balance", 0.1))


@pytest.mark.parametrize(
    "text",
    ["9999-12-31T23:59:59.9999999Z", "9999-12-31T23:59:59-12:00", "Fri, 31 Dec 9999 23:59:59 GMT"],
)
def test_a_moment_that_nobody_lives_to_see_is_none(text: str) -> None:
    assert moment_of(text) is None
