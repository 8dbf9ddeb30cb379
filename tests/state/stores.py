"""Stores of circuits in this process: every kind of Django cache that processes may share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from django.core.management import call_command
from django.db import connections
from django.test import override_settings

from ollama_bridge.caches import CacheStore
from tests.servers.databases import connections_of, empty_postgres

from .redisserver import RedisServer

ALIAS = "tested"
DATABASE = "circuits"
TABLE = "circuits_cache"
DATABASE_CACHE = {
    "BACKEND": "django.core.cache.backends.db.DatabaseCache",
    "LOCATION": TABLE,
}
PREFIX = "ours"


@dataclass
class Backing:
    """A cache, and how many connections to it are open."""

    store: CacheStore
    connections: Callable[[], int]


class ToOurDatabase:
    """Routes Django's cache to the database of the test."""

    def db_for_read(self, model: Any, **_: object) -> str | None:
        return DATABASE if model._meta.app_label == "django_cache" else None

    db_for_write = db_for_read


@contextmanager
def in_memory() -> Iterator[Backing]:
    cache = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": uuid4().hex}
    with _cached(cache) as store:
        yield Backing(store, lambda: 0)


@contextmanager
def in_redis() -> Iterator[Backing]:
    with RedisServer() as server, _cached(server.cache) as store:
        yield Backing(store, server.connections)


@contextmanager
def in_sqlite(folder: Path) -> Iterator[Backing]:
    file = folder / "site.sqlite3"
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(file)}
    with _in_database(database) as store:
        yield Backing(store, lambda: _opened(file))


@contextmanager
def in_postgres() -> Iterator[Backing]:
    with empty_postgres() as database, _in_database(database) as store:
        yield Backing(store, lambda: connections_of(database, at_most=0))


@contextmanager
def _in_database(database: dict[str, Any]) -> Iterator[CacheStore]:
    connections.settings[DATABASE] = connections.configure_settings({"default": database})[
        "default"
    ]
    routers = [f"{ToOurDatabase.__module__}.{ToOurDatabase.__name__}"]
    try:
        with override_settings(DATABASE_ROUTERS=routers), _cached(DATABASE_CACHE) as store:
            call_command("createcachetable", TABLE, database=DATABASE, verbosity=0)
            connections[DATABASE].close()
            yield store
            connections[DATABASE].close()
    finally:
        del connections.settings[DATABASE]
        del connections[DATABASE]


@contextmanager
def _cached(cache: dict[str, Any]) -> Iterator[CacheStore]:
    default = {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}
    with override_settings(CACHES={"default": default, ALIAS: cache}):
        store = CacheStore(ALIAS, PREFIX)
        yield store
        store.hang_up()


def _opened(file: Path) -> int:
    """Return how often this process has a file open."""
    folder = Path("/proc/self/fd")
    return sum(_leads(each) == str(file) for each in folder.iterdir())


def _leads(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:  # the folder's own
        return ""
