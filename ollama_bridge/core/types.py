"""The values that travel through the core: frozen, and silent about prompts, answers and keys."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Self

from .names import mark_of, without_cloud

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..errors import OllamaBridgeError
    from .breaker import BreakerPolicy
    from .retry import RetryPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One request to one endpoint, or the refusal of it; ``code`` is "" where it was answered."""

    endpoint: str
    model: str
    code: str
    status: int | None
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens counted by the server; 0 where it left them out."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def to_dict(self) -> dict[str, int]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.total_tokens,
        }


class Price(NamedTuple):
    """What a million tokens cost, in whatever currency all endpoints have in common."""

    prompt: float
    completion: float


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaPolicy:
    """How many calls a day an account allows, None where nobody says, and when to warn of it."""

    limit: int | None = None
    warning: float = 0.8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Endpoint:
    """One Ollama server as the settings describe it. Times are in seconds, sizes in bytes.

    ``models`` maps our names of models to the server's, and ``prices`` has those of its models.
    ``cooldown_seconds`` is for how long it is left alone where it says that an allowance is used
    up, but not until when.
    """

    name: str
    base_url: str
    model: str
    api_key: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    proxy: str | None = field(default=None, repr=False)
    verify: bool | str = True
    timeout: float
    first_token_timeout: float | None = None
    chunk_timeout: float
    connect_timeout: float
    max_response_bytes: int
    pool_maxsize: int
    max_concurrency: int | None = None
    max_waiting: int | None = None
    retry: RetryPolicy
    breaker: BreakerPolicy
    weight: float = 1.0
    models: Mapping[str, str] = field(default_factory=dict)
    prices: Mapping[str, Price] = field(default_factory=dict)
    is_cloud: bool = False
    cooldown_seconds: float = 600.0
    quota: QuotaPolicy = QuotaPolicy()

    @property
    def is_secure(self) -> bool:
        return self.base_url.startswith("https:")

    @property
    def identity(self) -> str:
        """A digest of the server and the account there, which tells neither."""
        return sha256(f"{self.base_url}\0{self.api_key or ''}".encode()).hexdigest()

    def name_of(self, model: str) -> str:
        """Return what this endpoint calls a model; the cloud's own names have no suffix there."""
        found = self.models.get(model, model)
        return without_cloud(found) if self.is_cloud else found

    def price_of(self, model: str) -> float:
        """Return what a million tokens of the prompt and as many of the answer cost together."""
        price = self.prices.get(model)
        return 0.0 if price is None else price.prompt + price.completion


@dataclass(frozen=True, slots=True)
class Target:
    """Where a call goes: an endpoint, and the model's name there; ``mark`` is its name's hash."""

    endpoint: Endpoint
    model: str
    mark: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "mark", mark_of(self.name))

    @property
    def name(self) -> str:
        return f"{self.endpoint.name}/{self.model}"


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request of the Ollama API, relative to an endpoint's base URL."""

    method: str
    path: str
    body: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of an HTTP response. ``headers`` finds names in any case."""

    status: int
    headers: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Response(Head):
    """A whole HTTP response."""

    body: bytes = field(repr=False)


class Delta(str):
    """A piece of a streamed answer: a ``str``, the next of its text.

    It is empty, and so false, where the model only thinks or wants tools called: then look at

    Attributes:
        thinking: the next of what a thinking model thinks.
        tool_calls: what the model wants called.
    """

    thinking: str
    tool_calls: tuple[Mapping[str, Any], ...]

    __slots__ = ("thinking", "tool_calls")

    def __new__(
        cls, text: str = "", thinking: str = "", tool_calls: tuple[Mapping[str, Any], ...] = ()
    ) -> Self:
        self = super().__new__(cls, text)
        _set_thinking(self, thinking)
        _set_tool_calls(self, tool_calls)
        return self

    def __repr__(self) -> str:
        """Return nothing of the answer, for logs and error reports."""
        return f"<Delta of {len(self)} characters>"

    @property
    def text(self) -> str:
        return str(self)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a Delta is read-only: cannot set {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a Delta is read-only: cannot delete {name!r}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.thinking, self.tool_calls)


# The descriptors of the slots, which know nothing of "read-only": a stream makes many of these.
_set_thinking = vars(Delta)["thinking"].__set__
_set_tool_calls = vars(Delta)["tool_calls"].__set__


class ChatReply(str):
    """The text of an answer, which is a ``str``, with read-only facts about how it came.

    Equality, hash and repr are those of ``str``. It pickles and copies. With tool calls only,
    the text is empty: test ``reply.tool_calls``.

    Attributes:
        model: the model's name as the server gave it.
        endpoint: name of the endpoint that answered.
        source: "ollama", "fallback" or "cache".
        reliability: "high", or "low" for a fallback.
        usage: tokens, see ``Usage``.
        latency: seconds from the call to the answer, with every wait and retry.
        done_reason: "stop", "length", "load" or "unload".
        truncated: whether our own bounds ended the answer.
        attempts: every attempt, oldest first; the last one answered.
        request_id: the identifier that the logs carry.
        thinking: what a thinking model thought.
        tool_calls: what the model wants called.
        error: why this is a fallback, else None.
    """

    model: str
    endpoint: str
    source: str
    reliability: str
    usage: Usage
    latency: float
    done_reason: str
    truncated: bool
    attempts: tuple[Attempt, ...]
    request_id: str
    thinking: str
    tool_calls: tuple[Mapping[str, Any], ...]
    error: OllamaBridgeError | None

    __slots__ = (
        "attempts",
        "done_reason",
        "endpoint",
        "error",
        "latency",
        "model",
        "reliability",
        "request_id",
        "source",
        "thinking",
        "tool_calls",
        "truncated",
        "usage",
    )

    def __new__(
        cls,
        text: str = "",
        *,
        model: str = "",
        endpoint: str = "",
        source: str = "ollama",
        reliability: str = "high",
        usage: Usage | None = None,
        latency: float = 0.0,
        done_reason: str = "",
        truncated: bool = False,
        attempts: tuple[Attempt, ...] = (),
        request_id: str = "",
        thinking: str = "",
        tool_calls: tuple[Mapping[str, Any], ...] = (),
        error: OllamaBridgeError | None = None,
    ) -> Self:
        self = super().__new__(cls, text)
        facts = (
            *(attempts, done_reason, endpoint, error, latency, model, reliability, request_id),
            *(source, thinking, tool_calls, truncated, usage or Usage()),
        )
        for name, value in zip(cls.__slots__, facts, strict=True):
            super(ChatReply, self).__setattr__(name, value)
        return self

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a ChatReply is read-only: cannot set {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a ChatReply is read-only: cannot delete {name!r}")

    def _facts(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild_reply, (type(self), str(self), self._facts())

    def to_dict(self) -> dict[str, Any]:
        """Return text and facts as plain JSON values; ``error`` becomes its code."""
        return {
            **self._facts(),
            "text": str(self),
            "usage": self.usage.to_dict(),
            "attempts": [asdict(attempt) for attempt in self.attempts],
            "tool_calls": [dict(call) for call in self.tool_calls],
            "error": self.error.code if self.error else None,
        }


def _rebuild_reply(cls: type[ChatReply], text: str, facts: dict[str, Any]) -> ChatReply:
    return cls(text, **facts)
