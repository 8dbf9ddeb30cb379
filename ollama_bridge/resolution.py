"""How a table of settings is declared, and how its values are found.

A table is a dataclass whose fields are made by ``scalar``, ``collection`` and ``tables``.
``resolve`` finds each value in the first of: the given dicts, the environment, the default. A table
that has its place in another one takes from that what it leaves out, and reads no environment.
"""

import difflib
import os
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple, TypeVar

from .rules import InvalidError, Rule

T = TypeVar("T")
Reader = Callable[[str], object]

PREFIX: Final = "OLLAMA_"
CODE: Final = "code"  # the origin of a value that a dict holds
DEFAULT: Final = "default"  # the origin of a value that nobody set
INHERITED: Final = "inherited"  # the origin of the table above; any other is a variable's name
NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


def scalar(
    default: T,
    rule: Rule[T],
    *,
    example: T | None = None,
    secret: bool = False,
    also: Mapping[str, Reader] = NOTHING,
) -> T:
    """Declare a single value; ``also`` names further variables, and how each is read.

    Who typed a wrong value is shown the example, or the default where that is one.
    """
    shown = default if example is None else example
    metadata = {"rule": rule, "scalar": True, "also": also, "unset": default, "example": shown}
    return field(default=default, repr=not secret, metadata=metadata)


def collection(default: T, rule: Rule[T], *, secret: bool = False) -> T:
    """Declare a list or dict, for which there is no environment variable.

    Its rule has an example of its own in each hint.
    """
    hashed = not isinstance(default, Mapping)
    metadata = {"rule": rule, "scalar": False, "unset": default}
    return field(default_factory=lambda: default, hash=hashed, repr=not secret, metadata=metadata)


def tables(default: Mapping[str, T], rule: Rule[Mapping[str, Any]]) -> Mapping[str, T]:
    """Declare a dict of tables by name, which are found as they are written, to be resolved."""
    metadata = {"rule": rule, "scalar": False, "unset": NOTHING}
    return field(default_factory=lambda: default, hash=False, metadata=metadata)


def names_of(table: type[Any]) -> tuple[str, ...]:
    """Return the names of the table's settings."""
    return tuple(declared.name for declared in fields(table))


def variables_of(declared: Field[Any]) -> Mapping[str, Reader]:
    """Return the environment variables of a setting, the one that wins first."""
    if not declared.metadata["scalar"]:
        return NOTHING
    own: Reader = declared.metadata["rule"].read
    return {PREFIX + declared.name: own, **declared.metadata["also"]}


class Home(NamedTuple):
    """Where a setting belongs: whose it is, and an example of its place."""

    owner: str
    place: str


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong in the settings, and what to type instead; free of secrets.

    Of the kinds "bypassed" (an endpoint) and "idle" (a setting) are warnings alone.
    """

    name: str
    message: str
    hint: str
    kind: Literal["not_a_dict", "unknown", "invalid", "exposed", "bypassed", "idle"] = "invalid"


@dataclass(frozen=True, slots=True)
class Findings:
    """The valid values of a table, where each came from, and what is wrong with the others.

    ``place`` is where the table is written, such as ``ENDPOINTS["gpu"]``, "" for the top level;
    ``above`` is what it inherits from. ``warnings`` tell of what is valid and does nothing; there
    are none where there are problems.
    """

    table: type[Any]
    place: str = ""
    above: "Findings | None" = None
    values: dict[str, Any] = field(default_factory=dict, repr=False)
    origins: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)

    def path(self, name: str) -> str:
        """Return the setting's name, with its place."""
        return f'{self.place}["{name}"]' if self.place else name

    def label(self, name: str, origin: str = "") -> str:
        """Return the setting's name and place, with the variable that its value came from."""
        origin = origin or self.origins[name]
        if origin == INHERITED and self.above is not None:
            return self.above.label(name)
        if origin in {CODE, DEFAULT}:
            return self.path(name)
        return f"{name}, from the environment ({origin}),"


def resolve(
    table: type[Any],
    dicts: Sequence[Mapping[str, object]],
    *,
    place: str = "",
    above: Findings | None = None,
    inherits: Container[str] = (),
    homes: Mapping[str, Home] = NOTHING,
) -> Findings:
    """Find and clean each value of the table; of the dicts, the first wins.

    With a table ``above``, there is no environment, and the names that it ``inherits`` have the
    values there. One that is wrong there is not told again: it is missing here too. ``homes`` say
    where names belong that this table does not have.
    """
    findings = Findings(table, place, above)
    findings.problems.extend(_unknown_keys(findings, dicts, homes))
    for declared in fields(table):
        name = declared.name
        if above is None or name not in inherits or any(name in each for each in dicts):
            _resolve_one(declared, dicts, findings)
        elif name in above.values:
            findings.values[name], findings.origins[name] = above.values[name], INHERITED
    return findings


def _unknown_keys(
    findings: Findings, dicts: Sequence[Mapping[str, object]], homes: Mapping[str, Home]
) -> Iterator[Problem]:
    known = names_of(findings.table)
    above = () if findings.above is None else names_of(findings.above.table)
    for key in (str(key) for each in dicts for key in each if key not in known):
        path, near = findings.path(key), _nearest(key, known)
        if key in homes:
            complaint = f"{path} is a setting of {homes[key].owner}."
            hint = f"Type it in {homes[key].place}{f', or {near}' if near else '.'}"
        elif key in above:
            complaint = f"{path} is a setting of the top level."
            hint = f'Type "{key}" in the dict above it, or remove it.'
        else:
            complaint = f"{path} is not a setting of ollama_bridge."
            hint = f"Type {near}" if near else "Remove it: it does nothing."
        yield Problem(path, complaint, hint, kind="unknown")


def _nearest(key: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(key.upper().removeprefix(PREFIX), known, n=1)
    return f'"{near[0]}", if you mean that.' if near else ""


def _resolve_one(
    declared: Field[Any], dicts: Sequence[Mapping[str, object]], findings: Findings
) -> None:
    name = declared.name
    origin, found = _find(declared, dicts, with_environment=findings.above is None)
    try:
        value = _clean(declared, origin, found)
    except InvalidError as error:
        message = f"{findings.label(name, origin)}{error.path} {error.message}."
        hint = error.hint or f"Type for example {_example(declared, origin)}."
        findings.problems.append(Problem(findings.path(name), message, hint))
    else:
        findings.values[name] = value
        findings.origins[name] = origin


def _find(
    declared: Field[Any], dicts: Sequence[Mapping[str, object]], *, with_environment: bool
) -> tuple[str, object]:
    for each in dicts:
        if declared.name in each:
            return CODE, each[declared.name]
    for variable in variables_of(declared) if with_environment else ():
        text = os.environ.get(variable, "")
        if text.strip():
            return variable, text
    return DEFAULT, declared.metadata["unset"]


def _clean(declared: Field[Any], origin: str, found: object) -> object:
    if origin == DEFAULT:
        return found
    if origin != CODE:
        found = variables_of(declared)[origin](str(found))
    return declared.metadata["rule"].clean(found)


def _example(declared: Field[Any], origin: str) -> str:
    example = declared.metadata["example"]
    if origin != CODE:
        return f"{origin}={example}"
    written = f'"{example}"' if isinstance(example, str) else example
    return f'"{declared.name}": {written}'
