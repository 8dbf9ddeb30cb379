"""How the thread gets at the table: with a connection that is open while it is used."""

from __future__ import annotations

from django.db import DatabaseError, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from ..models import EndpointState, Stored, database
from .trouble import NOTHING, NoTableError, logger


def read() -> dict[str, Stored]:
    """Return the rows; a table that was missing may have been made in this very moment.

    Raises:
        NoTableError: the site has not been migrated yet.
        Exception: whatever a database that is down does.
    """
    try:
        return EndpointState.objects.stored()
    except DatabaseError as error:
        if not _may_exist():
            raise NoTableError from error
        return EndpointState.objects.stored()


def is_migrated() -> bool:
    """Tell whether our table exists.

    Raises:
        DatabaseError: the database does not answer.
    """
    connection = connections[database()]
    return EndpointState._meta.db_table in connection.introspection.table_names()  # noqa: SLF001  # Django's public _meta


def is_lasting() -> bool:
    """Tell whether the database outlives the process: one in memory, as in tests, does not."""
    connection = connections[database()]
    return connection.vendor != "sqlite" or not connection.is_in_memory_db()  # type: ignore[attr-defined]  # SQLite's own


def hang_up() -> None:
    """Close this thread's connections: none goes stale, and a test database can be dropped."""
    for connection in connections.all(initialized_only=True):
        try:
            connection.close()
            if connection.connection is not None:
                # SQLite in memory, as in tests, where Django's own close() does nothing.
                BaseDatabaseWrapper.close(connection)
        except Exception as error:  # noqa: BLE001  # it was to be thrown away anyway
            logger.debug("A connection did not close: %s", error, extra=NOTHING)


def _may_exist() -> bool:
    """Tell whether our table exists, or nobody can tell."""
    try:
        return is_migrated()
    except Exception:  # noqa: BLE001  # the database is down, as it was for the look before
        return True
