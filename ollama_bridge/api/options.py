"""Which values the options of a model take. Ollama itself answers a wrong one with a 500.

Types: api/types.go of ollama/ollama (Options, Runner). Bounds keep out what makes no sense there:
a ``num_predict`` of 0 or less, for example, would mean an answer without end.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

from rest_framework.exceptions import ValidationError

from .. import conf
from .fields import GatedField, is_clean, kind_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_INT32: Final = 2**31 - 1
_NAME: Final = re.compile(r"\w{1,40}", re.ASCII)
_MOST_FLAWS: Final = 10  # an answer names the options, so it could become longer than the request


class _Rule(Protocol):
    @property
    def wanted(self) -> str:
        """What the option takes, as the end of "This must be …"."""

    def takes(self, value: object) -> bool:
        """Tell whether the option takes this value."""


@dataclass(frozen=True, slots=True)
class _Whole:
    least: int = 0
    most: int = _INT32

    @property
    def wanted(self) -> str:
        return f"a whole number from {self.least} to {self.most}"

    def takes(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int):
            return False
        return self.least <= value <= self.most


@dataclass(frozen=True, slots=True)
class _Number:
    least: float = 0
    most: float = 100

    @property
    def wanted(self) -> str:
        return f"a number from {self.least:g} to {self.most:g}"

    def takes(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return self.least <= value <= self.most


@dataclass(frozen=True, slots=True)
class _Texts:
    most: int = 16
    longest: int = 255

    @property
    def wanted(self) -> str:
        return f"a list of at most {self.most} texts of 1 to {self.longest} characters"

    def takes(self, value: object) -> bool:
        return isinstance(value, list) and len(value) <= self.most and all(map(self._fits, value))

    def _fits(self, item: object) -> bool:
        return isinstance(item, str) and 0 < len(item) <= self.longest and is_clean(item)


@dataclass(frozen=True, slots=True)
class _Switch:
    wanted: str = "true or false"

    def takes(self, value: object) -> bool:
        return isinstance(value, bool)


@dataclass(frozen=True, slots=True)
class _Plain:
    """For an option that is not in the table, because it is newer than this version."""

    wanted: str = "a number, true, false or text"

    def takes(self, value: object) -> bool:
        if isinstance(value, str):
            return is_clean(value)
        return isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value))


_RULES: Final[Mapping[str, _Rule]] = {
    "temperature": _Number(),
    "top_p": _Number(0, 1),
    "min_p": _Number(0, 1),
    "typical_p": _Number(0, 1),
    "repeat_penalty": _Number(),
    "presence_penalty": _Number(-100),
    "frequency_penalty": _Number(-100),
    "top_k": _Whole(),
    "seed": _Whole(-1),
    "num_predict": _Whole(1),
    "num_ctx": _Whole(1),
    "num_keep": _Whole(-1),
    "num_batch": _Whole(1),
    "num_gpu": _Whole(-1),
    "main_gpu": _Whole(),
    "num_thread": _Whole(),
    "repeat_last_n": _Whole(-1),
    "stop": _Texts(),
    "use_mmap": _Switch(),
}


class Options(GatedField):
    """Options of the model, of those that ``CLIENT_OPTIONS`` names."""

    default_error_messages: ClassVar[dict[str, Any]] = {
        "kind": 'This must be an object, not {kind}. Send for example {{"temperature": 0.7}}.',
        "names": "This holds something that is no option. Send only: {offered}.",
    }

    def to_internal_value(self, data: object) -> dict[str, Any]:
        if not isinstance(data, dict):
            self.fail("kind", kind=kind_of(data))
        offered = conf.current().CLIENT_OPTIONS
        if not all(map(_NAME.fullmatch, data)):
            self.fail("names", offered=", ".join(offered))
        if flaws := dict(islice(_flaws(data, offered), _MOST_FLAWS)):
            raise ValidationError(flaws)
        return data


def _flaws(options: Mapping[str, object], offered: Sequence[str]) -> Iterator[tuple[str, str]]:
    for name, value in options.items():
        rule = _RULES.get(name, _Plain())
        if name not in offered:
            yield name, f"This may not be set here. Send only: {', '.join(offered)}."
        elif not rule.takes(value):
            yield name, f"This must be {rule.wanted}. Correct it or leave it out."
