from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .stores import Backing, in_memory, in_postgres, in_redis, in_sqlite

if TYPE_CHECKING:
    from pytest_django import DjangoDbBlocker


@pytest.fixture(params=["memory", "sqlite", "postgres", "redis"])
def backing(
    request: pytest.FixtureRequest, tmp_path: Path, django_db_blocker: DjangoDbBlocker
) -> Iterator[Backing]:
    """Each kind of store in turn."""
    of_kind = {
        "memory": in_memory,
        "sqlite": lambda: in_sqlite(tmp_path),
        "postgres": in_postgres,
        "redis": in_redis,
    }
    with django_db_blocker.unblock(), of_kind[request.param]() as found:
        yield found
