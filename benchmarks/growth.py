"""By how much a process grows while it chats: ``python -m benchmarks.growth KEY URL CALLS``.

It is a process of its own, so that nobody inherits a heap, and it prints a number of bytes.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from . import askers, project

if TYPE_CHECKING:
    from .askers import Ask

ASKERS: Final = {asker.key: asker for asker in (askers.OURS, askers.OFFICIAL)}
_STATM: Final = Path("/proc/self/statm")
_KIBIBYTE: Final = 1024
_WARM_UP: Final = 2000


def growth(ask: Ask, calls: int) -> int:
    """Return by how many bytes the process grows over so many chats, once it is warm."""
    _repeat(ask, min(calls, _WARM_UP))
    before = _resident()
    _repeat(ask, calls)
    return _resident() - before


def _repeat(ask: Ask, calls: int) -> None:
    for _ in range(calls):
        ask()
    gc.collect()


def _resident() -> int:
    """Return the bytes of memory that this process occupies; without /proc, the most so far."""
    if _STATM.exists():
        pages = int(_STATM.read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    import resource  # noqa: PLC0415  # Windows has none

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * _KIBIBYTE


def main() -> None:
    """Ask, and print the growth."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, and that ends us
    key, url, calls = sys.argv[1:]
    project.set_up()
    with ASKERS[key].open(url) as ask:
        askers.check(ask())
        sys.stdout.write(f"{growth(ask, int(calls))}\n")


if __name__ == "__main__":
    main()
