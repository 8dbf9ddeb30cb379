"""Reading an answer as it arrives."""

from __future__ import annotations

import gzip
import json
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Iterator
    from http.client import HTTPConnection, HTTPResponse

HEARTBEAT = "heartbeat"


class Event(NamedTuple):
    """A server-sent event, or a comment, whose name is ``HEARTBEAT``.

    Attributes:
        at: ``time.monotonic()`` when it was complete.
    """

    name: str
    data: Any
    at: float

    @property
    def text(self) -> str:
        text: str = self.data["text"]
        return text


class Answer:
    """A response whose body is not read yet; closing it closes the connection."""

    def __init__(self, connection: HTTPConnection, response: HTTPResponse) -> None:
        self._connection = connection
        self._response = response
        self._events = self._read_events()
        self.status = response.status
        self.headers = response.headers

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._response.close()
        self._connection.close()

    def text(self) -> str:
        body = self._response.read()
        is_packed = self.headers["Content-Encoding"] == "gzip"
        return (gzip.decompress(body) if is_packed else body).decode()

    def json(self) -> Any:
        return json.loads(self.text())

    def event(self) -> Event:
        """Wait for the next event and return it."""
        return next(self._events)

    def events(self) -> list[Event]:
        """Wait for the end, and return all events that are left."""
        return list(self._events)

    def names(self) -> list[str]:
        """As ``events``, but only the names, and each that comes several times in a row once."""
        names = [event.name for event in self.events()]
        return [name for name, before in zip(names, ["", *names], strict=False) if name != before]

    def _read_events(self) -> Iterator[Event]:
        waiting = b""
        while piece := self._response.read1():
            *events, waiting = (waiting + piece).split(b"\n\n")
            for event in events:
                yield _parsed(event.decode(), time.monotonic())
        assert waiting == b"", "the last event is not complete"


def _parsed(event: str, at: float) -> Event:
    if event.startswith(":"):
        return Event(HEARTBEAT, None, at)
    first, second = event.split("\n")
    return Event(first.removeprefix("event: "), json.loads(second.removeprefix("data: ")), at)
