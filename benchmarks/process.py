"""What this process holds of the system."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

_STATM: Final = Path("/proc/self/statm")
_DESCRIPTORS: Final = ("/proc/self/fd", "/dev/fd")
_KIBIBYTE: Final = 1024


def resident() -> int:
    """Return the bytes of memory that this process occupies; without /proc, the most so far."""
    if _STATM.exists():
        pages = int(_STATM.read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    import resource  # noqa: PLC0415  # Windows has none

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * _KIBIBYTE


def descriptors() -> int:
    """Return how many files and sockets this process has open.

    Raises:
        OSError: the system does not say.
    """
    where = next((each for each in _DESCRIPTORS if Path(each).is_dir()), _DESCRIPTORS[0])
    return sum(1 for _ in Path(where).iterdir()) - 1  # the look itself opens one
