"""The tables of what belongs to one server or route, each name with its default and its rule."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from .core.strategies import STRATEGIES
from .hosts import Url, read_ollama_host
from .resolution import NOTHING, Home, collection, names_of, scalar
from .rules import (
    VISIBLE,
    Choice,
    ChoiceOrPath,
    Dict,
    Headers,
    Key,
    Name,
    Names,
    Number,
    OrNone,
    Statuses,
    Switch,
    Verification,
    Whole,
)

MEBIBYTE: Final = 1024 * 1024
OLLAMA_COM: Final = "https://ollama.com"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """What the top level says of its server, and each endpoint of its own."""

    BASE_URL: str = scalar(
        "http://127.0.0.1:11434",
        Url("http://127.0.0.1:11434"),
        also={"OLLAMA_HOST": read_ollama_host},
    )
    MODEL: str = scalar("llama3.2", Name(), also={"OLLAMA_DEFAULT_MODEL": str})
    API_KEY: str | None = scalar(None, OrNone(Key()), secret=True)
    VERIFY_SSL: bool | str = scalar(default=True, rule=Verification())
    HEADERS: Mapping[str, str] = collection(NOTHING, Headers(), secret=True)
    PROXY: str | None = scalar(
        None, OrNone(Url("http://proxy.example.com:3128", credentials=True)), secret=True
    )
    # Limits of a call, in seconds and bytes.
    TIMEOUT: float = scalar(60.0, Number(above=0))
    CONNECT_TIMEOUT: float = scalar(5.0, Number(above=0))
    FIRST_TOKEN_TIMEOUT: float | None = scalar(None, OrNone(Number(above=0)), example=20.0)
    CHUNK_TIMEOUT: float = scalar(30.0, Number(above=0))
    MAX_RESPONSE_BYTES: int = scalar(16 * MEBIBYTE, Whole(at_least=1))
    # The pool. Async calls keep all connections that they needed for 30 seconds.
    POOL_MAXSIZE: int = scalar(20, Whole(at_least=1))
    # Calls at once, of each model.
    MAX_CONCURRENCY: int | None = scalar(None, OrNone(Whole(at_least=1)), example=4)
    MAX_WAITING: int | None = scalar(None, OrNone(Whole(at_least=0)), example=20)
    # Retries.
    MAX_RETRIES: int = scalar(3, Whole(at_least=0))
    RETRIES_BEFORE_FAILOVER: int = scalar(0, Whole(at_least=0))
    RETRY_BACKOFF: Literal["exponential", "fixed"] = scalar(
        "exponential", Choice("exponential", "fixed")
    )
    RETRY_INITIAL_DELAY: float = scalar(1.0, Number())
    RETRY_BACKOFF_FACTOR: float = scalar(2.0, Number(at_least=1))
    RETRY_MAX_DELAY: float = scalar(8.0, Number())
    RETRY_JITTER: Literal["full", "none"] = scalar("full", Choice("full", "none"))
    RETRY_DELAY: float = scalar(10.0, Number())
    RETRY_STATUSES: frozenset[int] = collection(frozenset({429, 500, 502, 503, 504}), Statuses())
    # The circuit breaker.
    CIRCUIT_BREAKER: bool = scalar(default=True, rule=Switch())
    FAILURE_THRESHOLD: int = scalar(5, Whole(at_least=1))
    OPEN_SECONDS: float = scalar(5.0, Number(above=0))
    RECOVERY_TIMEOUT: float = scalar(60.0, Number(above=0))
    # What an account allows: calls a day, and seconds for which it is left alone when they are
    # used up, if it does not say itself.
    COOLDOWN_SECONDS: float = scalar(600.0, Number(above=0))
    QUOTA_LIMIT: int | None = scalar(None, OrNone(Whole(at_least=1)), example=1000)
    QUOTA_WARNING_THRESHOLD: float = scalar(0.8, Number(above=0, at_most=1))


NOT_ABOVE: Final = (
    ("CONNECT_TIMEOUT", "TIMEOUT"),
    ("OPEN_SECONDS", "RECOVERY_TIMEOUT"),
    ("RETRY_INITIAL_DELAY", "RETRY_MAX_DELAY"),
)
"""Pairs whose first must not exceed the second; a first that nobody set gives way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSettings(ServerSettings):
    """Everything about one endpoint.

    ``MODELS`` has its names for our names of models, and ``PRICES`` what a million tokens cost.
    """

    WEIGHT: float = scalar(1.0, Number(above=0))
    MODELS: Mapping[str, str] = collection(
        NOTHING, Dict(Name(), Name(), '{"llama3.2": "llama3.2:3b-instruct-q8_0"}')
    )
    PRICES: Mapping[str, Mapping[str, float]] = collection(
        NOTHING,
        Dict(
            Name(),
            Dict(
                Choice("prompt", "completion"),
                Number(),
                '{"prompt": 0.5, "completion": 1.5}',
                needed=("prompt", "completion"),
            ),
            '{"gpt-oss:120b": {"prompt": 0.5, "completion": 1.5}}',
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteSettings:
    """Everything about one route. In the end ``WEIGHTS`` has all targets."""

    STRATEGY: str = scalar("failover", ChoiceOrPath(*STRATEGIES))
    TARGETS: tuple[str, ...] = collection(
        (), Names("cloud/gpt-oss:120b", pattern=rf"[\w-]+(/{VISIBLE})?", at_least=1)
    )
    WEIGHTS: Mapping[str, float] = collection(
        NOTHING, Dict(Name(), Number(above=0), '{"cloud": 9, "local": 1}')
    )
    AFFINITY: bool | None = scalar(None, OrNone(Switch()), example=True)

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """The endpoint and the model of each target; "" is the endpoint's own model."""
        return tuple(pair_of(target) for target in self.TARGETS)


HEEDLESS: Final = frozenset({"failover", "round_robin", "random"})
"""The strategies that do not look at weights."""

HOMES: Final[Mapping[str, Home]] = {
    **{
        name: Home("an endpoint", 'ENDPOINTS["gpu"]')
        for name in names_of(EndpointSettings)
        if name not in names_of(ServerSettings)
    },
    **{name: Home("a route", 'ROUTES["default"]') for name in names_of(RouteSettings)},
}
"""Where the settings belong that the top level has not."""


def pair_of(target: str) -> tuple[str, str]:
    """Return the endpoint and the model of a target, "" for the endpoint's own."""
    endpoint, _, model = target.partition("/")
    return endpoint, model
