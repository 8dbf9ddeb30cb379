"""No key of an endpoint is on the page, in what it says, or in what staff see of its health."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.core import serializers
from rest_framework.test import APIClient

from ollama_bridge import OllamaBridgeError, ollama_client
from ollama_bridge.models import EndpointState
from ollama_bridge.testing import FakeOllama, faults
from tests.net.keys import Keys

from .panel import Visit

ACTIONS = ("check", "disable", "force-open", "reset")


@pytest.fixture
def keys(configure: Callable[..., None]) -> Iterator[Keys]:
    """A site of three servers, which are asked in turn."""
    with ExitStack() as stack:
        keys = Keys({name: stack.enter_context(FakeOllama()) for name in "abc"})
        routes = {"default": {"TARGETS": [*keys.servers]}}
        configure(ENDPOINTS=keys.endpoints(), ROUTES=routes, CACHE=None)
        yield keys
        ollama_client.close()


def ask() -> None:
    with suppress(OllamaBridgeError):
        ollama_client.chat("What is water?")


@pytest.mark.parametrize("is_circle", [False, True], ids=["well", "each leads to the next"])
def test_checks_ask_each_server_with_its_own_and_the_page_tells_none(
    keys: Keys, operator: Visit, caplog: pytest.LogCaptureFixture, is_circle: bool
) -> None:
    caplog.set_level(logging.DEBUG)
    if is_circle:
        for from_, to in ("ab", "bc", "ca"):
            keys.lure(from_, to, path=None)
    ask()
    said = [operator.act(action, name=name) for action in ACTIONS for name in keys.servers]
    ask()
    pages = [operator.page().html, operator.client.get("/admin/").content.decode()]
    stored = [*EndpointState.objects.all(), *LogEntry.objects.all()]
    assert keys.strays() == []
    assert keys.told(*said, *pages, serializers.serialize("json", stored), caplog.text) == []
    assert all(("is unhealthy" if is_circle else "is healthy") in word for word in said[:3])


@pytest.mark.parametrize("fault", [None, faults.unauthorized(), faults.page_not_found()])
def test_health_tells_staff_no_key(keys: Keys, db: None, fault: faults.Fault | None) -> None:
    for server in list(keys.servers.values())[: 2 if fault else 0]:
        server.misbehave(fault or faults.Drop(), path=None)
    staff = APIClient()
    staff.force_authenticate(User(pk=8, username="grace", is_staff=True))
    response = staff.get("/api/health/?force=1")
    assert set(response.json()["endpoints"]) == {"a", "b", "c"}
    assert keys.strays() == []
    assert keys.told(response.content.decode(), str(response.headers)) == []
