"""What the servers here answer, as bytes made once: constants in, so that only clients cost."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

MODEL: Final = "llama3.2"
ANSWER: Final = (
    "Water is a clear liquid without taste or smell. Each of its molecules has two atoms of "
    "hydrogen and one of oxygen. It freezes at 0 and boils at 100 degrees Celsius, at sea level. "
    "Rivers carry it to the sea, the sun lifts it into the air as vapour, and it comes down again "
    "as rain or snow. Plants, animals and people consist of it for the most part, and none of "
    "them can do without it for long. It dissolves salt and sugar, it carries ships, it drives "
    "mills, and it cools what is hot. Most of the Earth is covered with it, but only a small part "
    "of that is fit to drink."
)
_WORDS: Final = ANSWER.split(" ")
_CREATED: Final = "2026-01-01T12:00:00.123456789Z"
_FACTS: Final = {
    "done": True,
    "done_reason": "stop",
    "total_duration": 60614415,
    "load_duration": 2952375,
    "prompt_eval_count": 9,
    "prompt_eval_duration": 15123876,
    "eval_count": 137,
    "eval_duration": 40772360,
}
_MODEL: Final = {
    "name": f"{MODEL}:latest",
    "model": f"{MODEL}:latest",
    "modified_at": "2026-01-01T12:00:00.123456789Z",
    "size": 16696942,
    "digest": "0" * 64,
    "details": {
        "parent_model": "",
        "format": "gguf",
        "family": "llama",
        "families": ["llama"],
        "parameter_size": "3.2B",
        "quantization_level": "Q4_K_M",
    },
}
_HEAD: Final = (
    "HTTP/1.1 {}\r\nContent-Type: {}\r\nDate: Thu, 01 Jan 2026 12:00:00 GMT\r\n{}\r\n\r\n"
)


def _response(status: str, kind: str, body: str) -> bytes:
    length = f"Content-Length: {len(body.encode())}"
    return (_HEAD.format(status, f"{kind}; charset=utf-8", length) + body).encode()


def _message(content: str) -> dict[str, object]:
    said = {"role": "assistant", "content": content}
    return {"model": MODEL, "created_at": _CREATED, "message": said}


def _text(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _json(value: object) -> bytes:
    return _response("200 OK", "application/json", _text(value))


CHAT: Final = b"POST /api/chat"
RESPONSES: Final = {
    CHAT: _json({**_message(ANSWER), **_FACTS}),
    b"GET /api/version": _json({"version": "0.24.0"}),
    b"GET /api/tags": _json({"models": [_MODEL]}),
}
"""What is answered, by method and path of what is asked."""

NOT_FOUND: Final = _response("404 Not Found", "text/plain", "404 page not found")

STREAM_HEAD: Final = _HEAD.format(
    "200 OK", "application/x-ndjson", "Transfer-Encoding: chunked"
).encode()


def pieces(number: int) -> list[str]:
    """Return the text of so many chunks: a word each, over and over."""
    return [f"{_WORDS[index % len(_WORDS)]} " for index in range(number)]


def chunks(number: int) -> Sequence[bytes]:
    """Return a stream's body: so many lines with text, and one that says it is done."""
    lines = [_chunk({**_message(piece), "done": False}) for piece in pieces(number)]
    return [*lines, _chunk({**_message(""), **_FACTS}) + b"0\r\n\r\n"]


def _chunk(value: object) -> bytes:
    line = f"{_text(value)}\n".encode()
    return b"%x\r\n%b\r\n" % (len(line), line)
