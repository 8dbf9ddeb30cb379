"""The bridge's retries for functions of one's own, sync and async."""

from __future__ import annotations

import asyncio
import inspect
import time
from typing import TYPE_CHECKING, Any, Protocol

import pytest
import requests

from ollama_bridge import (
    CircuitOpen,
    ConnectionFailed,
    ModelNotFound,
    OllamaBridgeError,
    QuotaExhausted,
    RateLimited,
    RequestRejected,
    ServerFailed,
    retry_on_ollama_failure,
)

if TYPE_CHECKING:
    from collections.abc import Callable

Work = Any


class Sleeps(list[float]):
    """The waits that were asked for; none of them is waited for."""


@pytest.fixture
def sleeps(monkeypatch: pytest.MonkeyPatch) -> Sleeps:
    asked = Sleeps()

    async def pause(seconds: float) -> None:
        asked.append(seconds)

    monkeypatch.setattr(time, "sleep", asked.append)
    monkeypatch.setattr(asyncio, "sleep", pause)
    return asked


class Script:
    """Raises what it is told to, one after another, and then returns its arguments."""

    def __init__(self, *failures: BaseException) -> None:
        self.failures = list(failures)
        self.calls = 0

    def __call__(self, *args: object, **kwargs: object) -> tuple[object, object]:
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)
        return args, kwargs


class Run(Protocol):
    """Decorates a script's function and calls it."""

    def __call__(self, script: Script, **policy: Any) -> Any: ...


def synchronously(script: Script, **policy: Any) -> Any:
    @retry_on_ollama_failure(**policy)
    def work(*args: object, **kwargs: object) -> Work:
        return script(*args, **kwargs)

    return work(1, two=2)


def asynchronously(script: Script, **policy: Any) -> Any:
    @retry_on_ollama_failure(**policy)
    async def work(*args: object, **kwargs: object) -> Work:
        return script(*args, **kwargs)

    return asyncio.run(work(1, two=2))


@pytest.fixture(params=[synchronously, asynchronously], ids=["sync", "async"])
def run(request: pytest.FixtureRequest, sleeps: Sleeps) -> Run:
    del sleeps
    chosen: Run = request.param
    return chosen


PASSING = [
    ConnectionFailed("x"),
    ServerFailed("x", status=503),
    RateLimited("x"),
    CircuitOpen("x", retry_after=5),
    ConnectionResetError(),
    TimeoutError(),
    requests.ConnectionError(),
    requests.ReadTimeout(),
    requests.exceptions.ChunkedEncodingError(),
]
LASTING = [
    ModelNotFound("x"),
    RequestRejected("x"),
    QuotaExhausted("x", retry_after=1),
    RateLimited("x", retry_after=9),
    ValueError("x"),
    FileNotFoundError("x"),
    requests.exceptions.InvalidURL("x"),
]


@pytest.mark.parametrize("failure", PASSING, ids=repr)
def test_what_passes_is_repeated(run: Run, sleeps: Sleeps, failure: Exception) -> None:
    script = Script(failure, failure)
    assert run(script) == ((1,), {"two": 2})
    assert script.calls == 3
    assert len(sleeps) == 2


@pytest.mark.parametrize("failure", LASTING, ids=repr)
def test_what_does_not_pass_is_raised_at_once(run: Run, sleeps: Sleeps, failure: Exception) -> None:
    script = Script(failure)
    with pytest.raises(type(failure)) as caught:
        run(script)
    assert caught.value is failure
    assert (script.calls, sleeps) == (1, [])


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), asyncio.CancelledError()])
def test_an_interruption_is_never_repeated(interruption: BaseException, sleeps: Sleeps) -> None:
    script = Script(interruption)
    with pytest.raises(type(interruption)):
        synchronously(script)
    assert (script.calls, sleeps) == (1, [])


@pytest.mark.parametrize("most", [0, 1, 3, 6])
def test_the_last_error_comes_unchanged_after_so_many_repeats(
    run: Run, sleeps: Sleeps, most: int
) -> None:
    failures = [ConnectionFailed(str(number)) for number in range(most + 1)]
    script = Script(*failures)
    with pytest.raises(ConnectionFailed) as caught:
        run(script, max_retries=most)
    assert caught.value is failures[-1]
    assert caught.value.__cause__ is None
    assert script.calls == most + 1
    assert len(sleeps) == most


def test_the_waits_are_random_within_bounds_that_grow(run: Run, sleeps: Sleeps) -> None:
    for _ in range(50):
        run(Script(*[TimeoutError()] * 6), max_retries=6, initial_delay=0.5, backoff_factor=3)
    bounds = [0.5, 1.5, 4.5, 8, 8, 8]
    for number, bound in enumerate(bounds):
        waits = sleeps[number::6]
        assert all(0 <= wait <= bound for wait in waits)
        assert max(waits) > bound / 2
        assert min(waits) < bound / 2


def test_an_errors_own_wait_is_kept(run: Run, sleeps: Sleeps) -> None:
    run(Script(RateLimited("x", retry_after=7.5), CircuitOpen("x", retry_after=0)))
    assert sleeps == [7.5, 0]


def test_a_function_is_decorated_with_the_defaults(run: Run, sleeps: Sleeps) -> None:
    with pytest.raises(TimeoutError):
        run(Script(*[TimeoutError()] * 9))
    assert len(sleeps) == 3


def test_it_looks_like_the_function_that_it_wraps() -> None:
    @retry_on_ollama_failure()
    def work(number: int) -> int:
        """Work."""
        return number

    @retry_on_ollama_failure()
    async def awork(number: int) -> int:
        return number

    assert (work.__name__, work.__doc__) == ("work", "Work.")
    assert list(inspect.signature(work).parameters) == ["number"]
    assert inspect.iscoroutinefunction(awork)
    assert not inspect.iscoroutinefunction(work)


def test_methods_can_be_decorated() -> None:
    class Teacher:
        @retry_on_ollama_failure()
        def name(self) -> str:
            return type(self).__name__

    assert Teacher().name() == "Teacher"


def test_without_its_brackets_it_says_so() -> None:
    decorate: Callable[..., Any] = retry_on_ollama_failure
    with pytest.raises(TypeError, match=r"@retry_on_ollama_failure\(\)"):

        @decorate
        def work() -> None: ...


@pytest.mark.parametrize(
    ("named", "policy"),
    [
        ("max_retries", {"max_retries": -1}),
        ("max_retries", {"max_retries": 1.5}),
        ("initial_delay", {"initial_delay": -1}),
        ("initial_delay", {"initial_delay": "1"}),
        ("backoff_factor", {"backoff_factor": 0.5}),
        ("backoff_factor", {"backoff_factor": float("nan")}),
    ],
)
def test_a_wrong_argument_is_named(named: str, policy: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{named} must be"):
        retry_on_ollama_failure(**policy)


def test_a_cancelled_wait_ends_at_once() -> None:
    script = Script(*[ConnectionFailed("x")] * 9)
    called = asyncio.Event()

    @retry_on_ollama_failure(initial_delay=60)
    async def work() -> None:
        called.set()
        script()

    async def main() -> None:
        working = asyncio.create_task(work())
        await called.wait()
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working

    started = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - started < 1
    assert issubclass(ConnectionFailed, OllamaBridgeError)
