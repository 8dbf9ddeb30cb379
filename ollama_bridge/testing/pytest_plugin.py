"""The pytest fixture `fake_ollama`; importing this costs nothing but pytest."""

from typing import TYPE_CHECKING

import pytest

from .. import testing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .server import FakeOllama


@pytest.fixture
def fake_ollama() -> "Iterator[FakeOllama]":
    """A running `FakeOllama` with the model `llama3.2`, stopped after the test."""
    with testing.FakeOllama() as server:
        yield server
