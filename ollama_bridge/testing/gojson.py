"""JSON as Go's encoding/json writes and refuses it."""

import json
import re
from collections.abc import Mapping
from typing import Any

_HTML = re.compile("[<>&\u2028\u2029]")
_DECODER = json.JSONDecoder()
_LITERALS = {"n": "null", "t": "true", "f": "false"}
_PLACES = (
    ("Expecting property name", "looking for beginning of object key string"),
    ("Expecting ':'", "after object key"),
    ("Expecting ','", "after object key:value pair"),
    ("", "looking for beginning of value"),
)
_KINDS = {
    str: "string",
    bool: "bool",
    int: "number",
    float: "number",
    list: "array",
    dict: "object",
}

type_name = _KINDS.__getitem__


class RefusalError(Exception):
    """The request is refused with `{"error": text}`.

    Args:
        status: The HTTP status.
        text: The server's own words.
        streamed: The refusal came from the runner, below the streaming code: no charset, chunked.
    """

    def __init__(self, status: int, text: str, *, streamed: bool = False) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.streamed = streamed


def dump(value: object) -> bytes:
    """Return compact UTF-8 JSON; `<`, `>` and `&` are escaped as Go does."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return _HTML.sub(lambda found: f"\\u{ord(found[0]):04x}", text).encode("utf-8", "replace")


def load(body: bytes, struct: str) -> dict[str, Any]:
    """Return the object in `body` with lower-case keys; what follows it is ignored, as by Go.

    Raises:
        RefusalError: status 400 with Go's text.
    """
    text = body.decode("utf-8", "replace").lstrip()
    if not text:
        raise RefusalError(400, "missing request body")
    try:
        value, _ = _DECODER.raw_decode(text)
    except json.JSONDecodeError as error:
        raise RefusalError(400, syntax_text(text, error)) from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        kind = type_name(type(value))
        raise RefusalError(400, f"json: cannot unmarshal {kind} into Go value of type {struct}")
    return {key.lower(): item for key, item in value.items()}


def syntax_text(text: str, error: json.JSONDecodeError) -> str:
    """Return what Go says about a syntax error."""
    rest = text[error.pos :]
    if not rest.strip() or error.msg.startswith("Unterminated"):
        return "unexpected EOF"
    literal = _LITERALS.get(rest[0], "")
    for expected, found in zip(literal, rest, strict=False):
        if expected != found:
            return f"invalid character '{found}' in literal {literal} (expecting '{expected}')"
    place = next(place for start, place in _PLACES if error.msg.startswith(start))
    return f"invalid character '{rest[0]}' {place}"


def check_types(
    fields: Mapping[str, object], types: Mapping[str, tuple[type, str]], struct: str
) -> None:
    """Refuse the first field whose JSON type does not fit its Go type; null always fits.

    Raises:
        RefusalError: status 400 with Go's text.
    """
    for name, value in fields.items():
        expected = types.get(name)
        if expected is None or value is None or type(value) is expected[0]:
            continue
        kind = type_name(type(value))
        raise RefusalError(
            400,
            f"json: cannot unmarshal {kind} into Go struct field "
            f"{struct}.{name} of type {expected[1]}",
        )
