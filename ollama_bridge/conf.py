"""The settings: one dict, ``OLLAMA_BRIDGE``, in the project's settings.

``Settings`` is the whole table: each name with its type, its default and its rule. A value comes
from the first of: overrides given by code, ``OLLAMA_BRIDGE``, the environment, the default.
``scalar`` settings have an environment variable ``OLLAMA_<NAME>``; an empty one counts as unset.

``examine`` is the only place that reads and judges them. ``Settings.build`` raises what it finds,
``checks.py`` reports it. Nothing is read when this module is imported.
"""

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Final, Literal, Self

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.dispatch import receiver

from .hosts import Url, is_loopback, read_ollama_host
from .resolution import (
    DEFAULT,
    NOTHING,
    Findings,
    Problem,
    collection,
    resolve,
    scalar,
    variables_of,
)
from .rules import (
    Choice,
    Duration,
    Headers,
    Key,
    Name,
    Names,
    Number,
    Options,
    OrNone,
    Rate,
    Statuses,
    Switch,
    Text,
    Verification,
    Whole,
)

__all__ = ["VARIABLES", "Findings", "Problem", "Settings", "current", "examine", "problems"]

DICT: Final = "OLLAMA_BRIDGE"
MEBIBYTE: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every setting, valid; ``Settings()`` is the defaults, else use ``build`` or ``current``."""

    # The server and what it is asked.
    BASE_URL: str = scalar(
        "http://127.0.0.1:11434",
        Url("http://127.0.0.1:11434"),
        also={"OLLAMA_HOST": read_ollama_host},
    )
    MODEL: str = scalar("llama3.2", Name(), also={"OLLAMA_DEFAULT_MODEL": str})
    OPTIONS: Mapping[str, object] = collection(NOTHING, Options())
    SYSTEM_PROMPT: str = scalar("", Text(), secret=True)
    KEEP_ALIVE: float | str | None = scalar(None, OrNone(Duration()))
    API_KEY: str | None = scalar(None, OrNone(Key()), secret=True)
    VERIFY_SSL: bool | str = scalar(default=True, rule=Verification())
    HEADERS: Mapping[str, str] = collection(NOTHING, Headers(), secret=True)
    PROXY: str | None = scalar(
        None, OrNone(Url("http://proxy.example.com:3128", credentials=True)), secret=True
    )
    # Limits of a call, in seconds and bytes.
    TIMEOUT: float = scalar(60.0, Number(above=0))
    CONNECT_TIMEOUT: float = scalar(5.0, Number(above=0))
    FIRST_TOKEN_TIMEOUT: float | None = scalar(None, OrNone(Number(above=0)))
    CHUNK_TIMEOUT: float = scalar(30.0, Number(above=0))
    MAX_CHUNKS: int | None = scalar(None, OrNone(Whole(at_least=1)))
    MAX_RESPONSE_BYTES: int = scalar(16 * MEBIBYTE, Whole(at_least=1))
    # The pool. Async calls keep all connections that they needed for 30 seconds.
    POOL_CONNECTIONS: int = scalar(10, Whole(at_least=1))
    POOL_MAXSIZE: int = scalar(20, Whole(at_least=1))
    # Calls at once, of each model at each endpoint.
    MAX_CONCURRENCY: int | None = scalar(None, OrNone(Whole(at_least=1)))
    MAX_WAITING: int | None = scalar(None, OrNone(Whole(at_least=0)))
    # Retries.
    MAX_RETRIES: int = scalar(3, Whole(at_least=0))
    RETRY_BACKOFF: Literal["exponential", "fixed"] = scalar(
        "exponential", Choice("exponential", "fixed")
    )
    RETRY_INITIAL_DELAY: float = scalar(1.0, Number())
    RETRY_BACKOFF_FACTOR: float = scalar(2.0, Number(at_least=1))
    RETRY_MAX_DELAY: float = scalar(8.0, Number())
    RETRY_JITTER: Literal["full", "none"] = scalar("full", Choice("full", "none"))
    RETRY_DELAY: float = scalar(10.0, Number())
    RETRY_STATUSES: frozenset[int] = collection(frozenset({429, 500, 502, 503, 504}), Statuses())
    # The circuit breaker and the health report.
    CIRCUIT_BREAKER: bool = scalar(default=True, rule=Switch())
    FAILURE_THRESHOLD: int = scalar(5, Whole(at_least=1))
    OPEN_SECONDS: float = scalar(5.0, Number(above=0))
    RECOVERY_TIMEOUT: float = scalar(60.0, Number(above=0))
    HEALTH_CACHE_SECONDS: float = scalar(30.0, Number())
    # Where processes share what they know of circuits.
    CACHE: str | None = scalar("default", OrNone(Name()))
    CACHE_PREFIX: str = scalar("ollama_bridge", Name())
    SYNC_INTERVAL: float = scalar(0.5, Number(above=0))
    # The HTTP API.
    PERMISSION_CLASSES: tuple[str, ...] = collection(
        ("rest_framework.permissions.IsAuthenticated",),
        Names("rest_framework.permissions.IsAuthenticated", pattern=r"[^\W\d]\w*(\.[^\W\d]\w*)+"),
    )
    THROTTLE_RATE: str | None = scalar("60/min", OrNone(Rate()))
    MAX_MESSAGE_CHARS: int = scalar(8000, Whole(at_least=1))
    MAX_HISTORY: int = scalar(50, Whole(at_least=0))
    MAX_BODY_BYTES: int = scalar(262_144, Whole(at_least=1))
    MAX_CALLS_PER_USER: int | None = scalar(3, OrNone(Whole(at_least=1)))
    CLIENT_MAY_SET: tuple[str, ...] = collection(
        (), Names("model", known=("model", "system_prompt", "options", "history_system"))
    )
    CLIENT_OPTIONS: tuple[str, ...] = collection(
        ("temperature", "top_p", "top_k", "seed", "stop", "num_predict"), Names("temperature")
    )
    ALLOWED_MODELS: tuple[str, ...] | None = collection(None, OrNone(Names("llama3.2")))
    SSE_COMMIT_AFTER: float = scalar(10.0, Number(above=0))

    @classmethod
    def build(cls, overrides: Mapping[str, object] | None = None) -> Self:
        """Resolve every setting, or raise one ``ImproperlyConfigured`` that names all problems."""
        findings = examine(overrides)
        if findings.problems:
            lines = [f"- {problem.message} {problem.hint}" for problem in findings.problems]
            raise ImproperlyConfigured("\n".join(["ollama_bridge cannot start:", *lines]))
        return cls(**findings.values)


VARIABLES: Final[Mapping[str, tuple[str, ...]]] = {
    declared.name: tuple(variables_of(declared)) for declared in fields(Settings)
}
"""The environment variables of each setting, the one that wins first; none for lists and dicts."""

NOT_ABOVE: Final = (
    ("CONNECT_TIMEOUT", "TIMEOUT"),
    ("OPEN_SECONDS", "RECOVERY_TIMEOUT"),
    ("RETRY_INITIAL_DELAY", "RETRY_MAX_DELAY"),
)
"""Pairs whose first must not exceed the second; a first that nobody set gives way."""


@functools.cache
def current() -> Settings:
    """Return the project's settings; read once, and again after ``setting_changed``."""
    return Settings.build()


