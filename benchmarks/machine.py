"""Where it was measured, and with which versions."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_PACKAGES: Final = (
    "django-ollama-bridge",
    "Django",
    "djangorestframework",
    "requests",
    "urllib3",
    "aiohttp",
    "uvicorn",
    "ollama",
    "httpx",
    "pybreaker",
    "purgatory",
    "litellm",
)
_CPUINFO: Final = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A machine. ``load`` is how many processes were running in the minute before."""

    cpus: int
    model: str
    memory_bytes: int | None
    os: str
    load: float | None

    def __str__(self) -> str:
        memory = f"{self.memory_bytes / 2**30:.0f} GiB, " if self.memory_bytes else ""
        return f"{self.cpus} CPUs ({self.model}), {memory}{self.os}"


def this_machine() -> Machine:
    return Machine(
        cpus=os.cpu_count() or 1,
        model=_model(),
        memory_bytes=_memory(),
        os=platform.system(),
        load=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    )


def versions() -> Mapping[str, str | None]:
    """Return the version of Python and of each package, None where it is not installed."""
    return {"Python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _model() -> str:
    if _CPUINFO.exists():
        for line in _CPUINFO.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not Unix, or it does not say
        return None
