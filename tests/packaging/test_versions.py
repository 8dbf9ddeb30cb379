"""Versions are said in several places, and everywhere the same."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import version

import pytest

import ollama_bridge

from .readme import ROOT, TEXT

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
CLASSIFIERS = PROJECT["classifiers"]


def classified(prefix: str) -> list[str]:
    """Return the versions of something that the classifiers name."""
    return [
        each.removeprefix(prefix)
        for each in CLASSIFIERS
        if each.startswith(prefix) and each[len(prefix)].isdigit()
    ]


PYTHONS = [each for each in classified("Programming Language :: Python :: ") if "." in each]
DJANGOS = classified("Framework :: Django :: ")


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_installed_package_has_the_version_of_the_code() -> None:
    assert version("django-ollama-bridge") == ollama_bridge.__version__


def test_the_changelog_begins_with_this_version() -> None:
    newest = re.search(r"^## \[(.+?)\]", text_of("CHANGELOG.md"), re.MULTILINE)

    assert newest is not None
    assert newest[1] == ollama_bridge.__version__


def test_the_security_policy_names_this_version() -> None:
    minor = ollama_bridge.__version__.rpartition(".")[0]

    assert f"| {minor} | yes |" in text_of("SECURITY.md")


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md"])
def test_pythons_are_told_as_classified(name: str) -> None:
    assert f"Python {PYTHONS[0]} to {PYTHONS[-1]}, Django {DJANGOS[0]}" in text_of(name)


def test_the_oldest_python_is_the_same_everywhere() -> None:
    oldest = PYTHONS[0]
    major, minor = oldest.split(".")

    assert PROJECT["requires-python"] == f">={oldest}"
    assert PYPROJECT["tool"]["mypy"]["python_version"] == oldest
    assert PYPROJECT["tool"]["ruff"]["target-version"] == f"py{major}{minor}"
    assert f"sys.version_info < ({major}, {minor})" in text_of("Makefile")
    assert f"Python {oldest} or newer" in TEXT
    assert f"Python {oldest} or newer" in text_of("Makefile")


def test_nox_runs_each_python_and_the_oldest_libraries() -> None:
    noxfile = text_of("noxfile.py")
    lowest = dict(re.findall(r'^    "([\w-]+)==([\d.]+)",$', noxfile, re.MULTILINE))
    groups = PYPROJECT["dependency-groups"]
    servers = [*groups["demo"], *(each for each in groups["test"] if "gunicorn" in each)]
    allowed = dict(each.split(">=") for each in [*PROJECT["dependencies"], *servers])

    assert set(re.findall(r'^    \("([\d.]+)", "[\d.]+"\)', noxfile, re.MULTILINE)) == set(PYTHONS)
    assert lowest == allowed


def test_the_readme_names_the_oldest_rest_framework() -> None:
    (oldest,) = (each.split(">=")[1] for each in PROJECT["dependencies"] if "restframework" in each)

    assert f"Django REST framework {oldest} or newer" in TEXT


def test_the_commands_of_the_readme_are_targets_of_make() -> None:
    targets = re.findall(r"^([a-z]+):", text_of("Makefile"), re.MULTILINE)

    for command in re.findall(r"^make (\w+)", TEXT, re.MULTILINE):
        assert command in targets


def test_whatever_make_makes_is_ignored_by_git() -> None:
    ignored = text_of(".gitignore").split()
    made = re.findall(r"^\trm -rf (.+)$", text_of("Makefile"), re.MULTILINE)

    for name in " ".join(made).replace("$(VENV)", ".venv").split():
        assert {name, f"{name}/", f"{name.rstrip('*').rstrip('.')}*"} & set(ignored), name
