"""What the fake remembers of a request."""

import json
from dataclasses import dataclass, field
from typing import Any, cast


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """One request as it arrived; its repr shows neither body nor headers (prompts, keys)."""

    method: str
    path: str
    target: str = field(repr=False)
    headers: dict[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    number: int
    """1 for the first request that the server got."""
    attempt: int
    """1 for the first request with exactly this path and body, 2 for its repetition, …"""
    connection: int
    """Which accepted connection brought it; 1 is the first."""
    turn: int
    """1 for the first request on its connection; more means that the connection was reused."""
    at: float = field(repr=False)
    """`time.monotonic()` when it was complete."""

    @property
    def json(self) -> dict[str, Any]:
        """The body as an object.

        Raises:
            ValueError: the body is not JSON.
        """
        return cast("dict[str, Any]", json.loads(self.body))

    @property
    def model(self) -> str:
        return str(self._fields().get("model", ""))

    @property
    def prompt(self) -> str:
        """The last user message of a chat, or the prompt of a generate; else empty."""
        fields = self._fields()
        messages = fields.get("messages")
        if isinstance(messages, list):
            return last_user_message(messages)
        return str(fields.get("prompt") or "")

    def _fields(self) -> dict[str, Any]:
        try:
            fields = self.json
        except ValueError:
            return {}
        return fields if isinstance(fields, dict) else {}


def last_user_message(messages: list[Any]) -> str:
    """Return the text of the last message with role `user`, else an empty string."""
    for message in reversed(messages):
        if isinstance(message, dict) and str(message.get("role", "")).lower() == "user":
            return str(message.get("content") or "")
    return ""
