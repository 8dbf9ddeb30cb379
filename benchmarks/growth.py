"""By how much a process grows while it chats: ``python -m benchmarks.growth KEY URL CALLS``.

It is a process of its own, so that nobody inherits a heap, and it prints a number of bytes.
"""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING, Final

from . import askers, children, project
from .process import resident

if TYPE_CHECKING:
    from .askers import Ask

ASKERS: Final = {asker.key: asker for asker in (askers.OURS, askers.OFFICIAL)}
_WARM_UP: Final = 2000


def growth(ask: Ask, calls: int) -> int:
    """Return by how many bytes the process grows over so many chats, once it is warm."""
    _repeat(ask, min(calls, _WARM_UP))
    before = resident()
    _repeat(ask, calls)
    return resident() - before


def _repeat(ask: Ask, calls: int) -> None:
    for _ in range(calls):
        ask()
    gc.collect()


def main() -> None:
    """Ask, and print the growth."""
    children.leave_interrupts_to_the_parent()
    key, url, calls = sys.argv[1:]
    project.set_up()
    with ASKERS[key].open(url) as ask:
        askers.check(ask())
        sys.stdout.write(f"{growth(ask, int(calls))}\n")


if __name__ == "__main__":
    main()
