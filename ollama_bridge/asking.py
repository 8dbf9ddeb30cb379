"""From the arguments of ``chat`` and its relatives to a call; wrong ones are told by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, Unpack

from .context import current_request_id
from .core.protocol import ChatRequest, messages_of, options_of
from .core.trip import Caching, Call
from .errors import without_frames
from .rules import A_YEAR, Duration, InvalidError, Name, Rule, Whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .conf import Settings

T = TypeVar("T")


class ChatArguments(TypedDict, total=False):
    """What every call of a batch has in common, see ``OllamaClient.chat``."""

    history: Iterable[Mapping[str, str]]
    model: str | Sequence[str] | None
    temperature: float | None
    max_tokens: int | None
    options: Mapping[str, object] | None
    timeout: float | None
    keep_alive: str | float | None
    using: str | None
    sticky_key: str | None
    cache_ttl: float | None
    cache_scope: str | None


def call_of(
    settings: Settings,
    message: str,
    system_prompt: str | None = None,
    *,
    history: Iterable[Mapping[str, str]] = (),
    model: str | Sequence[str] | None = None,
    temperature: float | None = None,
    max_tokens: int | None = None,
    options: Mapping[str, object] | None = None,
    timeout: float | None = None,
    keep_alive: str | float | None = None,
    using: str | None = None,
    sticky_key: str | None = None,
    cache_ttl: float | None = None,
    cache_scope: str | None = None,
    batch: bool = False,
) -> Call:
    """Return what ``chat`` asks.

    Raises:
        TypeError, ValueError: an argument is wrong; the text names it and never quotes it.
    """
    request = _request(
        settings,
        message,
        system_prompt,
        history=history,
        keep_alive=keep_alive,
        own={"options": options, "temperature": temperature, "max_tokens": max_tokens},
    )
    return Call(
        request=request,
        request_id=current_request_id(),
        using=_using(settings, using),
        models=_models(model),
        sticky_key=_text("sticky_key", sticky_key) or "",
        caching=_caching(settings, cache_ttl, cache_scope),
        timeout=_seconds("timeout", timeout),
        prompt_length=len(message),
        batch=batch,
    )


def stream_of(
    settings: Settings,
    message: str,
    system_prompt: str | None = None,
    *,
    first_token_timeout: float | None = None,
    chunk_timeout: float | None = None,
    max_chunks: int | None = None,
    max_bytes: int | None = None,
    **same: Unpack[ChatArguments],
) -> Call:
    """Return what ``stream`` asks.

    Raises:
        TypeError, ValueError: an argument is wrong; the text names it and never quotes it.
    """
    call = call_of(settings, message, system_prompt, **same)
    return call._replace(
        request=call.request._replace(stream=True),
        first_token_timeout=_seconds("first_token_timeout", first_token_timeout),
        chunk_timeout=_seconds("chunk_timeout", chunk_timeout),
        max_chunks=settings.MAX_CHUNKS if max_chunks is None else _count("max_chunks", max_chunks),
        max_bytes=None if max_bytes is None else _count("max_bytes", max_bytes),
    )


def calls_of(
    settings: Settings, messages: Iterable[str], system_prompt: str | None, same: ChatArguments
) -> list[Call]:
    """Return what a batch asks.

    Raises:
        TypeError, ValueError: an argument is wrong, before any of them is sent.
    """
    if isinstance(messages, str):
        raise TypeError("messages must be a list of messages, not one of them: use chat()")
    for name in same.keys() - ChatArguments.__annotations__.keys():
        raise TypeError(f"a batch of chats takes no argument {name!r}")
    if isinstance(same.get("history"), Iterator):  # each of the calls has it whole
        same = {**same, "history": tuple(same["history"])}
    calls = []
    for number, message in enumerate(messages):
        try:
            calls.append(call_of(settings, message, system_prompt, **same, batch=True))
        except (TypeError, ValueError) as wrong:
            raise type(wrong)(f"messages[{number}]: {wrong}") from None
    return calls


def most_at_once(settings: Settings, max_concurrency: int | None) -> int:
    """Return how many calls of a batch are made at once: as many as the server serves, else 4."""
    if max_concurrency is None:
        return settings.MAX_CONCURRENCY or 4
    return _count("max_concurrency", max_concurrency)


def _request(
    settings: Settings,
    message: str,
    system_prompt: str | None,
    *,
    history: Iterable[Mapping[str, str]],
    keep_alive: str | float | None,
    own: Mapping[str, Any],
) -> ChatRequest:
    if system_prompt is None:
        system_prompt = settings.SYSTEM_PROMPT
    if keep_alive is not None:
        keep_alive = _given("keep_alive", Duration(), keep_alive, '300 or "5m"')
    try:
        return ChatRequest(
            messages=messages_of(message, system_prompt, history),
            options=options_of(settings.OPTIONS, **own),
            keep_alive=settings.KEEP_ALIVE if keep_alive is None else keep_alive,
        )
    except (TypeError, ValueError) as wrong:
        raise without_frames(wrong) from None


def _using(settings: Settings, using: str | None) -> str | None:
    if using is not None and using not in settings.names:
        known = ", ".join(settings.names)
        raise ValueError(f"using names no route and no endpoint. Type one of: {known}")
    return using


def _models(model: str | Sequence[str] | None) -> tuple[str, ...]:
    if model is None:
        return ()
    if isinstance(model, (str, bytes)) or not isinstance(model, Sequence):
        return (_model("model", model),)
    if not model:
        raise ValueError("model is an empty list. Type at least one name, or leave it out")
    cleaned = [_model(f"model[{number}]", each) for number, each in enumerate(model)]
    return tuple(dict.fromkeys(cleaned))


def _model(name: str, model: object) -> str:
    return _given(name, Name(), model, '"llama3.2"')


def _caching(settings: Settings, ttl: float | None, scope: str | None) -> Caching | None:
    seconds, scope = _seconds("cache_ttl", ttl), _text("cache_scope", scope)
    if seconds is None and scope is None:
        return None
    if seconds is None:
        raise ValueError(
            "cache_scope needs cache_ttl, the seconds for which an answer is kept. "
            "Type for example cache_ttl=300, or leave cache_scope out"
        )
    if scope is None or not scope.strip():
        raise ValueError(
            "cache_scope must say who may have the answer of this call, too, if there is a "
            'cache_ttl. Type for example cache_scope=f"user:{user.pk}", or "shared" for everybody'
        )
    if settings.CACHE is None:
        raise ValueError(
            'cache_ttl needs a cache, and CACHE is None. Type CACHE = "default", '
            "or leave cache_ttl out"
        )
    return Caching(float(seconds), scope)


def _text(name: str, value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    kind = type(value).__name__
    raise TypeError(f'{name} must be a string, not {kind}. Type for example f"user:{{user.pk}}"')


def _given(name: str, rule: Rule[T], value: object, example: str) -> T:
    """Return an argument as its rule has it; never quote it, it may be a prompt in its place."""
    try:
        return rule.clean(value)
    except InvalidError:
        raise ValueError(f"{name} has a wrong value. Type for example {example}") from None


def _seconds(name: str, value: float | None) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {type(value).__name__}")
    if not 0 < value <= A_YEAR:
        raise ValueError(f"{name} must be more than 0 seconds, and at most a year")
    return value


def _count(name: str, value: int) -> int:
    return _given(name, Whole(at_least=1), value, "100")
