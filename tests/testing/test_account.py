"""The fake server as Ollama's cloud: its key, its account, what it tells of both."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from ollama_bridge.testing import FakeAccount, FakeOllama, faults
from tests.testing.plainhttp import CHAT, Answer, ask, chat, connect, once

KEY = "canary-key"
BALANCE = "/api/balance"


def tell(server: FakeOllama, path: str = BALANCE, method: str = "GET", key: str = KEY) -> Answer:
    with closing(connect(server)) as connection:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return ask(connection, method, path, headers=headers)


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.mark.parametrize("key", ["", KEY])
def test_a_server_without_an_account_knows_no_balance(fake_ollama: FakeOllama, key: str) -> None:
    assert fake_ollama.account is None
    answer = tell(fake_ollama, key=key)
    assert (answer.status, answer.body) == (404, b"404 page not found")
    assert tell(fake_ollama, method="POST").status == 404


def test_a_plan_with_credits_tells_dollars() -> None:
    with FakeOllama(account=FakeAccount.credit(KEY, left=45, of=60, bought=12.5)) as server:
        told = tell(server).json
    period = told["included"].pop("period")
    assert told == {
        "included": {"balance_usd": 45, "allowance_usd": 60},
        "purchased": {"balance_usd": 12.5},
    }
    lasts = moment(period["until"]) - moment(period["from"])
    assert abs(lasts - timedelta(days=30)) < timedelta(seconds=1)
    assert period["until"].endswith("Z")


def test_an_older_plan_tells_percents() -> None:
    with FakeOllama(account=FakeAccount.legacy(KEY, session=75, weekly=40)) as server:
        told = tell(server).json
    session, weekly = told["included"]["session"], told["included"]["weekly"]
    assert moment(session.pop("resets_at")) < moment(weekly.pop("resets_at"))
    assert told == {
        "included": {"session": {"remaining_percent": 75}, "weekly": {"remaining_percent": 40}},
        "purchased": {"balance_usd": 0.0},
    }


def test_a_period_ends_when_it_is_said() -> None:
    account = FakeAccount.legacy(KEY, seconds=7200)
    with FakeOllama(account=account) as server:
        ends = moment(tell(server).json["included"]["session"]["resets_at"])
    assert abs(ends - datetime.now(UTC) - timedelta(hours=2)) < timedelta(seconds=30)


@pytest.mark.parametrize("key", ["", "wrong", KEY[:-1]])
def test_who_has_not_the_key_is_refused(key: str) -> None:
    with FakeOllama(account=FakeAccount.legacy(KEY)) as server:
        for path, method in [(BALANCE, "GET"), ("/api/chat", "POST"), ("/api/show", "POST")]:
            answer = tell(server, path, method, key)
            assert (answer.status, answer.body) == (401, b"unauthorized\n")
            assert answer.header("Content-Type") == "text/plain; charset=utf-8"


def test_the_key_opens_what_the_server_does() -> None:
    headers, body = {"Authorization": f"Bearer {KEY}"}, json.dumps(CHAT).encode()
    made = FakeOllama(account=FakeAccount.legacy(KEY), answer="42")
    with made as server, closing(connect(server)) as connection:
        assert ask(connection, "POST", "/api/chat", body, headers).text == "42"


def test_lists_are_public() -> None:
    with FakeOllama(account=FakeAccount.legacy(KEY)) as server:
        assert once(server, "GET", "/api/tags").json["models"][0]["name"] == "llama3.2:latest"
        assert once(server, "GET", "/api/version").status == 200


def test_the_balance_is_only_read() -> None:
    with FakeOllama(account=FakeAccount.legacy(KEY)) as server:
        answer = tell(server, method="POST")
        assert (answer.status, answer.header("Allow")) == (405, "GET, HEAD")


def test_another_account_may_take_its_place() -> None:
    with FakeOllama(account=FakeAccount.legacy(KEY)) as server:
        server.account = FakeAccount("other", {"a": "shape of its own"})
        assert tell(server).status == 401
        assert tell(server, key="other").json["included"] == {"a": "shape of its own"}
        server.account = None
        assert tell(server).status == 404


def test_an_account_does_not_show_its_key() -> None:
    assert KEY not in repr(FakeAccount.legacy(KEY)) + repr(FakeAccount.credit(KEY))


def test_models_come_and_go(fake_ollama: FakeOllama) -> None:
    def names(path: str = "/api/tags") -> list[str]:
        return [row["name"] for row in once(fake_ollama, "GET", path).json["models"]]

    fake_ollama.install("tiny", "qwen3:0.6b")
    assert names() == ["llama3.2:latest", "tiny:latest", "qwen3:0.6b"]
    chat(fake_ollama, model="tiny")
    assert names("/api/ps") == ["tiny:latest"]
    fake_ollama.remove("tiny", "Llama3.2")
    assert names() == ["qwen3:0.6b"]
    assert names("/api/ps") == []
    assert chat(fake_ollama, model="tiny").status == 404


@pytest.mark.parametrize(
    ("window", "text"),
    [
        ("session", "you (user) have reached your session usage limit, upgrade for higher"),
        ("weekly", "you (user) have reached your weekly usage limit, upgrade for higher"),
        ("hourly", "you've reached your hourly usage limit, please wait or upgrade to continue"),
    ],
)
def test_a_used_up_allowance_has_the_clouds_own_words(
    fake_ollama: FakeOllama, window: str, text: str
) -> None:
    fake_ollama.misbehave(faults.usage_limit(window=window))
    answer = chat(fake_ollama)
    assert answer.status == 429
    assert answer.json["error"].startswith(text)
    assert answer.header("Retry-After") is None


def test_a_gateway_may_add_headers_to_an_honest_answer(fake_ollama: FakeOllama) -> None:
    honest = chat(fake_ollama).text
    fake_ollama.misbehave(faults.WithHeaders((("X-RateLimit-Remaining", "7"),)))
    answer = chat(fake_ollama)
    assert (answer.text, answer.header("X-RateLimit-Remaining")) == (honest, "7")
