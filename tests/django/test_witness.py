"""Whether a cache is one for all processes, tried with another process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from ollama_bridge import witness

if TYPE_CHECKING:
    from pathlib import Path

    from django.conf import LazySettings


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: LazySettings) -> Any:
    """Return what makes a site with such a cache; its settings are a module that others find."""

    def make(backend: str, location: str) -> None:
        cache = {"BACKEND": f"django.core.cache.backends.{backend}", "LOCATION": location}
        text = f"CACHES = {{'default': {cache!r}}}\nUSE_TZ = True\n"
        (tmp_path / "witnessed_site.py").write_text(text)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "witnessed_site")
        settings.CACHES = {"default": cache}

    return make


def test_files_are_seen_by_others(site: Any, tmp_path: Path) -> None:
    site("filebased.FileBasedCache", str(tmp_path / "cache"))
    assert witness.sees("default") is True


@pytest.mark.parametrize("backend", ["locmem.LocMemCache", "dummy.DummyCache"])
def test_what_a_process_has_for_itself_is_not(site: Any, backend: str) -> None:
    site(backend, "here")
    assert witness.sees("default") is False


def test_nobody_can_tell_without_settings_that_others_can_read(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    site("locmem.LocMemCache", "here")
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "no.such.settings")
    assert witness.sees("default") is None
