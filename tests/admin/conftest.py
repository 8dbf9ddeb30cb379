from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client

from ollama_bridge import ollama_client

from .panel import Visit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_django import Settings

    from ollama_bridge.testing import FakeOllama

PERMISSIONS = {"operator": "operate_endpoint", "viewer": "view_endpointstate"}


def _user(role: str) -> User:
    """Make a superuser, an operator, a viewer, one of the staff, or a visitor who is none."""
    user = User.objects.create(
        username=role, is_staff=role != "visitor", is_superuser=role == "superuser"
    )
    user.user_permissions.set(Permission.objects.filter(codename=PERMISSIONS.get(role)))
    return user


@pytest.fixture
def configure(settings: Settings, fake_ollama: FakeOllama) -> Callable[..., None]:
    """Set ``OLLAMA_BRIDGE`` for the running fake server; done once without changes."""

    def configure(**changes: object) -> None:
        settings.OLLAMA_BRIDGE = {"BASE_URL": fake_ollama.url, "MAX_RETRIES": 0, **changes}

    configure()
    return configure


@pytest.fixture
def visit(db: None, configure: Callable[..., None]) -> Callable[[str], Visit]:
    """Return what lets somebody visit the page, in the role of that name."""

    def visit(role: str) -> Visit:
        client = Client()
        if role != "anonymous":
            client.force_login(_user(role))
        return Visit(client)

    return visit


@pytest.fixture
def operator(transactional_db: None, visit: Callable[[str], Visit]) -> Iterator[Visit]:
    """Return the page of one who may act, and whose changes are committed.

    The watch has had its first look: SQLite in memory lets nobody write while another reads.
    """
    assert ollama_client.circuit_breaker.state == "closed"
    assert ollama_client._governing._looked.wait(10)  # type: ignore[union-attr]  # no signal is public
    yield visit("operator")
    ollama_client.close()
