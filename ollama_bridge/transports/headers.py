"""The headers of every request to an endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import __version__

if TYPE_CHECKING:
    from ..core.types import Endpoint


def headers_of(endpoint: Endpoint) -> dict[str, str]:
    headers = {
        "User-Agent": f"ollama_bridge/{__version__}",
        **endpoint.headers,
        "Accept": "application/json, application/x-ndjson",
        "Accept-Encoding": "identity",
        "Content-Type": "application/json",
    }
    if endpoint.api_key:
        headers["Authorization"] = f"Bearer {endpoint.api_key}"
    return headers
