"""TLS as ``VERIFY_SSL`` asks for it; one context for an endpoint serves both drivers."""

from __future__ import annotations

import ssl
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from requests.utils import DEFAULT_CA_BUNDLE_PATH

from .sockets import HandshakeSocket

if TYPE_CHECKING:
    from ..core.types import Endpoint


class TlsContexts:
    """The TLS contexts of endpoints, made once: loading a CA file takes a while. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[bool | str, ssl.SSLContext] = {}

    def of(self, endpoint: Endpoint) -> ssl.SSLContext | None:
        """Return the context of an endpoint, None where neither it nor its proxy speaks TLS."""
        if not (endpoint.is_secure or (endpoint.proxy or "").startswith("https:")):
            return None
        with self._lock:
            if endpoint.verify not in self._made:
                self._made[endpoint.verify] = _context(endpoint.verify)
            return self._made[endpoint.verify]

    def after_fork(self) -> None:
        """In a forked child nobody holds the lock."""
        self._lock = threading.Lock()


def _context(verify: bool | str) -> ssl.SSLContext:
    path = verify if isinstance(verify, str) else DEFAULT_CA_BUNDLE_PATH
    folder = Path(path).is_dir()
    context = ssl.create_default_context(
        cafile=None if folder else path, capath=path if folder else None
    )
    context.sslsocket_class = HandshakeSocket
    if verify is False:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
