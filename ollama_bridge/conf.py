"""The settings: one dict, ``OLLAMA_BRIDGE``, in the project's settings.

``Settings`` is the whole table: each name with its type, its default and its rule. A value comes
from the first of: overrides given by code, ``OLLAMA_BRIDGE``, the environment, the default.
``scalar`` settings have an environment variable ``OLLAMA_<NAME>``; an empty one counts as unset.
An endpoint takes what it leaves out from there, but no address, no key and no headers.

``examine`` is the only place that reads and judges them. ``Settings.build`` raises what it finds,
``checks.py`` reports it. Nothing is read when this module is imported.
"""

import functools
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Final, Self

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.dispatch import receiver
from django.utils.module_loading import import_string

from .core.strategies import STRATEGIES, Strategy
from .hosts import Url
from .resolution import (
    NOTHING,
    Findings,
    Problem,
    collection,
    resolve,
    scalar,
    tables,
    variables_of,
)
from .rules import (
    DOTTED,
    CloudName,
    Dict,
    Duration,
    Handle,
    InvalidError,
    Name,
    Names,
    Number,
    Options,
    OrNone,
    Rate,
    Section,
    Text,
    Whole,
)
from .settling import settle
from .tables import HOMES, OLLAMA_COM, EndpointSettings, RouteSettings, ServerSettings

__all__ = [
    "VARIABLES",
    "EndpointSettings",
    "Findings",
    "Problem",
    "RouteSettings",
    "Settings",
    "current",
    "examine",
    "problems",
    "strategy_at",
]

DICT: Final = "OLLAMA_BRIDGE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(ServerSettings):
    """Every setting, valid; ``Settings()`` is the defaults, else use ``build`` or ``current``.

    What the top level says of its server is here as it is written. What calls go by is in
    ``ENDPOINTS`` and ``ROUTES``: all that there are, each with all its settings.
    """

    # What the server is asked.
    OPTIONS: Mapping[str, object] = collection(NOTHING, Options())
    SYSTEM_PROMPT: str = scalar("", Text(), secret=True)
    KEEP_ALIVE: float | str | None = scalar(None, OrNone(Duration()))
    MAX_CHUNKS: int | None = scalar(None, OrNone(Whole(at_least=1)), example=2000)
    # Further servers, and the ways to them.
    ENDPOINTS: Mapping[str, EndpointSettings] = tables(
        MappingProxyType({"default": EndpointSettings()}),
        Dict(
            Handle(),
            Section('{"BASE_URL": "http://10.0.0.5:11434"}'),
            '{"gpu": {"BASE_URL": "http://10.0.0.5:11434"}}',
        ),
    )
    ROUTES: Mapping[str, RouteSettings] = tables(
        NOTHING,
        Dict(
            Handle(),
            Section('{"TARGETS": ["cloud", "local"]}'),
            '{"default": {"TARGETS": ["cloud", "local"]}}',
        ),
    )
    CLOUD_MODEL: str | None = scalar(None, OrNone(CloudName()), example="gpt-oss:120b")
    CLOUD_ENDPOINT: str = scalar(OLLAMA_COM, Url(OLLAMA_COM))
    # What the process has once, for all servers.
    POOL_CONNECTIONS: int = scalar(10, Whole(at_least=1))
    HEALTH_CACHE_SECONDS: float = scalar(30.0, Number())
    # Where processes share what they know of circuits.
    CACHE: str | None = scalar("default", OrNone(Name()))
    CACHE_PREFIX: str = scalar("ollama_bridge", Name())
    SYNC_INTERVAL: float = scalar(0.5, Number(above=0))
    # The HTTP API.
    PERMISSION_CLASSES: tuple[str, ...] = collection(
        ("rest_framework.permissions.IsAuthenticated",),
        Names("rest_framework.permissions.IsAuthenticated", pattern=DOTTED),
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

    @property
    def names(self) -> tuple[str, ...]:
        """The names that ``using`` may have: routes, then endpoints."""
        return tuple(dict.fromkeys((*self.ROUTES, *self.ENDPOINTS)))

    @classmethod
    def build(cls, overrides: Mapping[str, object] | None = None) -> Self:
        """Resolve every setting, or raise one ``ImproperlyConfigured`` that names all problems."""
        findings = examine(overrides)
        if findings.problems:
            lines = [f"- {problem.message} {problem.hint}" for problem in findings.problems]
            raise _refusal(lines)
        values = dict(findings.values)
        endpoints = {name: EndpointSettings(**it) for name, it in values.pop("ENDPOINTS").items()}
        routes = {name: RouteSettings(**it) for name, it in values.pop("ROUTES").items()}
        return cls(ENDPOINTS=MappingProxyType(endpoints), ROUTES=MappingProxyType(routes), **values)

    def strategies(self) -> dict[str, Strategy]:
        """Return the strategy of each route; one of your own is imported now.

        Raises:
            ImproperlyConfigured: there is none at its path.
        """
        found, lines = {}, []
        for name, route in self.ROUTES.items():
            try:
                found[name] = strategy_at(route.STRATEGY)
            except InvalidError as error:
                lines.append(f'- ROUTES["{name}"]["STRATEGY"] {error.message}. {error.hint}')
        if lines:
            raise _refusal(lines)
        return found


VARIABLES: Final[Mapping[str, tuple[str, ...]]] = {
    declared.name: tuple(variables_of(declared)) for declared in fields(Settings)
}
"""The environment variables of each setting, the one that wins first; none for lists and dicts."""


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
    findings = resolve(Settings, dicts, homes=HOMES)
    if not isinstance(written, Mapping):
        findings.problems.append(_not_a_dict(written))
    settle(findings)
    return findings


def strategy_at(written: str) -> Strategy:
    """Return the strategy of this name, or the function at this path.

    Raises:
        InvalidError: there is none.
    """
    if written in STRATEGIES:
        return STRATEGIES[written]
    hint = f'Type "{next(iter(STRATEGIES))}", or the dotted path of a function.'
    try:
        found = import_string(written)
    except Exception as error:  # a module of the site's own may raise anything
        why = f"{error}" if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
        complaint = f'names "{written}", which cannot be imported: {why}'
        raise InvalidError(complaint, hint) from error
    if complaint := _misfit(found):
        hint = "Type for example: def nearest(candidates, draw): return candidates"
        raise InvalidError(f'names "{written}", which {complaint}', hint)
    strategy: Strategy = found
    return strategy


def _misfit(found: object) -> str:
    """Say why what was found is no strategy; "" if it may be one."""
    if not callable(found):
        return "is no function"
    if any(_is_async(each) for each in (found, type(found).__call__)):
        return "is async, but nobody awaits a strategy"
    try:
        inspect.signature(found).bind("candidates", "draw")
    except TypeError:
        return "cannot be called with two arguments, the candidates and the draw"
    except ValueError:  # some that are written in C do not tell what they take
        return ""
    return ""


def _is_async(found: object) -> bool:
    return inspect.iscoroutinefunction(found) or inspect.isasyncgenfunction(found)


def _not_a_dict(written: object) -> Problem:
    message = f"{DICT} must be a dict, not {type(written).__name__}."
    return Problem(DICT, message, f'Type {DICT} = {{"MODEL": "llama3.2"}}.', kind="not_a_dict")


def _refusal(lines: list[str]) -> ImproperlyConfigured:
    return ImproperlyConfigured("\n".join(["ollama_bridge cannot start:", *lines]))
