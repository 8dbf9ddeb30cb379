from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ollama_bridge.transports import aiopool  # noqa: F401  # it takes its time, once
from tests.client.forms import FORMS, Form
from tests.net.pair import Pair, pair

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def two() -> Iterator[Pair]:
    """Two servers, and what makes clients of both."""
    with pair(answer="Wet.") as two:
        yield two


@pytest.fixture(params=FORMS, ids=lambda kind: kind.name)
def form(request: pytest.FixtureRequest) -> Iterator[Form]:
    """Each form of a call in turn."""
    kind: type[Form] = request.param
    with kind() as form:
        yield form
