"""The key of an endpoint, and its headers, go there and nowhere else; and nobody tells them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from ollama_bridge import OllamaBridgeError, OllamaClient
from ollama_bridge.testing import FakeOllama, faults
from tests.client.forms import Form
from tests.net.keys import HEADER, Keys, words_of
from tests.net.pair import QUICK, codes, tried

if TYPE_CHECKING:
    from ollama_bridge.core.health import HealthReport

Heard = Callable[[], list[str]]


@pytest.fixture
def keys() -> Iterator[Keys]:
    with ExitStack() as stack:
        yield Keys({name: stack.enter_context(FakeOllama(answer="Wet.")) for name in "abc"})


@pytest.fixture
def client(keys: Keys) -> Iterator[OllamaClient]:
    """A client that is asked for ``a``, ``b`` and ``c`` in turn."""
    routes = {"default": {"TARGETS": [*keys.servers]}}
    with OllamaClient(
        endpoints=keys.endpoints(), routes=routes, cache=None, max_retries=1, **QUICK
    ) as client:
        yield client


@pytest.fixture
def heard(
    keys: Keys, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> Iterator[Heard]:
    """Return which secrets were heard in logs and output so far."""

    def hear() -> list[str]:
        told = capfd.readouterr()
        records = [
            repr((record.getMessage(), caplog.handler.format(record), vars(record)))
            for record in caplog.records
        ]
        assert records
        return keys.told(told.out, told.err, *records)

    with caplog.at_level(logging.DEBUG):
        for name in list(logging.root.manager.loggerDict):
            caplog.set_level(logging.NOTSET, name)
        yield hear


def words_of_client(client: OllamaClient) -> list[str]:
    """Return what a client says of itself and all that it knows."""
    return [
        repr(client),
        repr(client.endpoints),
        repr(client.circuit_breakers),
        json.dumps(client.get_stats()),
        repr(client._running().settings),
        repr(client._running().router.plan),
    ]


def test_a_key_that_strays_is_found(keys: Keys, client: OllamaClient) -> None:
    """So that the other tests can fail."""
    for name in keys.servers:
        client.chat("What is water?", using=name)
    assert keys.strays() == []
    client.chat(f"What is {keys.of['a'][0]}?", using="b")
    assert keys.strays() == [keys.of["a"][0]]
    assert keys.told(*words_of(OllamaBridgeError(keys.of["c"][1]))) == [keys.of["c"][1]]


def test_each_server_gets_its_own_when_a_call_goes_round(
    keys: Keys, client: OllamaClient, heard: Heard, form: Form
) -> None:
    keys.servers["a"].misbehave(faults.unavailable())
    keys.servers["b"].misbehave(faults.unauthorized())
    reply = form.ask(client)
    assert codes(reply.attempts) == ["a:upstream_failed", "b:upstream_auth", "c:"]
    assert keys.strays() == []
    assert keys.told(repr(reply.attempts), json.dumps(reply.to_dict())) == []
    assert keys.told(*words_of_client(client)) == []
    assert heard() == []


def test_nobody_is_led_to_another_server(
    keys: Keys, client: OllamaClient, heard: Heard, form: Form
) -> None:
    """Each server sends its callers on to the next, with a cookie; in a circle."""
    for from_, to in ("ab", "bc", "ca"):
        keys.lure(from_, to)
    error = form.fail(client)
    assert tried(error) == [f"{name}:invalid_reply" for name in "abc"]
    assert keys.strays() == []
    assert [len(server.chats) for server in keys.servers.values()] == [1, 1, 1]
    assert keys.told(*words_of(error)) == []
    assert heard() == []


def test_nor_is_who_repeats_on_a_kept_connection(
    keys: Keys, client: OllamaClient, form: Form
) -> None:
    """Connections are kept, and lost, and made anew: each under its own key."""
    for turn in range(6):
        for number, server in enumerate(keys.servers.values()):
            server.behave()
            if (turn + number) % 3:
                server.misbehave(faults.Drop() if turn % 2 else faults.CloseAfterReply())
        with_errors(form, client)
    assert keys.strays() == []


def with_errors(form: Form, client: OllamaClient) -> None:
    for using in ("default", "a", "b", "c"):
        told = form.tell(client, using=using)
        assert told.error is None or isinstance(told.error, OllamaBridgeError)


def test_endpoints_of_one_address_have_each_their_own(form: Form) -> None:
    """Two accounts on one server share neither a key nor a header."""
    with FakeOllama() as server:
        accounts = Keys({"a": server, "b": server})
        with OllamaClient(endpoints=accounts.endpoints(), cache=None, **routed("a")) as client:
            for using in ("a", "b", "a", "b", "b"):
                form.ask(client, using, using=using)
        for request in server.chats:
            key, header = accounts.of[request.prompt]
            assert request.headers["authorization"] == f"Bearer {key}"
            assert request.headers[HEADER.lower()] == header


def routed(*targets: str) -> dict[str, Any]:
    return {"routes": {"default": {"TARGETS": [*targets]}}}


def test_what_the_top_level_has_is_inherited_by_none(keys: Keys, form: Form) -> None:
    with OllamaClient(
        base_url=keys.servers["c"].url,
        api_key=keys.of["c"][0],
        headers={HEADER: keys.of["c"][1]},
        endpoints={name: {"BASE_URL": keys.servers[name].url} for name in "ab"},
        cache=None,
        **routed("a", "b"),
    ) as client:
        keys.servers["a"].misbehave(faults.unavailable())
        assert form.ask(client).endpoint == "b"
        client.health_check(force=True)
    for name in "ab":
        for request in keys.servers[name].requests:
            assert {"authorization", HEADER.lower()}.isdisjoint(request.headers)


class TestAHealthCheck:
    def test_asks_each_server_with_its_own(
        self, keys: Keys, client: OllamaClient, heard: Heard, form: Form
    ) -> None:
        form.ask(client)
        keys.servers["c"].misbehave(faults.unauthorized(), path=None)
        report = client.health_check(force=True)
        assert report
        assert keys.strays() == []
        assert keys.told(*words_of_report(report)) == []
        assert heard() == []

    def test_is_led_nowhere(
        self, keys: Keys, client: OllamaClient, heard: Heard, form: Form
    ) -> None:
        for from_, to in ("ab", "bc", "ca"):
            keys.lure(from_, to, path=None)
        error = form.fail(client)
        report = client.health_check(force=True)
        assert not report
        assert keys.strays() == []
        assert keys.told(*words_of_report(report), *words_of(error)) == []
        assert keys.told(*words_of_client(client)) == []
        assert heard() == []


def words_of_report(report: HealthReport) -> list[str]:
    errors = [report.error, *(found.error for found in report.endpoints.values())]
    return [repr(report), *(word for error in errors if error for word in words_of(error))]


class TestAClientMadeByHand:
    KEY = "the-key-of-the-settings"

    @pytest.mark.parametrize("other", ["cloud_endpoint", "base_url", "endpoints"])
    def test_takes_no_key_of_the_settings_to_another_server(
        self, settings: Any, other: str, fake_ollama: FakeOllama
    ) -> None:
        with FakeOllama(models=["big", "llama3.2"]) as theirs:
            settings.OLLAMA_BRIDGE = {
                "BASE_URL": fake_ollama.url,
                "API_KEY": self.KEY,
                "CLOUD_MODEL": "big",
                "CLOUD_ENDPOINT": fake_ollama.url,
            }
            own: Any = {"x": {"BASE_URL": theirs.url}} if other == "endpoints" else theirs.url
            with OllamaClient(**{other: own}) as client, suppress(ImproperlyConfigured):
                client.chat("Hi", using="x" if other == "endpoints" else None)
            assert all(self.KEY not in repr(each.headers) for each in theirs.requests)

    @pytest.mark.parametrize("of_client", [False, True])
    def test_takes_that_of_the_cloud_to_no_server_at_hand(
        self, settings: Any, of_client: bool, fake_ollama: FakeOllama
    ) -> None:
        with FakeOllama(models=["big"]) as cloud:
            settings.OLLAMA_BRIDGE = {
                "BASE_URL": fake_ollama.url,
                "API_KEY": self.KEY,
                "CLOUD_MODEL": "big",
                "CLOUD_ENDPOINT": cloud.url,
                "ROUTES": {} if of_client else {"backup": {"TARGETS": ["default"]}},
            }
            own: Any = {"endpoints": {"gpu": {"BASE_URL": cloud.url}}} if of_client else {}
            with OllamaClient(**own) as client:
                assert client.chat("Hi", using=None if of_client else "backup")
        assert [each.headers.get("authorization") for each in fake_ollama.chats] == [None]

    def test_takes_none_to_another_cloud_with_endpoints_of_its_own_either(
        self, settings: Any, fake_ollama: FakeOllama
    ) -> None:
        settings.OLLAMA_BRIDGE = {"BASE_URL": fake_ollama.url, "API_KEY": self.KEY}
        with FakeOllama(models=["big"]) as theirs:
            own: Any = {"endpoints": {}, "cloud_model": "big", "cloud_endpoint": theirs.url}
            with OllamaClient(**own) as client, suppress(ImproperlyConfigured, OllamaBridgeError):
                client.chat("Hi")
            assert all(self.KEY not in repr(each.headers) for each in theirs.requests)
