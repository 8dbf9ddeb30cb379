"""Databases of sites in other processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import pytest

from .running import BOUND, ROOT
from .settings import VARIABLE

Database = dict[str, Any]
_POSTGRES = {
    "ENGINE": "django.db.backends.postgresql",
    "HOST": os.environ.get("PGHOST", "127.0.0.1"),
    "PORT": os.environ.get("PGPORT", "5432"),
    "USER": os.environ.get("PGUSER", "postgres"),
    "PASSWORD": os.environ.get("PGPASSWORD", ""),
}
_COUNT = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s"


def migrated(database: Database) -> Database:
    """Make all tables, and return the database."""
    site = {"database": database}
    settings = {"DJANGO_SETTINGS_MODULE": "tests.servers.settings", VARIABLE: json.dumps(site)}
    subprocess.run(
        [sys.executable, "-m", "django", "migrate", "--verbosity", "0"],
        cwd=ROOT,
        env={**os.environ, **settings},
        check=True,
    )
    return database


@contextmanager
def postgres_database() -> Iterator[Database]:
    """Make a database with all tables on the PostgreSQL of this machine."""
    with empty_postgres() as database:
        yield migrated(database)


@contextmanager
def empty_postgres() -> Iterator[Database]:
    """Make an empty database on the PostgreSQL of this machine, which CI must have."""
    try:
        server = _connected()
    except Exception as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no PostgreSQL here (PGHOST, PGPORT, PGUSER), or no psycopg: {error}")
    name = f"ollama_bridge_test_{uuid.uuid4().hex}"
    try:
        server.execute(f'CREATE DATABASE "{name}"')
        try:
            yield {**_POSTGRES, "NAME": name}
        finally:
            server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    finally:
        server.close()


def connections_of(database: Database, *, at_most: int) -> int:
    """Return how many connections there are, as soon as they are few enough, or at last."""
    until = time.monotonic() + BOUND
    with _connected() as server:
        while True:
            (found,) = server.execute(_COUNT, [database["NAME"]]).fetchone()
            if found <= at_most or time.monotonic() > until:
                return int(found)
            time.sleep(0.02)


def _connected() -> Any:
    psycopg: Any = import_module("psycopg")  # it may be missing
    return psycopg.connect(
        host=_POSTGRES["HOST"],
        port=_POSTGRES["PORT"],
        user=_POSTGRES["USER"],
        password=_POSTGRES["PASSWORD"],
        dbname="postgres",
        connect_timeout=5,
        autocommit=True,
    )
