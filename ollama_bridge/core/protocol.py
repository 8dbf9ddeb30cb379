"""Ollama's chat API as bytes and values: no session, no clock, no policy.

Wire facts: docs/api.md of ollama/ollama, and replies recorded from Ollama 0.24.0.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, cast

from .names import canonical
from .types import Request, Usage

CHAT = "/api/chat"
VERSION = Request("GET", "/api/version")
TAGS = Request("GET", "/api/tags")
PS = Request("GET", "/api/ps")

ROLES = ("user", "assistant", "system")
_SURROGATE = re.compile("[\ud800-\udfff]")
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_decode = json.JSONDecoder().raw_decode
_WHITE_SPACE = " \t\n\r"
_NESTING = 3
_LARGEST = 1.797e308  # what a float can hold


_NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})
_NO_USAGE = Usage()


class ChatRequest(NamedTuple):
    """What to ask, still without the model's name, which depends on the endpoint."""

    messages: tuple[Mapping[str, str], ...]
    options: Mapping[str, Any] = _NO_OPTIONS
    keep_alive: str | float | None = None
    stream: bool = False

    def __repr__(self) -> str:
        """Return nothing of what is asked, for logs and error reports."""
        return f"ChatRequest(keep_alive={self.keep_alive!r}, stream={self.stream!r})"

    def to(self, model: str) -> Request:
        """Return the HTTP request for this model."""
        payload: dict[str, Any] = {
            "model": model,
            "messages": self.messages,
            "stream": self.stream,
        }
        if self.options:
            payload["options"] = self.options
        if self.keep_alive is not None:
            payload["keep_alive"] = self.keep_alive
        return Request("POST", CHAT, _ENCODER.encode(payload).encode())


class Answer(NamedTuple):
    """One reply of ``/api/chat``, or one line of its stream.

    ``truncated`` tells that our own bounds ended it; what only the end tells is not known then.
    """

    text: str = ""
    thinking: str = ""
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    done: bool = False
    model: str = ""
    done_reason: str = ""
    usage: Usage = _NO_USAGE
    truncated: bool = False

    def __repr__(self) -> str:
        """Return nothing of the answer, for logs and error reports."""
        return f"Answer(done={self.done!r})"

    @classmethod
    def parse(cls, reply: Mapping[str, Any]) -> Answer | None:
        """Read a reply's fields; None where it is not the shape of a chat reply."""
        message = reply.get("message")
        if not isinstance(message, dict):
            return None
        text, thinking = _string(message, "content"), _string(message, "thinking")
        tool_calls = _objects(message, "tool_calls") if "tool_calls" in message else ()
        model = _string(reply, "model")
        if reply.get("done") is not True:
            return cls(text, thinking, tool_calls, model=model)
        usage = Usage(
            prompt_tokens=_count(reply, "prompt_eval_count"),
            completion_tokens=_count(reply, "eval_count"),
        )
        reason = _string(reply, "done_reason")
        return cls(text, thinking, tool_calls, True, model, reason, usage)  # noqa: FBT003


def text_of(reply: Mapping[str, Any]) -> str:
    """Return the text of a line that holds nothing else, "" of any other: see ``Answer.parse``.

    Nearly all lines of a stream are such, and this is the shorter way.
    """
    message = reply.get("message")
    if reply.get("done") is not False or "error" in reply or type(message) is not dict:
        return ""
    if "thinking" in message or "tool_calls" in message:
        return ""
    return _string(message, "content")


def messages_of(
    message: str, system_prompt: str, history: Iterable[Mapping[str, str]]
) -> tuple[Mapping[str, str], ...]:
    """Return the conversation as the API wants it: system prompt, history, message.

    Raises:
        TypeError, ValueError: an argument is wrong; the text names it and never quotes it.
    """
    messages: list[Mapping[str, str]] = []
    if system_prompt != "":
        messages.append(_message("system", system_prompt, "system_prompt"))
    if history != ():
        messages.extend(_history(history))
    if isinstance(message, str) and not message.strip():
        raise ValueError("message must not be empty")
    messages.append(_message("user", message, "message"))
    return tuple(messages)


def options_of(
    defaults: Mapping[str, Any],
    options: Mapping[str, Any] | None,
    *,
    temperature: float | None,
    max_tokens: int | None,
) -> Mapping[str, Any]:
    """Return the model options of a call: its own over the settings'.

    Raises:
        TypeError, ValueError: an argument is wrong, or says the same thing twice.
    """
    own = _options("options", options)
    if temperature is not None:
        _once("temperature", "temperature", own)
        own["temperature"] = _number("temperature", temperature, least=0)
    if max_tokens is not None:
        _once("max_tokens", "num_predict", own)
        # num_predict 0 means "without limit" to Ollama 0.24, the opposite of what 0 says here.
        own["num_predict"] = _whole("max_tokens", max_tokens, least=1)
    return {**defaults, **own}


