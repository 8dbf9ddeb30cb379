"""What the model says, as the one object or the lines that the server sends."""

from collections.abc import Iterator
from dataclasses import dataclass

from . import clock, gojson
from .outgoing import NDJSON, Reply, json_reply

_LOADED_AT_ONCE = 1_204_952
_PROMPT_EVAL = 3_192_000
_PER_TOKEN = 1_000_000
_TOKENS_OF_A_CALL = 7


@dataclass(frozen=True, slots=True)
class Generation:
    """One answer, token by token."""

    model: str
    """As the client spelled it."""
    chat: bool
    content: list[str]
    thinking: list[str]
    tool_calls: list[dict[str, object]]
    reason: str
    prompt_count: int
    context: list[int] | None = None

    @property
    def count(self) -> int:
        """Tokens made, the end of the text being one where there is no other."""
        calls = _TOKENS_OF_A_CALL * len(self.tool_calls)
        return max(1, len(self.thinking) + len(self.content) + calls)

    def reply(self, *, stream: bool, rate: float | None) -> Reply:
        """Return the answer, `rate` tokens a second (None: at once)."""
        token = 1 / rate if rate else 0.0
        if not stream:
            return json_reply(self._whole(token), wait=token * self.count)
        lines = tuple(gojson.dump(line) + b"\n" for line in self._lines(token))
        return Reply(200, lines, NDJSON, chunked=True, wait=token, pace=token)

    def _whole(self, token: float) -> dict[str, object]:
        extra: dict[str, object] = {}
        if self.thinking:
            extra["thinking"] = "".join(self.thinking)
        if self.tool_calls:
            extra["tool_calls"] = self.tool_calls
        return {**self._delta("".join(self.content), extra), **self._ending(token)}

    def _lines(self, token: float) -> Iterator[dict[str, object]]:
        for piece in self.thinking:
            yield {**self._delta("", {"thinking": piece}), "done": False}
        if self.tool_calls:
            yield {**self._delta("", {"tool_calls": self.tool_calls}), "done": False}
        for piece in self.content:
            yield {**self._delta(piece, {}), "done": False}
        yield {**self._delta("", {}), **self._ending(token)}

    def _delta(self, text: str, extra: dict[str, object]) -> dict[str, object]:
        return delta(self.model, text, extra, chat=self.chat)

    def _ending(self, token: float) -> dict[str, object]:
        spent = int(token * 1e9 * self.count) or _PER_TOKEN * self.count
        ending: dict[str, object] = {"done": True, "done_reason": self.reason}
        if self.context is not None:
            ending["context"] = self.context
        ending |= {
            "total_duration": _LOADED_AT_ONCE + _PROMPT_EVAL + spent,
            "load_duration": _LOADED_AT_ONCE,
            "prompt_eval_count": self.prompt_count,
            "prompt_eval_duration": _PROMPT_EVAL,
            "eval_count": self.count,
        }
        # Go leaves out a zero, and the first token is not timed.
        return {**ending, "eval_duration": spent} if self.count > 1 else ending


def delta(model: str, text: str, extra: dict[str, object], *, chat: bool) -> dict[str, object]:
    """Return the fields that every reply and every line begins with."""
    start: dict[str, object] = {"model": model, "created_at": clock.now()}
    if chat:
        return {**start, "message": {"role": "assistant", "content": text, **extra}}
    return {**start, "response": text, **extra}


def load_reply(model: str, reason: str, *, chat: bool) -> Reply:
    """Return the answer to a request without a prompt: the model was loaded or unloaded."""
    return json_reply({**delta(model, "", {}, chat=chat), "done": True, "done_reason": reason})