@receiver(setting_changed)
def _forget(*, setting: str, **_: object) -> None:
    if setting == DICT:
        current.cache_clear()


def problems(overrides: Mapping[str, object] | None = None) -> list[Problem]:
    """Return everything that is wrong with the settings."""
    return examine(overrides).problems


def examine(overrides: Mapping[str, object] | None = None) -> Findings:
    """Read and judge every setting."""
    written: object = getattr(settings, DICT, NOTHING)
    dicts = [each for each in (overrides, written) if isinstance(each, Mapping)]
    findings = resolve(Settings, dicts)
    if not isinstance(written, Mapping):
        findings.problems.append(_not_a_dict(written))
    _lower_defaults(findings)
    findings.problems.extend(_contradictions(findings))
    findings.problems.extend(_exposed_key(findings))
    return findings


def _not_a_dict(written: object) -> Problem:
    message = f"{DICT} must be a dict, not {type(written).__name__}."
    return Problem(DICT, message, f'Type {DICT} = {{"MODEL": "llama3.2"}}.', kind="not_a_dict")


def _lower_defaults(findings: Findings) -> None:
    """Let a default follow a limit that somebody set below it, so that ``TIMEOUT=3`` is enough."""
    values, origins = findings.values, findings.origins
    for low, high in NOT_ABOVE:
        if origins.get(low) == DEFAULT and high in values:
            values[low] = min(values[low], values[high])


def _contradictions(findings: Findings) -> Iterator[Problem]:
    values = findings.values
    for low, high in NOT_ABOVE:
        if low in values and high in values and values[low] > values[high]:
            excess = f"{values[low]:g} is more than {values[high]:g}"
            yield Problem(
                low,
                f"{findings.label(low)} must not exceed {high}: {excess}.",
                f"Type at most {values[high]:g} for {low}, or more for {high}.",
            )


def _exposed_key(findings: Findings) -> Iterator[Problem]:
    """Refuse a key that others on the network could read, on its way to the server or proxy."""
    values = findings.values
    base_url, proxy = values.get("BASE_URL", ""), values.get("PROXY")
    if not values.get("API_KEY") or not base_url.startswith("http://"):
        return
    if not is_loopback(base_url) or not is_loopback(proxy or base_url):
        yield Problem(
            "API_KEY",
            f"{findings.label('API_KEY')} would travel over plain http to another machine.",
            "Type an https:// address for BASE_URL, or use a tunnel on 127.0.0.1, or no API_KEY.",
            kind="exposed",
        )
