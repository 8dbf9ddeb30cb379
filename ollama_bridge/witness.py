"""Does another process see what is put into a cache? Tried, since no class name tells."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Final
from uuid import uuid4

from django.core.cache import caches

_PATIENCE: Final = 20.0
_WITNESS: Final = """
import sys
import django
from django.core.cache import caches
django.setup()
caches[sys.argv[1]].set(sys.argv[2], sys.argv[3], 60)
"""


def sees(alias: str) -> bool | None:
    """Tell whether a cache is one for all processes; None where that cannot be tried.

    It starts a Python with the settings that ``DJANGO_SETTINGS_MODULE`` names, which takes a
    second or so.
    """
    key, token = f"ollama_bridge:witness:{uuid4().hex}", uuid4().hex
    try:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        subprocess.run(  # noqa: S603  # our own code
            [sys.executable, "-c", _WITNESS, alias, key, token],
            env=environment,
            capture_output=True,
            timeout=_PATIENCE,
            check=True,
        )
        cache = caches[alias]
        seen = cache.get(key) == token
        cache.delete(key)
    except Exception:  # noqa: BLE001  # settings made by hand, a cache that is down …
        return None
    return bool(seen)
