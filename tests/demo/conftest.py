from __future__ import annotations

import os
import socket
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING
from unittest import mock

import pytest
from django.core.cache import cache

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from pytest_django import Settings

    from ollama_bridge.testing import FakeOllama

TAKEN_OVER = ("INSTALLED_APPS", "MIDDLEWARE", "ROOT_URLCONF", "STATIC_URL", "TEMPLATES")


@pytest.fixture(scope="session")
def demo_settings() -> ModuleType:
    """The demo's settings, without what a developer's own .env would leave behind."""
    with mock.patch.dict(os.environ):
        return import_module("demo_project.settings")


@pytest.fixture(autouse=True)
def _site_is_the_demo(settings: Settings, demo_settings: ModuleType) -> Iterator[None]:
    for name in TAKEN_OVER:
        setattr(settings, name, getattr(demo_settings, name))
    settings.OLLAMA_BRIDGE = {}
    cache.clear()
    yield
    cache.clear()


@pytest.fixture
def configure(settings: Settings, fake_ollama: FakeOllama) -> Callable[..., None]:
    """Set ``OLLAMA_BRIDGE`` for the running fake server; done once without changes."""

    def configure(**changes: object) -> None:
        settings.OLLAMA_BRIDGE = {"BASE_URL": fake_ollama.url, "MAX_RETRIES": 0, **changes}

    configure()
    return configure


@pytest.fixture
def port() -> int:
    """A port that was free just now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        number: int = probe.getsockname()[1]
        return number
