"""``.env.example`` is held against the code: the same variables, the same defaults."""

import os
import re
from pathlib import Path

import environ  # type: ignore[import-untyped]  # it ships neither types nor stubs
import pytest

from ollama_bridge import conf
from ollama_bridge.conf import Settings

EXAMPLE = Path(__file__).parents[2] / ".env.example"
TEXT = EXAMPLE.read_text(encoding="utf-8")
DEFAULTS, PRODUCTION = TEXT.split("# --- Production")
LINE = re.compile(r"^# (OLLAMA_\w+)=(.*)$", re.MULTILINE)


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [each for each in os.environ if each.startswith("OLLAMA_")]:
        monkeypatch.delenv(variable)


def resolved(block: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Uncomment the block, load it as the demo does, and resolve the settings."""
    for variable, _ in LINE.findall(block):
        monkeypatch.setenv(variable, "")  # so that the variable is gone after the test
    (folder / ".env").write_text(LINE.sub(r"\1=\2", block), encoding="utf-8")
    environ.Env.read_env(folder / ".env", overwrite=True)
    return Settings.build()


def test_every_scalar_setting_has_its_variable_once_and_nothing_else_has() -> None:
    written = [variable for variable, _ in LINE.findall(DEFAULTS)]

    assert sorted(written) == sorted(names[0] for names in conf.VARIABLES.values() if names)


def test_every_alias_is_mentioned() -> None:
    for names in conf.VARIABLES.values():
        assert all(alias in TEXT for alias in names[1:])


def test_every_line_is_commented_out() -> None:
    assert all(line.startswith("#") or not line for line in TEXT.splitlines())


def test_every_variable_is_explained_by_the_line_above() -> None:
    lines = DEFAULTS.splitlines()
    above = [lines[i - 1] for i, line in enumerate(lines) if LINE.match(line)]

    assert above
    assert all(re.match(r"# \w.*\w.*\.$", line) and not LINE.match(line) for line in above)


def test_uncommented_it_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolved(DEFAULTS, tmp_path, monkeypatch) == Settings()


def test_a_default_that_is_not_empty_is_written_out() -> None:
    for variable, value in LINE.findall(DEFAULTS):
        default = getattr(Settings(), variable.removeprefix("OLLAMA_"))
        assert (value == "") == (default in {"", None})


def test_the_production_block_holds_what_the_documentation_promises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = resolved(PRODUCTION, tmp_path, monkeypatch)

    assert (built.TIMEOUT, built.MAX_RETRIES) == (30.0, 5)
    assert (built.POOL_CONNECTIONS, built.POOL_MAXSIZE) == (20, 50)
    assert len(LINE.findall(PRODUCTION)) == 4
