"""What importing costs, and what the layers of the design keep apart, at run time.

`lint-imports` reads the sources; this looks at what is loaded in the end.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import ollama_bridge

PACKAGE = Path(ollama_bridge.__file__).parent
HTTP = ("requests", "urllib3", "aiohttp")


def modules(*names: str) -> list[str]:
    """Return the modules in parts of the package."""
    found = [PACKAGE / f"{name}.py" for name in names]
    for name in names:
        found += (PACKAGE / name).rglob("*.py")
    relative = [path.relative_to(PACKAGE.parent).with_suffix("") for path in found if path.exists()]
    return [".".join(path.parts).removesuffix(".__init__") for path in relative]


def loaded_by(*imported: str) -> set[str]:
    """Return the top-level packages that a new Python has after these imports."""
    code = f"import sys, {', '.join(imported)}; print(*{{n.split('.')[0] for n in sys.modules}})"
    done = subprocess.run(  # noqa: S603  # our own code
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_importing_the_package_loads_neither_django_nor_an_http_library() -> None:
    assert not loaded_by("ollama_bridge") & {"django", "rest_framework", *HTTP}


def test_importing_the_client_loads_no_http_library() -> None:
    assert not loaded_by("ollama_bridge.client") & {"rest_framework", *HTTP}


@pytest.mark.parametrize("part", ["core", "errors", "state"])
def test_the_lower_layers_load_neither_django_nor_an_http_library(part: str) -> None:
    found = modules(part)

    assert found
    assert not loaded_by(*found) & {"django", "rest_framework", *HTTP}


def test_the_transports_load_no_django() -> None:
    assert not loaded_by(*modules("transports")) & {"django", "rest_framework"}


def test_the_fake_server_loads_nothing_but_python_and_itself() -> None:
    assert not loaded_by(*modules("testing/server")) & {"django", "rest_framework", *HTTP}


def test_the_pytest_plugin_loads_no_server_before_it_is_used() -> None:
    code = "import sys, ollama_bridge.testing.pytest_plugin; print(*sys.modules)"
    done = subprocess.run(  # noqa: S603  # our own code
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert "ollama_bridge.testing.server" not in done.stdout.split()
