"""Is there an Ollama server? Asked without settings and without a client."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from ollama_bridge import check_availability
from ollama_bridge.testing import FakeOllama, faults
from tests.net.rawserver import ConnectBlackHole

if TYPE_CHECKING:
    import ssl

    from pytest_django import Settings

    from ollama_bridge.testing.faults import Fault


def test_a_server_that_answers_is_there(fake_ollama: FakeOllama) -> None:
    assert check_availability(fake_ollama.url) is True
    assert check_availability(f"{fake_ollama.url}/", timeout=5) is True
    assert [request.path for request in fake_ollama.requests] == ["/api/version"] * 2


def test_its_connection_is_not_kept(fake_ollama: FakeOllama) -> None:
    check_availability(fake_ollama.url)
    fake_ollama.wait_for(lambda server: server.open_connections == 0)


def test_no_settings_are_needed(fake_ollama: FakeOllama, settings: Settings) -> None:
    settings.OLLAMA_BRIDGE = {"NONSENSE": 1}
    assert check_availability(fake_ollama.url)


def test_a_killed_server_is_not_there(fake_ollama: FakeOllama) -> None:
    fake_ollama.refuse()
    assert check_availability(fake_ollama.url) is False


def test_a_name_without_an_address_is_not_there() -> None:
    assert check_availability("http://nothing.invalid:11434") is False


@pytest.mark.parametrize(
    "fault",
    [
        faults.Reset(),
        faults.Garbage(),
        faults.WrongType(),
        faults.page_not_found(),
        faults.server_error(),
        faults.unauthorized(),
        faults.TruncatedJSON(),
        faults.CutBody(),
        faults.redirect("http://127.0.0.1:1/"),
        faults.Status(200, b'{"version": 5}'),
        faults.Status(200, b'{"name": "another service"}'),
        faults.HugeBody(),
    ],
)
def test_what_is_no_server_of_ollamas_is_not_there(fake_ollama: FakeOllama, fault: Fault) -> None:
    fake_ollama.misbehave(fault, path=None)
    assert check_availability(fake_ollama.url) is False


@pytest.mark.parametrize("fault", [faults.BlackHole(), faults.Drip("status"), faults.Drip("body")])
def test_the_timeout_holds_byte_by_byte(fake_ollama: FakeOllama, fault: Fault) -> None:
    fake_ollama.misbehave(fault, path=None)
    check_availability(fake_ollama.url, timeout=0.01)  # loads what is loaded once
    started = time.monotonic()
    assert check_availability(fake_ollama.url, timeout=0.3) is False
    assert 0.28 < time.monotonic() - started < 1


def test_it_holds_for_connects_too() -> None:
    with ConnectBlackHole() as hole:
        started = time.monotonic()
        assert check_availability(hole.url, timeout=0.2) is False
        assert 0.18 < time.monotonic() - started < 1


def test_a_certificate_that_nobody_knows_is_not_accepted(server_tls: ssl.SSLContext) -> None:
    with FakeOllama(tls=server_tls) as server:
        assert check_availability(server.url) is False


@pytest.mark.parametrize("url", ["", "nowhere", "ftp://x", "http://", 5, None, "http://a:b@c"])
def test_what_is_no_url_is_named(url: str) -> None:
    with pytest.raises(ValueError, match=r"^url "):
        check_availability(url)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), 1e300, "2", True, None])
def test_what_is_no_time_is_named(timeout: float) -> None:
    with pytest.raises(ValueError, match=r"^timeout must"):
        check_availability("http://127.0.0.1:11434", timeout=timeout)
