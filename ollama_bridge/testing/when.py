"""When a fault strikes: predicates over `RecordedRequest`.

Each call makes a fresh predicate with its own count. A rule asks its predicate only about requests
on the rule's path that no earlier rule took. Any function from a `RecordedRequest` to a bool works
as well; it runs in the server's thread and must not block.
"""

import time
from collections.abc import Callable
from itertools import count

from .recorded import RecordedRequest

Predicate = Callable[[RecordedRequest], bool]

__all__ = ["Predicate", "between", "every", "first", "model", "odd_attempts", "prompt", "reused"]


def every(n: int) -> Predicate:
    """Match each n-th request that this predicate is asked about, so `every(2)` the 2nd."""
    numbers = count(1)
    return lambda _request: next(numbers) % n == 0


def first(n: int) -> Predicate:
    """Match the first `n` requests that this predicate is asked about."""
    numbers = count(1)
    return lambda _request: next(numbers) <= n


def odd_attempts() -> Predicate:
    """Match the 1st, 3rd, 5th … request with the same path and body.

    Every call whose prompt is its own then fails once and succeeds when it is repeated.
    """
    return lambda request: request.attempt % 2 == 1


def reused() -> Predicate:
    """Match requests on a connection that has already carried one.

    With `faults.Drop()` this is a server that closes idle connections at the worst moment.
    """
    return lambda request: request.turn > 1


def prompt(substring: str) -> Predicate:
    """Match requests whose prompt holds `substring`."""
    return lambda request: substring in request.prompt


def model(name: str) -> Predicate:
    """Match requests for the model `name`, spelled as the client sent it."""
    return lambda request: request.model == name


def between(start: float, end: float) -> Predicate:
    """Match requests from `start` to `end` seconds after this call of `between`."""
    born = time.monotonic()
    return lambda request: start <= request.at - born < end
