"""Django's cache as the store of what processes share: circuits, and answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.cache import caches
from django.core.cache.backends.base import InvalidCacheBackendError
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.locmem import LocMemCache
from django.core.cache.backends.redis import RedisCache
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from django.core.cache.backends.base import BaseCache

    from .conf import Settings

_OF_ONE_PROCESS = LocMemCache, DummyCache


class CacheStore:
    """A cache of ``CACHES``, our keys behind a prefix. Each thread has a connection of its own.

    Args:
        kind: of what is stored, so that no two kinds share a key.
    """

    def __init__(self, alias: str, prefix: str, kind: str = "circuit") -> None:
        self._alias = alias
        self._prefix = f"{prefix}:{kind}:"

    def get_many(self, keys: Iterable[str]) -> Mapping[str, object]:
        found = self._cache.get_many([self._prefix + key for key in keys])
        return {key.removeprefix(self._prefix): value for key, value in found.items()}

    def get(self, key: str) -> object:
        return self._cache.get(self._prefix + key)

    def add(self, key: str, value: str, seconds: int) -> bool:
        return bool(self._cache.add(self._prefix + key, value, seconds))

    def set(self, key: str, value: str, seconds: float) -> None:
        self._cache.set(self._prefix + key, value, seconds)

    def hang_up(self) -> None:
        """Close this thread's connections, so that none goes stale."""
        cache = self._cache
        cache.close()
        if isinstance(cache, RedisCache):  # whose close() does nothing
            client: Any = cache._cache  # noqa: SLF001  # there is no other way to its connections
            for pool in client._pools.values():  # noqa: SLF001  # the same
                pool.disconnect()
        for connection in connections.all(initialized_only=True):
            connection.close()
            if connection.connection is not None:
                # SQLite in memory, as in tests, where Django's own close() does nothing.
                BaseDatabaseWrapper.close(connection)

    @property
    def _cache(self) -> BaseCache:
        return caches[self._alias]


def store_of(settings: Settings) -> CacheStore | None:
    """Return where circuits are shared; None where ``CACHE`` is None, or of one process only.

    Raises:
        ImproperlyConfigured: there is no such cache.
    """
    if settings.CACHE is None or isinstance(_cache_of(settings.CACHE), _OF_ONE_PROCESS):
        return None
    return CacheStore(settings.CACHE, settings.CACHE_PREFIX)


def answer_store_of(settings: Settings) -> CacheStore | None:
    """Return where answers are kept; None where ``CACHE`` is None. One process may do.

    Raises:
        ImproperlyConfigured: there is no such cache.
    """
    if settings.CACHE is None:
        return None
    _cache_of(settings.CACHE)
    return CacheStore(settings.CACHE, settings.CACHE_PREFIX, "answer")


def _cache_of(alias: str) -> BaseCache:
    try:
        return caches[alias]
    except InvalidCacheBackendError as error:
        raise ImproperlyConfigured(
            f"CACHE names {alias!r}, which CACHES cannot give: {error} "
            f"Type one of {', '.join(sorted(caches.settings))}, or None to share nothing."
        ) from None