def decode_object(body: bytes) -> dict[str, Any] | None:
    """Return the JSON object in a body, or None where there is none.

    A ``JSONDecodeError`` carries the whole document, an answer perhaps, so none leaves this place.
    """
    try:
        # Not loads(): it looks for other encodings than UTF-8, and twice for white space.
        text = str(body, "utf-8", "surrogatepass").strip(_WHITE_SPACE)
        value, end = _decode(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and end == len(text) else None


def error_of(reply: Mapping[str, Any]) -> str | None:
    """Return the text of the ``error`` of a JSON reply, or None where it has none.

    The text may be nested JSON of llama-server, or an object as on ``/v1``. It may quote a prompt
    or an answer, so it is for recognising only and must not be shown.
    """
    value: Any = reply.get("error")
    if value is None or value == "":
        return None
    for _ in range(_NESTING):
        if isinstance(value, str) and value.lstrip().startswith("{"):
            value = decode_object(value.encode(errors="replace")) or str(value)
        if not isinstance(value, Mapping):
            break
        value = value.get("message") or value.get("error") or ""
    return value if isinstance(value, str) else ""


def model_names(reply: Mapping[str, Any]) -> frozenset[str]:
    """Return the canonical names in a reply of ``/api/tags`` or ``/api/ps``."""
    return frozenset(
        canonical(_string(item, "name"))
        for item in _objects(reply, "models")
        if isinstance(item.get("name"), str)
    )


def version_of(reply: Mapping[str, Any]) -> str:
    """Return the version in a reply of ``/api/version``, "" where there is none."""
    return _string(reply, "version")


class LineDecoder:
    """Cuts a stream into lines at newlines only, wherever the network cut it into pieces.

    Text may hold U+0085 and U+2028, at which ``splitlines`` would tear a JSON string apart.
    """

    __slots__ = ("_pieces",)

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines completed by ``data``, without blank ones."""
        lines = data.split(b"\n")
        rest = lines.pop()
        if lines and self._pieces:
            lines[0] = b"".join((*self._pieces, lines[0]))
            self._pieces.clear()
        if rest:
            self._pieces.append(rest)
        return [line for line in lines if line.strip()]

    def finish(self) -> list[bytes]:
        """Return what is left at the end: a last line that had no newline."""
        return self.feed(b"\n")


def _message(role: str, content: object, name: str) -> Mapping[str, str]:
    if not isinstance(content, str):
        raise TypeError(f"{name} must be a string, not {type(content).__name__}")
    if not content.isascii() and _SURROGATE.search(content):
        raise ValueError(f"{name} holds a lone surrogate, which is no Unicode text")
    # A plain str: the encoder would call a subclass's methods, and a ChatReply is one.
    return {"role": role, "content": str(content)}


def _history(history: object) -> Iterator[Mapping[str, str]]:
    if isinstance(history, (str, Mapping)) or not isinstance(history, Iterable):
        raise TypeError("history must be a list of mappings with role and content")
    for number, item in enumerate(history):
        yield _history_message(item, f"history[{number}]")


def _history_message(item: object, name: str) -> Mapping[str, str]:
    if not isinstance(item, Mapping):
        raise TypeError(f"{name} must be a mapping with role and content")
    unknown = sorted(map(str, item.keys() - {"role", "content"}))
    if unknown:
        raise ValueError(f"{name} has unknown keys: {', '.join(unknown)}")
    role = item.get("role")
    if role not in ROLES:
        raise ValueError(f"{name}.role must be one of {', '.join(ROLES)}")
    return _message(cast("str", role), item.get("content"), f"{name}.content")


def _options(name: str, value: Mapping[str, Any] | None) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise TypeError(f"{name} must be a mapping with strings as keys")
    if not _is_json(dict(value)):
        raise ValueError(f"{name} must hold JSON values only, and Unicode text")
    return dict(value)


def _is_json(value: dict[str, Any]) -> bool:
    try:
        _ENCODER.encode(value).encode()
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _once(argument: str, option: str, options: Mapping[str, Any]) -> None:
    if option in options:
        raise ValueError(f"{argument} is given twice: as an argument and in options[{option!r}]")


def _number(name: str, value: object, *, least: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
    if not (least <= value <= _LARGEST):
        raise ValueError(f"{name} must be at least {least}, and finite")
    return value


def _whole(name: str, value: object, *, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}")
    return value


def _string(reply: Mapping[str, Any], key: str) -> str:
    value = reply.get(key)
    return _whole_text(value) if isinstance(value, str) else ""


def _whole_text(text: str) -> str:
    """Put U+FFFD for half characters: JSON can escape them, but nobody could send or store them."""
    if text.isascii() or not _SURROGATE.search(text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _count(reply: Mapping[str, Any], key: str) -> int:
    value = reply.get(key)
    return value if isinstance(value, int) and value >= 0 else 0


def _objects(reply: Mapping[str, Any], key: str) -> tuple[Mapping[str, Any], ...]:
    value = reply.get(key)
    items = value if isinstance(value, list) else []
    return tuple(item for item in items if isinstance(item, Mapping))
