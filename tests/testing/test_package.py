"""The package's door: what it exports and what importing it costs."""

import subprocess
import sys

import pytest

from ollama_bridge import testing

HEAVY = {"asyncio", "aiohttp", "django", "requests", "ollama_bridge.testing.server"}


def test_everything_exported_is_there() -> None:
    assert sorted(testing.__all__) == testing.__all__
    for name in testing.__all__:
        assert getattr(testing, name) is not None


def test_what_is_not_exported_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = testing.Nothing


def test_the_plugin_costs_nothing_until_its_fixture_is_used() -> None:
    assert not HEAVY & loaded_by("ollama_bridge.testing.pytest_plugin", already="pytest")


def test_the_double_needs_nothing_but_the_standard_library() -> None:
    needed = loaded_by("ollama_bridge.testing.server, ollama_bridge.testing.cli")
    assert {"aiohttp", "django", "pytest", "requests"}.isdisjoint(needed)
    assert "asyncio" in needed


def loaded_by(modules: str, already: str = "sys") -> set[str]:
    """The modules that a fresh interpreter loads for an import."""
    code = f"import {already}, sys; had = set(sys.modules); import {modules}; "
    code += "print(*sys.modules.keys() - had)"
    words = [sys.executable, "-c", code]
    ended = subprocess.run(words, capture_output=True, text=True, check=True)  # noqa: S603  # ours
    return set(ended.stdout.split())
