"""The bridge's retry policy for functions of your own."""

from __future__ import annotations

import asyncio
import functools
import random
import sys
import time
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from .core.retry import RetryPolicy
from .errors import OllamaBridgeError
from .rules import Number, Whole, cleaned

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
R = TypeVar("R")


def retry_on_ollama_failure(
    max_retries: int = 3, initial_delay: float = 1.0, backoff_factor: float = 2.0
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Repeat a sync or async function when it fails for a passing reason.

    Passing reasons are bridge errors with ``retryable`` set, ``ConnectionError``, ``TimeoutError``
    and what requests raises in their place. The wait before repeat n is random within
    [0, initial_delay * backoff_factor ** (n - 1)] seconds, 8 at most; an error's own
    ``retry_after`` is waited for if it is no longer than that, else the error is raised at once.
    The last error comes unchanged.

    ``ollama_client`` retries by itself: do not wrap a bare ``chat()``.

    Args:
        max_retries: repeats after the first attempt.
        initial_delay: upper bound of the first wait, in seconds.
        backoff_factor: growth of that bound.

    Raises:
        TypeError, ValueError: an argument is wrong, or the brackets are missing.
    """
    if callable(max_retries):
        raise TypeError("write @retry_on_ollama_failure() with its brackets")
    policy = RetryPolicy(
        max_retries=cleaned("max_retries", Whole(), max_retries),
        initial_delay=cleaned("initial_delay", Number(), initial_delay),
        factor=cleaned("backoff_factor", Number(at_least=1), backoff_factor),
    )

    def decorate(func: Callable[P, R]) -> Callable[P, R]:
        if iscoroutinefunction(func):
            return cast("Callable[P, R]", _asynchronous(func, policy))
        return _synchronous(func, policy)

    return decorate


def _synchronous(func: Callable[P, R], policy: RetryPolicy) -> Callable[P, R]:
    @functools.wraps(func)
    def repeated(*args: P.args, **kwargs: P.kwargs) -> R:
        for number in range(1, policy.max_retries + 1):
            try:
                return func(*args, **kwargs)
            except Exception as exc:
                delay = _delay(policy, number, exc)
                if delay is None:
                    raise
            time.sleep(delay)
        return func(*args, **kwargs)

    return repeated


def _asynchronous(func: Callable[P, Any], policy: RetryPolicy) -> Callable[P, Any]:
    @functools.wraps(func)
    async def repeated(*args: P.args, **kwargs: P.kwargs) -> Any:
        for number in range(1, policy.max_retries + 1):
            try:
                return await func(*args, **kwargs)
            except Exception as exc:
                delay = _delay(policy, number, exc)
                if delay is None:
                    raise
            await asyncio.sleep(delay)
        return await func(*args, **kwargs)

    return repeated


def _delay(policy: RetryPolicy, number: int, error: Exception) -> float | None:
    """Return the seconds to wait before the next attempt, or None where there shall be none."""
    if not _passes(error):
        return None
    asked = error.retry_after if isinstance(error, OllamaBridgeError) else None
    if asked is None:
        return policy.delay(number, random.uniform)
    return asked if asked <= policy.max_delay else None


def _passes(error: Exception) -> bool:
    if isinstance(error, OllamaBridgeError):
        return error.retryable
    return isinstance(error, (ConnectionError, TimeoutError, *_of_requests()))


def _of_requests() -> tuple[type[Exception], ...]:
    """Return the errors of requests, if the process has loaded it: only then can they occur."""
    requests = sys.modules.get("requests")
    if requests is None:
        return ()
    found = requests.exceptions
    return found.ConnectionError, found.Timeout, found.ChunkedEncodingError
