from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.client.forms import FORMS, Form

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=FORMS, ids=lambda form: form.name)
def form(request: pytest.FixtureRequest) -> Iterator[Form]:
    """One form of a call: ``chat``, ``achat``, ``stream`` or ``astream``."""
    with request.param() as form:
        yield form


@pytest.fixture(params=[form for form in FORMS if form.streams], ids=lambda form: form.name)
def streaming(request: pytest.FixtureRequest) -> Iterator[Form]:
    """One form of a stream: ``stream`` or ``astream``."""
    with request.param() as form:
        yield form
