"""No canary sings from async calls and streams either: the tests of ``test_canary`` for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.net import otherforms
from tests.net.test_canary import (  # noqa: F401  # collected here too
    heard,
    test_no_fault_of_the_table_makes_them_sing,
    test_no_server_that_echoes_all_it_knows_makes_them_sing,
    test_nor_do_proxies,
    test_nor_do_refusals,
    test_nor_does_a_server_that_answers_well_and_echoes_beside_it,
)

if TYPE_CHECKING:
    from ollama_bridge.testing import FakeOllama
    from tests.conftest import MakeClient


@pytest.fixture(params=otherforms.FORMS, ids=lambda kind: kind.__name__.lower())
def make_client(request: pytest.FixtureRequest, fake_ollama: FakeOllama) -> Iterator[MakeClient]:
    """Return a maker of clients whose ``chat`` is another form of a call."""
    with otherforms.clients(request.param, fake_ollama) as make:
        yield make
