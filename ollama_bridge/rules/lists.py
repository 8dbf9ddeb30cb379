"""Rules for lists and dicts. What they return cannot be changed."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar

from .base import VISIBLE, InvalidError, Rule, shown, type_of

T = TypeVar("T")


@dataclass(frozen=True)
class Names(Rule[tuple[str, ...]]):
    """A list of names: of a few known ones, or any that match the pattern."""

    example: str
    known: tuple[str, ...] = ()
    pattern: str = VISIBLE
    at_least: int = 0

    def clean(self, value: object) -> tuple[str, ...]:
        names = tuple(self._name(item) for item in _items(value, f'["{self.example}"]'))
        if len(names) < self.at_least:
            raise InvalidError(f"must hold {self.at_least} at least", self._hint)
        return names

    @property
    def _hint(self) -> str:
        return f'Type for example ["{self.example}"].'

    def _name(self, item: object) -> str:
        if not isinstance(item, str) or not re.fullmatch(self.pattern, item):
            raise InvalidError(f"must hold names only, not {shown(item)}", self._hint)
        if self.known and item not in self.known:
            hint = f"Type some of: {', '.join(self.known)}."
            raise InvalidError(f"must not hold {shown(item)}", hint)
        return item


class Statuses(Rule[frozenset[int]]):
    """HTTP statuses that report errors."""

    def clean(self, value: object) -> frozenset[int]:
        return frozenset(self._status(item) for item in _items(value, "[502, 503]"))

    def _status(self, item: object) -> int:
        if isinstance(item, bool) or not isinstance(item, int) or item not in range(400, 600):
            hint = "Type for example [502, 503]."
            raise InvalidError(f"must hold numbers from 400 to 599, not {shown(item)}", hint)
        return item


class Options(Rule[Mapping[str, object]]):
    """Model options, which travel as JSON. The copy is deep: later changes do not reach it."""

    def clean(self, value: object) -> Mapping[str, object]:
        hint = 'Type for example {"temperature": 0.7}.'
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise InvalidError("must be a dict with names of options as keys", hint)
        try:
            text = json.dumps(dict(value), allow_nan=False, ensure_ascii=False).encode()
        except (TypeError, ValueError, RecursionError):
            raise InvalidError("must hold numbers, text and lists only", hint) from None
        return MappingProxyType(json.loads(text))


class Headers(Rule[Mapping[str, str]]):
    """Extra headers: ASCII only, because HTTP libraries disagree on the rest. Never shown."""

    _NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
    _VALUE = re.compile(r"([!-~]([\t -~]*[!-~])?)?")
    _OURS = frozenset({"content-length", "transfer-encoding"})

    def clean(self, value: object) -> Mapping[str, str]:
        if not isinstance(value, Mapping) or not all(map(self._fits, value.items())):
            raise InvalidError(
                "must be a dict from header names to values: ASCII text without line breaks",
                hint='Type for example {"X-Tenant": "school"}.',
            )
        if ours := self._OURS.intersection(map(str.lower, value)):
            raise InvalidError(
                f"must not hold {', '.join(sorted(ours))}: each request has its own",
                hint='Type for example {"X-Tenant": "school"}.',
            )
        return MappingProxyType(dict(value))

    def _fits(self, header: tuple[object, object]) -> bool:
        patterns = (self._NAME, self._VALUE)
        return all(
            isinstance(part, str) and pattern.fullmatch(part)
            for pattern, part in zip(patterns, header, strict=True)
        )


@dataclass(frozen=True)
class Dict(Rule[Mapping[str, T]]):
    """A dict whose keys obey one rule, and its values another; some keys may be needed."""

    keys: Rule[str]
    values: Rule[T]
    example: str
    needed: tuple[str, ...] = ()

    def clean(self, value: object) -> Mapping[str, T]:
        if not isinstance(value, Mapping):
            raise InvalidError(f"must be a dict, not {type_of(value)}", self._hint)
        found = {self._key(key): self._value(key, item) for key, item in value.items()}
        if not found.keys() >= set(self.needed):
            wanted = " and ".join(f'"{key}"' for key in self.needed)
            raise InvalidError(f"must have {wanted}", self._hint)
        return MappingProxyType(found)

    @property
    def _hint(self) -> str:
        return f"Type for example {self.example}."

    def _key(self, key: object) -> str:
        try:
            return self.keys.clean(key)
        except InvalidError as error:
            raise InvalidError(f"has a key that {error.message}", self._hint) from None

    def _value(self, key: object, value: object) -> T:
        try:
            return self.values.clean(value)
        except InvalidError as error:
            path = f'["{key}"]{error.path}'
            raise InvalidError(error.message, error.hint or self._hint, path) from None


@dataclass(frozen=True)
class Section(Rule[Mapping[object, object]]):
    """A table as it is written, to be judged by whoever knows the names in it."""

    example: str

    def clean(self, value: object) -> Mapping[object, object]:
        if not isinstance(value, Mapping):
            raise InvalidError(
                f"must be a dict, not {type_of(value)}", hint=f"Type for example {self.example}."
            )
        return MappingProxyType(dict(value))


def _items(value: object, example: str) -> list[object]:
    if not isinstance(value, list | tuple | set | frozenset):
        raise InvalidError(f"must be a list, not {type_of(value)}", hint=f"Type {example}.")
    return list(value)
