"""How a table of settings is declared, and how its values are found.

A table is a dataclass whose fields are made by ``scalar`` and ``collection``. ``resolve`` finds
each value in the first of: the given dicts, the environment, the default.
"""

import difflib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from types import MappingProxyType
from typing import Any, Final, Literal, TypeVar

from .rules import InvalidError, Rule

T = TypeVar("T")
Reader = Callable[[str], object]

PREFIX: Final = "OLLAMA_"
CODE: Final = "code"  # the origin of a value that a dict holds
DEFAULT: Final = "default"  # the origin of a value that nobody set; else it is a variable's name
NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


def scalar(
    default: T, rule: Rule[T], *, secret: bool = False, also: Mapping[str, Reader] = NOTHING
) -> T:
    """Declare a single value; ``also`` names further variables, and how each is read."""
    metadata = {"rule": rule, "scalar": True, "also": also}
    return field(default=default, repr=not secret, metadata=metadata)


def collection(default: T, rule: Rule[T], *, secret: bool = False) -> T:
    """Declare a list or dict, for which there is no environment variable."""
    hashed = not isinstance(default, Mapping)
    metadata = {"rule": rule, "scalar": False}
    return field(default_factory=lambda: default, hash=hashed, repr=not secret, metadata=metadata)


def variables_of(declared: Field[Any]) -> Mapping[str, Reader]:
    """Return the environment variables of a setting, the one that wins first."""
    if not declared.metadata["scalar"]:
        return NOTHING
    own: Reader = declared.metadata["rule"].read
    return {PREFIX + declared.name: own, **declared.metadata["also"]}


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong in the settings, and what to type instead; free of secrets."""

    name: str
    message: str
    hint: str
    kind: Literal["not_a_dict", "unknown", "invalid", "exposed"] = "invalid"


@dataclass(frozen=True, slots=True)
class Findings:
    """The valid values, where each came from, and what is wrong with the others."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def label(self, name: str) -> str:
        """Return the setting's name, with the variable that its value came from."""
        return _label(name, self.origins[name])


def resolve(table: type[Any], dicts: Sequence[Mapping[str, object]]) -> Findings:
    """Find and clean each value of the table; of the dicts, the first wins."""
    findings = Findings(problems=list(_unknown_keys(table, dicts)))
    for declared in fields(table):
        _resolve_one(declared, dicts, findings)
    return findings


def _unknown_keys(table: type[Any], dicts: Sequence[Mapping[str, object]]) -> Iterator[Problem]:
    known = [declared.name for declared in fields(table)]
    for key in (str(key) for each in dicts for key in each if key not in known):
        near = difflib.get_close_matches(key.upper().removeprefix(PREFIX), known, n=1)
        hint = f'Type "{near[0]}", if you mean that.' if near else "Remove it: it does nothing."
        yield Problem(key, f"{key} is not a setting of ollama_bridge.", hint, kind="unknown")


def _resolve_one(
    declared: Field[Any], dicts: Sequence[Mapping[str, object]], findings: Findings
) -> None:
    name = declared.name
    origin, found = _find(declared, dicts)
    try:
        value = _clean(declared, origin, found)
    except InvalidError as error:
        message = f"{_label(name, origin)} {error.message}."
        hint = error.hint or f"Type for example {_example(declared, origin)}."
        findings.problems.append(Problem(name, message, hint))
    else:
        findings.values[name] = value
        findings.origins[name] = origin


def _find(declared: Field[Any], dicts: Sequence[Mapping[str, object]]) -> tuple[str, object]:
    for each in dicts:
        if declared.name in each:
            return CODE, each[declared.name]
    for variable in variables_of(declared):
        text = os.environ.get(variable, "")
        if text.strip():
            return variable, text
    return DEFAULT, _default(declared)


def _clean(declared: Field[Any], origin: str, found: object) -> object:
    if origin == DEFAULT:
        return found
    if origin != CODE:
        found = variables_of(declared)[origin](str(found))
    return declared.metadata["rule"].clean(found)


def _default(declared: Field[Any]) -> object:
    if declared.default_factory is MISSING:
        return declared.default
    return declared.default_factory()


def _label(name: str, origin: str) -> str:
    return name if origin in {CODE, DEFAULT} else f"{name}, from the environment ({origin}),"


def _example(declared: Field[Any], origin: str) -> str:
    default = _default(declared)
    if origin != CODE:
        return f"{origin}={default}"
    written = f'"{default}"' if isinstance(default, str) else default
    return f'"{declared.name}": {written}'
