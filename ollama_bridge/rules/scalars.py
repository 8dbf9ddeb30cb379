"""Rules for single values."""

import math
import os
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import environ  # type: ignore[import-untyped]  # it ships neither types nor stubs

from .base import DOTTED, VISIBLE, InvalidError, Rule, shown, type_of

T = TypeVar("T")

A_YEAR = 31_536_000.0  # in seconds: more is a slip of the pen, and much more overflows timers
BOOLEAN_WORDS = {*environ.Env.BOOLEAN_TRUE_STRINGS, "false", "off", "n", "no", "0"}


@dataclass(frozen=True)
class Number(Rule[float]):
    """A finite number, mostly of seconds."""

    at_least: float = 0.0
    above: float | None = None
    at_most: float = A_YEAR

    def clean(self, value: object) -> float:
        number = _finite(value)
        if number is None or number > self.at_most or not self._is_high_enough(number):
            low = f"from {self.at_least:g}" if self.above is None else f"above {self.above:g}"
            wanted = f"a number {low}, at most {self.at_most:.10g}"
            raise InvalidError(f"must be {wanted}, not {shown(value)}")
        return number

    def read(self, text: str) -> object:
        return _parsed(text, _float)

    def _is_high_enough(self, number: float) -> bool:
        return number >= self.at_least if self.above is None else number > self.above


