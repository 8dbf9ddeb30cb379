"""Server-sent events, read as a browser reads them.

https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

_LINE_END = re.compile(r"\r\n|\n|\r")


class Event(NamedTuple):
    name: str
    data: Any


def parse(stream: bytes) -> list[Event]:
    """Return the events of a whole stream; what is neither event nor comment fails the test."""
    found: list[Event] = []
    name = "message"
    data: list[str] = []
    lines = _LINE_END.split(stream.decode())
    assert lines.pop() == "", "the last line has no end"
    for line in lines:
        field, colon, value = line.partition(":")
        value = value.removeprefix(" ")
        match field, colon:
            case "", "" if data:
                found.append(Event(name, json.loads("\n".join(data))))
                name, data = "message", []
            case "event", ":":
                name = value
            case "data", ":":
                data.append(value)
            case _:
                assert not field, f"no field of an event: {field!r}"
    assert not data, "the last event has no end"
    return found


def comments(stream: bytes) -> list[str]:
    """Return what clients ignore: the heartbeats."""
    return [line for line in _LINE_END.split(stream.decode()) if line.startswith(":")]


def texts(events: list[Event], name: str = "delta") -> str:
    """Return the text of all events of a name."""
    return "".join(event.data["text"] for event in events if event.name == name)
