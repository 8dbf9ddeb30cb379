"""Test doubles for everything that talks to Ollama.

    from ollama_bridge.testing import FakeOllama, faults, when

    with FakeOllama() as ollama:
        ollama.misbehave(faults.Reset(), when=when.odd_attempts())
        ...

Names are loaded on first use: the pytest plugin lives in this package and is imported by every
test run of every project that has the package installed, so importing it must cost nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import faults, when
    from .account import FakeAccount
    from .catalogue import FakeModel
    from .recorded import RecordedRequest
    from .server import FakeOllama

__all__ = ["FakeAccount", "FakeModel", "FakeOllama", "RecordedRequest", "faults", "when"]

_HOMES = {
    "FakeAccount": ".account",
    "FakeModel": ".catalogue",
    "FakeOllama": ".server",
    "RecordedRequest": ".recorded",
}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name], __name__), name)
    if name in __all__:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