@dataclass(frozen=True)
class Whole(Rule[int]):
    """A whole number."""

    at_least: int = 0

    def clean(self, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < self.at_least:
            raise InvalidError(f"must be a whole number from {self.at_least}, not {shown(value)}")
        return value

    def read(self, text: str) -> object:
        return _parsed(text, int)


class Switch(Rule[bool]):
    """True or False; a misspelt word in the environment is an error, not a silent False."""

    def clean(self, value: object) -> bool:
        if not isinstance(value, bool):
            raise InvalidError(f"must be True or False, not {shown(value)}")
        return value

    def read(self, text: str) -> object:
        return _boolean(text)


class Verification(Rule[bool | str]):
    """Whether to verify certificates, or the path of the CA to verify them with."""

    def clean(self, value: object) -> bool | str:
        if isinstance(value, bool):
            return value
        if isinstance(value, str | os.PathLike) and _holds_certificates(os.fsdecode(value)):
            return os.fsdecode(value)
        raise InvalidError(
            f"must be True, False or the path of a file with CA certificates, not {shown(value)}",
            hint="Type True, or the path of the file that holds your CA's certificate.",
        )

    def read(self, text: str) -> object:
        return _boolean(text)


class Choice(Rule[T]):
    """One of a few words."""

    def __init__(self, *options: T) -> None:
        self.options = options

    def clean(self, value: object) -> T:
        for option in self.options:
            if value == option:
                return option
        raise InvalidError(f"must be {self._wanted}, not {shown(value)}")

    @property
    def _wanted(self) -> str:
        return " or ".join(f'"{option}"' for option in self.options)


class ChoiceOrPath(Choice[str]):
    """One of a few words, or the dotted path of a function."""

    def clean(self, value: object) -> str:
        is_path = isinstance(value, str) and re.fullmatch(DOTTED, value)
        return str(value) if is_path else super().clean(value)

    @property
    def _wanted(self) -> str:
        return f"{super()._wanted} or the dotted path of a function"


class Text(Rule[str]):
    """Any text. Its value is never shown."""

    def clean(self, value: object) -> str:
        if not isinstance(value, str):
            raise InvalidError(f"must be text, not {type_of(value)}", hint="Type text in quotes.")
        return value


class Name(Rule[str]):
    """A name without blanks, as models have."""

    def clean(self, value: object) -> str:
        if not isinstance(value, str) or not re.fullmatch(VISIBLE, value):
            raise InvalidError(f"must be a name without spaces, not {shown(value)}")
        return value


class CloudName(Name):
    """The name of a model of the cloud, where the suffix ``-cloud`` or ``:cloud`` is dropped."""

    _SUFFIX = re.compile(r"[-:]cloud", re.IGNORECASE)

    def clean(self, value: object) -> str:
        name = super().clean(value)
        if self._SUFFIX.fullmatch(name):
            raise InvalidError(f"must have a name before the suffix, not {shown(name)}")
        return name


class Handle(Rule[str]):
    """The name of an endpoint or a route."""

    def clean(self, value: object) -> str:
        if not isinstance(value, str) or not re.fullmatch(r"[a-z0-9_-]{1,100}", value):
            wanted = 'of lower-case letters, digits, "_" and "-"'
            raise InvalidError(f"must be a name {wanted}, not {shown(value)}")
        return value


class Key(Rule[str]):
    """A secret that fits into a header. Its value is never shown."""

    def clean(self, value: object) -> str:
        if not isinstance(value, str):
            raise InvalidError(
                f"must be text, not {type_of(value)}", hint="Type the key in quotes."
            )
        if not re.fullmatch(r"[!-~]+", value):
            raise InvalidError(
                "must be visible ASCII characters, at least one, without spaces or line breaks",
                hint="Copy the key again without what surrounds it, or type None for no key.",
            )
        return value


class Duration(Rule[float | str]):
    """A number of seconds, or a duration as Go writes it, exactly as the Ollama server takes it."""

    _GO = re.compile(r"[-+]?(0|((\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h))+)", re.ASCII)
    _BARE_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?", re.ASCII)
    _BARE_SECONDS = re.compile(r"[-+]?\d+", re.ASCII)

    def clean(self, value: object) -> float | str:
        if isinstance(value, str):
            return self._duration(value)
        number = _finite(value)
        if number is None:
            raise InvalidError(f"must be a duration, not {shown(value)}", self._hint)
        return int(number) if number.is_integer() else number

    def read(self, text: str) -> object:
        """Read the text as the server reads its own variable: quotes go, bare seconds are fine."""
        text = text.strip().strip("\"'")
        return int(text) if self._BARE_SECONDS.fullmatch(text) else text

    def _duration(self, text: str) -> str:
        if self._GO.fullmatch(text):
            return text
        hint = f'Type "{text}s" for seconds.' if self._BARE_NUMBER.fullmatch(text) else self._hint
        raise InvalidError(f"must be a duration with a unit, not {shown(text)}", hint)

    @property
    def _hint(self) -> str:
        return 'Type a number of seconds, or a duration such as "5m", "1h30m" or "-1m" (for ever).'


class Rate(Rule[str]):
    """A throttle rate of Django REST framework, which itself takes ``5/month`` for 5 a minute."""

    _RATE = re.compile(r"[1-9]\d*/(s|m|h|d|(sec|second|min|minute|hour|day)s?)", re.ASCII)

    def clean(self, value: object) -> str:
        if not isinstance(value, str) or not self._RATE.fullmatch(value):
            raise InvalidError(
                f"must be a number of calls per second, minute, hour or day, not {shown(value)}",
                hint='Type for example "60/min" or "1000/day", or None for no throttle.',
            )
        return value


def _finite(value: object) -> float | None:
    """Return the value as a finite float; None if it is none. True is no number here."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _parsed(text: str, cast: Callable[[str], object]) -> object:
    """Return the text as django-environ reads it, or the text itself.

    ``Env.parse_value`` and not ``env(...)``: that one replaces a value which begins with ``$`` by
    another variable's, and names the value in its error, which is bad for keys.
    """
    try:
        value: object = environ.Env.parse_value(text, cast)
    except ValueError:
        return text
    return value


def _float(text: str) -> float:
    """Read a float strictly: django-environ's own cast takes ``60s`` for 60 and ``1e3`` for 13."""
    return float(text)


def _boolean(text: str) -> object:
    return _parsed(text, bool) if text.strip().lower() in BOOLEAN_WORDS else text


def _holds_certificates(path: str) -> bool:
    try:
        if Path(path).is_dir():
            return bool(path)
        ssl.create_default_context(cafile=path)
    except (OSError, ValueError):  # not readable, no certificates, or no possible path at all
        return False
    return bool(path)
