"""``manage.py ollama_quota``."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from ollama_bridge import ollama_client
from ollama_bridge.core.quota import Quota
from ollama_bridge.management.commands import ollama_quota
from ollama_bridge.testing import FakeAccount, FakeOllama, faults

if TYPE_CHECKING:
    from .conftest import Run

NAME = "ollama_quota"
KEY = "canary-key-of-the-cloud"
HELP = [
    "help      Set QUOTA_LIMIT to the calls a day that the account allows, and they",
    "          are counted",
]

pytestmark = pytest.mark.usefixtures("hybrid")


@pytest.fixture
def cloud() -> Iterator[FakeOllama]:
    with FakeOllama(models=["gpt-oss:120b"], account=FakeAccount.legacy(KEY)) as server:
        yield server


@pytest.fixture
def hybrid(configure: Callable[..., None], cloud: FakeOllama) -> Callable[..., None]:
    """Set the cloud and the server at hand; done once without changes."""

    def hybrid(**changes: object) -> None:
        own = {"CLOUD_MODEL": "gpt-oss:120b", "CLOUD_ENDPOINT": cloud.url, "API_KEY": KEY}
        configure(**{**own, **changes})

    hybrid()
    return hybrid


def found(run: Run, *words: str) -> dict[str, Any]:
    """Return what the document says of the cloud."""
    ended = run(NAME, "--format=json", *words)
    endpoints = json.loads(ended.out)["endpoints"]
    (endpoint,) = [each for each in endpoints if each["endpoint"] == "cloud"]
    endpoint["code"] = ended.code
    return dict(endpoint)


def test_an_account_with_enough_left(run: Run, cloud: FakeOllama, fake_ollama: FakeOllama) -> None:
    ended = run(NAME)
    assert (ended.code, ended.err) == (0, "")
    lines = ended.lines
    back = lines.pop(3)
    assert back.startswith("back at   20")
    assert back.endswith("UTC, in 3 d 23 h")
    assert lines == [
        "endpoint  cloud",
        f"url       {cloud.url}",
        "used      60 %, weekly",
        "says who  /api/balance",
        "",
        "endpoint  local",
        f"url       {fake_ollama.url}",
        "used      unknown, no account is known there",
    ]
    assert max(map(len, lines)) <= 80


def test_a_plan_with_credits(run: Run, cloud: FakeOllama) -> None:
    cloud.account = FakeAccount.credit(KEY, left=45, of=60, bought=12.5)
    ended = run(NAME, "--endpoint=cloud")
    assert ended.code == 0
    assert ended.lines[2:3] + ended.lines[4:] == [
        "used      25 %",
        "says who  /api/balance",
        "limit     60 USD, 12.50 USD bought besides",
    ]


@pytest.mark.parametrize(
    ("account", "code", "state"),
    [
        (FakeAccount.legacy(KEY, session=21), 0, "fine"),
        (FakeAccount.legacy(KEY, session=20), 1, "low"),
        (FakeAccount.legacy(KEY, session=0), 4, "used_up"),
        (FakeAccount.legacy(KEY, session=0, bought=3), 1, "low"),
        (FakeAccount.credit(KEY, left=0), 4, "used_up"),
    ],
    ids=["fine", "low", "used-up", "bought", "no-credits"],
)
def test_the_code_is_that_of_the_worst(
    run: Run, cloud: FakeOllama, account: FakeAccount, code: int, state: str
) -> None:
    cloud.account = account
    assert run(NAME).code == code
    assert (found(run)["code"], found(run)["state"]) == (code, state)


def test_the_threshold_is_that_of_the_settings(run: Run, hybrid: Callable[..., None]) -> None:
    hybrid(QUOTA_WARNING_THRESHOLD=0.5)
    assert (found(run)["code"], found(run)["threshold"]) == (1, 0.5)


def test_an_endpoint_that_cools_down(run: Run) -> None:
    ollama_client._router().cool_down("cloud", 7205.0, "quota_exhausted")
    ended = run(NAME, "--endpoint=cloud")
    assert ended.code == 4
    assert ended.lines[-1] == "left alone  2 h 0 min more, used up"
    assert (found(run)["cooldown_code"], found(run)["state"]) == ("quota_exhausted", "used_up")
    assert 7000 < found(run)["cooldown"] < 7206


def test_an_endpoint_that_asked_for_a_pause(run: Run, cloud: FakeOllama) -> None:
    cloud.account = None
    ollama_client._router().cool_down("cloud", 59.9, "rate_limited")
    ended = run(NAME, "--endpoint=cloud")
    assert ended.code == 4
    assert "left alone  59 s more, it asked for a pause" in ended.lines
    assert "used        unknown" in ended.lines
    assert not any(line.startswith("help") for line in ended.lines)


def test_a_server_that_does_not_tell(run: Run, cloud: FakeOllama) -> None:
    cloud.account = None
    ended = run(NAME)
    assert ended.code == 5
    assert ended.lines[2:5] == [
        "used      unknown",
        f"error     {cloud.url} does not tell what is left of the allowance",
        "          (HTTP 404)",
    ]
    assert ended.lines[5:7] == HELP
    told = found(run)
    assert (told["state"], told["used"], told["source"]) == ("unknown", None, None)
    assert (told["error"]["code"], told["resets_at"]) == ("invalid_reply", None)


def test_a_key_that_is_wrong(run: Run, hybrid: Callable[..., None], cloud: FakeOllama) -> None:
    hybrid(API_KEY="wrong")
    assert found(run)["error"] == {
        "code": "upstream_auth",
        "message": f"The server at {cloud.url} does not accept the key. "
        "Set OLLAMA_API_KEY, or API_KEY of cloud",
    }
    assert run(NAME, "--endpoint=cloud").lines[2:] == [
        "used      unknown",
        f"error     The server at {cloud.url} does not accept the key.",
        "          Set OLLAMA_API_KEY, or API_KEY of cloud",
    ]


@pytest.mark.parametrize(
    ("own", "lines"),
    [
        ({}, ["used      unknown, no account is known there"]),
        ({"API_KEY": "key"}, ["used      unknown", *HELP]),
        ({"HEADERS": {"Authorization": "Bearer key"}}, ["used      unknown", *HELP]),
        ({"HEADERS": {"X-Team": "maths"}}, ["used      unknown, no account is known there"]),
    ],
    ids=["none", "key", "header", "another-header"],
)
def test_advice_is_for_endpoints_with_an_account(
    run: Run,
    configure: Callable[..., None],
    fake_ollama: FakeOllama,
    own: dict[str, object],
    lines: list[str],
) -> None:
    configure(ENDPOINTS={"gpu": {"BASE_URL": fake_ollama.url, **own}})
    ended = run(NAME, "--endpoint=gpu")
    assert (ended.code, ended.lines[2:]) == (5, lines)


def test_an_account_with_a_limit_needs_none(run: Run, hybrid: Callable[..., None]) -> None:
    hybrid(QUOTA_LIMIT=1000, API_KEY="wrong")
    assert not [line for line in run(NAME).lines if line.startswith("help")]


def test_a_server_that_is_not_there(run: Run, cloud: FakeOllama) -> None:
    cloud.refuse()
    assert found(run)["error"]["code"] == "connection_failed"
    assert run(NAME).code == 5


def test_what_headers_have_told_stays(run: Run, cloud: FakeOllama) -> None:
    fields = (("X-RateLimit-Limit", "50"), ("X-RateLimit-Remaining", "20"))
    cloud.misbehave(faults.WithHeaders(fields))
    ollama_client.chat("What is water?")
    ended = run(NAME, "--endpoint=cloud")
    assert ended.lines[2:] == [
        "used      60 %",
        "back at   unknown",
        "says who  the headers of its replies",
        "limit     50 requests",
    ]
    assert (found(run)["limit"], found(run)["unit"]) == (50.0, "requests")


def test_calls_that_were_counted(run: Run, hybrid: Callable[..., None], cloud: FakeOllama) -> None:
    hybrid(QUOTA_LIMIT=1000)
    cloud.account = None
    midnight = datetime.now(UTC) + timedelta(hours=5, minutes=30, seconds=5)
    ollama_client._router().learn_quota("cloud", Quota("counted", 0.29, midnight.timestamp()))
    ended = run(NAME, "--endpoint=cloud")
    assert ended.code == 0
    assert ended.lines[2:6] == [
        "used      29 %",
        f"back at   {midnight:%Y-%m-%d %H:%M} UTC, in 5 h 30 min",
        "says who  our own count of answered calls",
        "limit     1000 calls a day",
    ]
    told = found(run)
    assert (told["source"], told["limit"], told["unit"]) == ("counted", 1000, "calls")


def test_the_document(run: Run, cloud: FakeOllama, fake_ollama: FakeOllama) -> None:
    cloud.account = FakeAccount.credit(KEY, left=45, of=60, seconds=3600, bought=2)
    ended = run(NAME, "--format=json")
    told = json.loads(ended.out)
    moment = datetime.fromisoformat(told["endpoints"][0].pop("resets_at"))
    assert abs(moment - datetime.now(UTC)) < timedelta(seconds=3605)
    nothing = {"error": None, "threshold": 0.8, "cooldown": 0.0, "cooldown_code": None}
    assert told == {
        "endpoints": [
            {
                **nothing,
                "endpoint": "cloud",
                "url": cloud.url,
                "state": "fine",
                "used": 0.25,
                "window": None,
                "source": "balance",
                "limit": 60.0,
                "unit": "USD",
                "bought": 2.0,
            },
            {
                **nothing,
                "endpoint": "local",
                "url": fake_ollama.url,
                "state": "unknown",
                "used": None,
                "window": None,
                "resets_at": None,
                "source": None,
                "limit": None,
                "unit": None,
                "bought": 0.0,
            },
        ],
        "error": None,
    }


def test_one_endpoint_alone_is_asked(run: Run, cloud: FakeOllama) -> None:
    ended = run(NAME, "--endpoint=local")
    assert (ended.code, len(cloud.requests)) == (5, 0)
    assert ended.lines[0] == "endpoint  local"


def test_an_endpoint_that_is_none(run: Run) -> None:
    ended = run(NAME, "--endpoint=clod")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == "There is no endpoint 'clod'. Type one of: cloud, local"


def test_it_asks_each_time_and_counts_as_no_call(run: Run, cloud: FakeOllama) -> None:
    for _ in range(3):
        run(NAME)
    assert [request.path for request in cloud.requests] == ["/api/balance"] * 3
    assert ollama_client.get_stats()["total_requests"] == 0


def test_it_shows_no_key_and_logs_nothing(
    run: Run, cloud: FakeOllama, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    cloud.account = FakeAccount.legacy(KEY, session=1)
    for words in ((), ("--format=json",)):
        ended = run(NAME, *words)
        assert KEY not in ended.out + ended.err
    assert caplog.records == []


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a thread learn of a low quota while the command asks, as the one that counts may."""

    def ask(_: str | None) -> dict[str, None]:
        low = Quota("counted", 1.28, limit=7, unit="requests")
        learn = ollama_client._router().learn_quota
        thread = threading.Thread(target=learn, args=("cloud", low))
        thread.start()
        thread.join()
        return {}

    monkeypatch.setattr(ollama_client, "ask_accounts", ask)


