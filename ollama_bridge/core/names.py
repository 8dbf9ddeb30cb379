"""Names of models, as Ollama reads them, and of the endpoints that the settings make.

Grammar: types/model/name.go and internal/modelref of ollama/ollama.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Final

MAIN: Final = "default"
"""The route that serves calls which name none, and the endpoint, if there is no such route."""

CLOUD, LOCAL = "cloud", "local"
"""The endpoints that a key and a model of the cloud make."""

_CLOUD = re.compile(r"(?:-|:)cloud$", re.IGNORECASE)


def canonical(name: str) -> str:
    """Return a model's name as it is compared: lower case, with tag, without default host."""
    name = name.strip().lower()
    for prefix in ("https://", "http://", "registry.ollama.ai/", "library/"):
        name = name.removeprefix(prefix)
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def is_remote(name: str) -> bool:
    """Tell whether a name asks for a cloud model, which needs no pull."""
    tag = canonical(name).rpartition(":")[2]
    return tag == "cloud" or tag.endswith("-cloud")


def without_cloud(name: str) -> str:
    """Return what the cloud itself calls a model that a local server would send there."""
    return _CLOUD.sub("", name) if is_remote(name) else name


def mark_of(name: str) -> int:
    """Return a number of 64 bits that a name has in all processes, as a hash in Python has not.

    Any ``str`` has one, also what a visitor made up that is no Unicode text.
    """
    encoded = name.encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(encoded, digest_size=8, usedforsecurity=False).digest())
