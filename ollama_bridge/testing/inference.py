"""From a chat or generate request to its answer."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import checks, clock, schema, text
from .catalogue import FakeModel
from .generation import Generation, load_reply
from .gojson import RefusalError
from .outgoing import Reply
from .recorded import last_user_message
from .world import World

Fields = Mapping[str, Any]

_CONTEXT = 4096
_TEMPLATE_TOKENS = 8
_THOUGHT = "The simulator thinks before it answers."


@dataclass(frozen=True, slots=True)
class _Question:
    fields: Fields
    prompt: str
    size: int
    """Tokens of the whole prompt with its template."""
    asked: bool
    """False where the request only loads or unloads."""
    chat: bool

    @property
    def model(self) -> str:
        return str(self.fields.get("model") or "")

    @property
    def stream(self) -> bool:
        return self.fields.get("stream") is not False

    @property
    def options(self) -> Fields:
        return self.fields.get("options") or {}

    @property
    def context(self) -> int:
        """Tokens that fit; a wrong number becomes a tiny context, as on the real server."""
        return max(4, int(self.options.get("num_ctx") or _CONTEXT))

    @property
    def limit(self) -> int | None:
        """The most tokens of the answer."""
        wished = int(self.options.get("num_predict") or 0)
        limits = [wished] if wished > 0 else []
        if self.fields.get("shift") is False:
            limits.append(self.context - self.size + 1)
        return min(limits, default=None)


def required_model(fields: Fields) -> str:
    """Return the name of the model.

    Raises:
        RefusalError: 400 where there is none.
    """
    name = str(fields.get("model") or "")
    if not name:
        raise RefusalError(400, "model is required")
    return name


def chat(world: World, fields: Fields) -> Reply:
    """Answer `/api/chat`.

    Raises:
        RefusalError: the server would refuse it.
    """
    checks.check_chat(fields)
    required_model(fields)
    messages = fields.get("messages") or []
    size = sum(text.count(str(message.get("content") or "")) for message in messages)
    prompt = last_user_message(messages)
    return _infer(
        world, _Question(fields, prompt, size + _TEMPLATE_TOKENS, bool(messages), chat=True)
    )


def generate(world: World, fields: Fields) -> Reply:
    """Answer `/api/generate`.

    Raises:
        RefusalError: the server would refuse it.
    """
    checks.check_generate(fields)
    prompt = str(fields.get("prompt") or "")
    size = text.count(prompt) + (0 if fields.get("raw") else _TEMPLATE_TOKENS)
    return _infer(world, _Question(fields, prompt, size, bool(prompt), chat=False))


def _infer(world: World, question: _Question) -> Reply:
    fields = question.fields
    checks.check_think(fields.get("think"))
    seconds = clock.keep_alive(fields.get("keep_alive"))
    model = world.find(question.model)
    if not question.asked and seconds == 0:
        world.load(model, 0)
        return load_reply(question.model, "unload", chat=question.chat)
    checks.check_capabilities(model, fields)
    checks.check_options(question.options)
    world.load(model, seconds)
    if not question.asked:
        return load_reply(question.model, "load", chat=question.chat)
    checks.check_format(fields.get("format"), stream=question.stream)
    answer = _answer(world, model, question)
    return answer.reply(stream=question.stream, rate=world.rate)


def _answer(world: World, model: FakeModel, question: _Question) -> Generation:
    if question.size > question.context and question.fields.get("truncate") is False:
        raise RefusalError(400, "the input length exceeds the context length")
    thinks = "thinking" in model.capabilities and question.fields.get("think") is not False
    thinking = text.tokens(_THOUGHT) if thinks else []
    calls = _tool_calls(question.fields)
    content = [] if calls else text.tokens(_said(world, question))
    kept = (thinking + content)[: question.limit]
    return Generation(
        model=question.model,
        chat=question.chat,
        thinking=kept[: len(thinking)],
        content=kept[len(thinking) :],
        tool_calls=calls,
        reason="stop" if len(kept) == len(thinking) + len(content) else "length",
        prompt_count=min(question.size, question.context),
        context=_context(question, len(kept)),
    )


def _said(world: World, question: _Question) -> str:
    said = world.say(question.prompt, question.fields.get("format"))
    for stop in question.options.get("stop") or ():
        said = said.partition(str(stop))[0]
    return said


def _context(question: _Question, made: int) -> list[int] | None:
    """Return the token numbers that generate hands back, not in raw mode."""
    if question.chat or question.fields.get("raw"):
        return None
    return list(range(1, question.size + made + 1))


def _tool_calls(fields: Fields) -> list[dict[str, object]]:
    """Return a call of the first tool, unless the last message is a tool's result."""
    tools = fields.get("tools") or []
    if not tools or fields["messages"][-1].get("role") == "tool":
        return []
    function = tools[0].get("function", {})
    parameters = function.get("parameters", {})
    name = {"index": 0, "name": function.get("name", "")}
    arguments = schema.sample(parameters, parameters)
    return [{"id": f"call_{secrets.token_hex(4)}", "function": {**name, "arguments": arguments}}]