@pytest.mark.usefixtures("warned")
def test_what_another_thread_would_warn_of_is_in_the_report_alone(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    ended = run(NAME, "--endpoint=cloud")
    assert (ended.code, ended.lines[2]) == (4, "used      128 %")
    assert caplog.records == []


@pytest.mark.usefixtures("warned")
def test_it_warns_too_with_more_verbosity(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    run(NAME, "--verbosity=2")
    assert "Quota: endpoint cloud has used 128 % of its allowance" in caplog.text


def test_it_logs_with_more_verbosity(
    run: Run, cloud: FakeOllama, caplog: pytest.LogCaptureFixture
) -> None:
    cloud.account = FakeAccount.legacy(KEY, session=10)
    run(NAME, "--verbosity=2")
    assert "Quota: endpoint cloud has used 90 % of its session allowance" in caplog.text


@pytest.mark.parametrize("form", ["table", "json"])
def test_wrong_settings(run: Run, hybrid: Callable[..., None], form: str) -> None:
    hybrid(CLOUD_ENDPOINT="ftp://nowhere")
    ended = run(NAME, f"--format={form}")
    assert ended.code == 3
    assert "CLOUD_ENDPOINT" in ended.err
    if form == "json":
        assert json.loads(ended.out)["endpoints"] == []


def test_colours_are_for_terminals(run: Run, cloud: FakeOllama) -> None:
    cloud.account = FakeAccount.legacy(KEY, session=0)
    assert "\x1b[31;1m100 %, session\x1b[0m" in run(NAME, "--force-color").out
    assert "\x1b" not in run(NAME).out


def test_every_code_has_its_words_and_is_in_the_help() -> None:
    codes = set(ollama_quota.Code) - {ollama_quota.Code.WRONG_ARGUMENTS}
    for table in (ollama_quota._STATES, ollama_quota._TONES, ollama_quota._WORST):
        assert set(table) == codes
    for code in ollama_quota.Code:
        assert f"\n  {code:d}    " in ollama_quota.Command.epilog


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59.9, "59 s"), (60, "1 min"), (3599, "59 min"), (3600, "1 h 0 min"),
     (86_399, "23 h 59 min"), (86_400, "1 d 0 h"), (31 * 86_400, "31 d 0 h")],
)  # fmt: skip
def test_durations_are_told_as_people_do(seconds: float, words: str) -> None:
    assert ollama_quota._duration(seconds) == words
