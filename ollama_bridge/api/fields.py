"""Fields for what a client sends. JSON types are taken at their word: no number becomes text.

Their sentences say what is wrong and what to do; ``errors.py`` puts the field's name before them.
No sentence repeats what was sent.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, ClassVar

from rest_framework import serializers
from rest_framework.fields import empty

from .. import conf
from ..rules import InvalidError, Name

if TYPE_CHECKING:
    from collections.abc import Mapping

_UNCLEAN = {
    "control": re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]"),  # tab and line breaks are welcome
    "surrogate": re.compile(r"[\ud800-\udfff]"),
}
_LONGEST_NAME = 255
_KINDS = {bool: "true or false", str: "text", list: "a list", dict: "an object", type(None): "null"}


def kind_of(value: object) -> str:
    """Return what a JSON value is, in words."""
    return _KINDS.get(type(value), "a number")


def is_clean(text: str) -> bool:
    """Tell whether a text is free of control characters and of halves of characters."""
    return not any(pattern.search(text) for pattern in _UNCLEAN.values())


class StrictField(serializers.Field[Any, Any, Any, Any]):
    """Says null like any other wrong type, so that each field needs one sentence for its type."""

    default_error_messages: ClassVar[dict[str, Any]] = {
        "required": "This is missing. Send it.",
        "null": "This must not be null. Send a value, or leave the field out.",
    }

    def to_representation(self, value: object) -> object:
        return value


class Text(StrictField):
    """A JSON string of whole characters, as long as ``MAX_MESSAGE_CHARS`` allows; kept as it is."""

    default_error_messages: ClassVar[dict[str, Any]] = {
        "kind": "This must be text, not {kind}. Send a JSON string.",
        "blank": "This is empty. Write something.",
        "long": "This has {length} characters. Shorten it to at most {limit}.",
        "control": "This holds a control character ({code}, at character {at}). Remove it.",
        "surrogate": "This holds half a character ({code}, at character {at}). Remove it.",
    }

    def __init__(self, *, blank: bool = False, required: bool = True) -> None:
        super().__init__(required=required)
        self.blank = blank

    def to_internal_value(self, data: object) -> str:
        if not isinstance(data, str):
            self.fail("kind", kind=kind_of(data))
        if not self.blank and not data.strip():
            self.fail("blank")
        limit = conf.current().MAX_MESSAGE_CHARS
        if len(data) > limit:
            self.fail("long", length=len(data), limit=limit)
        self._check_characters(data)
        return data

    def _check_characters(self, text: str) -> None:
        for key, pattern in _UNCLEAN.items():
            if found := pattern.search(text):
                self.fail(key, code=f"U+{ord(found[0]):04X}", at=found.start() + 1)


class GatedField(StrictField):
    """A field that may be sent only where ``CLIENT_MAY_SET`` names it."""

    default_error_messages: ClassVar[dict[str, Any]] = {
        "closed": "This may not be set here. Leave it out."
    }

    def run_validation(self, data: object = empty) -> object:
        if data is not empty and self.field_name not in conf.current().CLIENT_MAY_SET:
            self.fail("closed")
        return super().run_validation(data)


class SystemPrompt(GatedField, Text):
    """What the client tells the model before the conversation; "" for nothing at all."""


class Model(GatedField, Text):
    """The name of a model that ``ALLOWED_MODELS`` has, if that is set."""

    default_error_messages: ClassVar[dict[str, Any]] = {
        "name": "This is no name of a model. Send one such as llama3.2, without blanks.",
        "choice": "This model is not offered here. Send one of: {models}.",
    }

    def to_internal_value(self, data: object) -> str:
        name = super().to_internal_value(data)
        allowed = conf.current().ALLOWED_MODELS
        if not _is_name(name):
            self.fail("name")
        if allowed is not None and name not in allowed:
            self.fail("choice", models=", ".join(allowed))
        return name


class Role(StrictField):
    """Who said a message of the history."""

    default_error_messages: ClassVar[dict[str, Any]] = {
        "system": "The role system may not be set here. Send user or assistant.",
        "tool": "The role tool is not available in this version. Send user or assistant.",
        "choice": "This is no role. Send user or assistant.",
    }

    def to_internal_value(self, data: object) -> str:
        may_be_system = "history_system" in conf.current().CLIENT_MAY_SET
        if data in ("user", "assistant") or (data == "system" and may_be_system):
            return str(data)
        return self.fail(str(data) if data in ("system", "tool") else "choice")


class History(serializers.ListField):
    """What was said before, at most ``MAX_HISTORY`` messages."""

    default_error_messages: ClassVar[dict[str, Any]] = {
        "null": "This must be a list, not null. Leave it out, or send [].",
        "kind": 'This must be a list, not {kind}. Send [{{"role": "user", "content": "…"}}, …].',
        "long": "This has {length} messages. Send the latest {limit} at most.",
    }

    def to_internal_value(self, data: object) -> list[Mapping[str, str]]:
        if not isinstance(data, list):
            self.fail("kind", kind=kind_of(data))
        limit = conf.current().MAX_HISTORY
        if len(data) > limit:
            self.fail("long", length=len(data), limit=limit)
        return super().to_internal_value(data)


class Streamed(StrictField):
    """Whether the answer shall come as server-sent events."""

    default_error_messages: ClassVar[dict[str, Any]] = {
        "kind": "This must be true or false, not {kind}. Leave it out.",
    }

    def to_internal_value(self, data: object) -> bool:
        if not isinstance(data, bool):
            self.fail("kind", kind=kind_of(data))
        return data


class Refused(StrictField):
    """A field that is no part of this API, or not yet: ignoring it would promise too much."""

    default_error_messages: ClassVar[dict[str, Any]] = {"refused": "{sentence}"}

    def __init__(self, sentence: str) -> None:
        super().__init__(required=False)
        self.sentence = sentence

    def run_validation(self, data: object = empty) -> object:
        if data is empty:
            return super().run_validation(data)
        return self.fail("refused", sentence=self.sentence)


def _is_name(name: str) -> bool:
    try:
        Name().clean(name)
    except InvalidError:
        return False
    return len(name) <= _LONGEST_NAME
