"""What all rules have in common."""

import reprlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

VISIBLE = r"[^\s\x00-\x1f\x7f\ud800-\udfff]+"
"""Pattern of a name: Unicode text without blanks and control characters."""

DOTTED = r"[^\W\d]\w*(\.[^\W\d]\w*)+"
"""Pattern of the path of something in a module."""


class InvalidError(ValueError):
    """A value breaks its rule.

    Attributes:
        message: completes a sentence that begins with the name of the setting.
        hint: what to type instead, where the default value is no good example.
        path: where in the value it is, such as ``["gpu"]`` in a dict.
    """

    def __init__(self, message: str, hint: str = "", path: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.path = path


class Rule(ABC, Generic[T]):
    @abstractmethod
    def clean(self, value: object) -> T:
        """Return the value as the code uses it, or raise ``InvalidError``."""

    def read(self, text: str) -> object:
        """Return what the text of an environment variable means."""
        return text


@dataclass(frozen=True)
class OrNone(Rule[T | None]):
    """What the other rule allows, or None; in the environment the word ``none`` means None."""

    rule: Rule[T]

    def clean(self, value: object) -> T | None:
        return None if value is None else self.rule.clean(value)

    def read(self, text: str) -> object:
        return None if text.strip().lower() == "none" else self.rule.read(text)


def cleaned(name: str, rule: Rule[T], value: object) -> T:
    """Return the argument of a function as the rule has it.

    Raises:
        ValueError: it breaks the rule; the text begins with its name.
    """
    try:
        return rule.clean(value)
    except InvalidError as exc:
        raise ValueError(f"{name} {exc.message}. {exc.hint}".rstrip()) from None


def shown(value: object) -> str:
    """Return the value, shortened, for a message; only for rules of values that are no secrets."""
    return reprlib.repr(value)


def type_of(value: object) -> str:
    return type(value).__name__
