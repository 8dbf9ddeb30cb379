"""The libraries that are measured against. None of them is needed to import this package."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from .contest import CannotRunError, Contestant

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

GROUP: Final = ("ollama", "aiohttp", "uvicorn", "pybreaker", "purgatory")
"""The dependency group ``benchmarks``. LiteLLM is not in it: it takes part where it is found."""

REMEDY: Final = "python -m pip install --group benchmarks"


def is_here(name: str) -> bool:
    return find_spec(name) is not None


def load(name: str) -> ModuleType:
    """Return a peer's module, which no type checker needs to find.

    Raises:
        CannotRunError: it is installed, and does not load.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise CannotRunError(f"{name} does not load: {error}") from error


def missing() -> list[str]:
    """Return those of the group that are not installed."""
    return [name for name in GROUP if not is_here(name)]


def invited(
    key: str, name: str, needs: str, prepare: Callable[[], Callable[[], float]]
) -> Contestant:
    """Return a contestant whose turn is prepared only if the library that it needs is here."""
    if needs and not is_here(needs):
        return Contestant(key=key, name=name, absent="not installed")
    return Contestant(key=key, name=name, turn=prepare())
