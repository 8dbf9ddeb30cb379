"""From exceptions of aiohttp and the system to the core's few kinds of fault.

As in ``faults``, the original is not kept as a cause: it holds the request.
"""

from __future__ import annotations

import errno
import re
import ssl
from typing import TYPE_CHECKING

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from ..core.actions import FaultKind, TransportFault
from .faults import chain_of, detail_of, is_any, names_of

if TYPE_CHECKING:
    from .aiosessions import Exchange
    from .faults import Kinds

_PROXY: Kinds = (aiohttp.ClientProxyConnectionError, aiohttp.ClientHttpProxyError)
# Before there is a connection, it is the proxy that has no address, or answers badly.
_OF_PROXY: Kinds = (
    *(aiohttp.ClientConnectorDNSError, aiohttp.ServerDisconnectedError),
    *(aiohttp.ClientResponseError, HttpProcessingError),
)
_BROKEN: Kinds = (
    *(ConnectionResetError, ConnectionAbortedError, BrokenPipeError),
    *(ssl.SSLEOFError, ssl.SSLZeroReturnError),
)

# As llhttp words it; what follows is the peer's own text.
_BROKEN_CHUNK = re.compile("Invalid character in chunk|Chunk size overflow")

# The first row that any exception of the chain belongs to, from special to general.
_TABLE: tuple[tuple[Kinds, FaultKind], ...] = (
    ((aiohttp.ClientConnectorDNSError,), FaultKind.UNRESOLVED),
    ((ssl.SSLCertVerificationError,), FaultKind.TLS),
    ((ConnectionRefusedError,), FaultKind.REFUSED),
    (_BROKEN, FaultKind.DROPPED),
    ((ssl.SSLError,), FaultKind.TLS),
    ((aiohttp.ClientConnectorError,), FaultKind.UNREACHABLE),
)


def fault_of(error: BaseException, exchange: Exchange) -> TransportFault:
    """Say what went wrong. The detail comes from the system's own tables, never from a peer."""
    chain = list(chain_of(error))
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return TransportFault(FaultKind.PROXY, f"HTTP {error.status}", names_of(chain))
    kind = _answered(chain, exchange) if exchange.connected else _connecting(chain, exchange)
    # aiohttp's own have the system's classes, but not what those know.
    known = [each for each in chain if not isinstance(each, aiohttp.ClientConnectorError)]
    return TransportFault(kind, detail_of(known), names_of(chain))


def is_refused(error: BaseException) -> bool:
    chain = list(chain_of(error))
    return is_any(chain, (ConnectionRefusedError,)) or any(
        getattr(each, "errno", None) == errno.ECONNREFUSED for each in chain
    )


def _connecting(chain: list[BaseException], exchange: Exchange) -> FaultKind:
    if is_any(chain, _PROXY) or (exchange.proxied and is_any(chain, _OF_PROXY)):
        return FaultKind.PROXY
    if is_refused(chain[0]):
        return FaultKind.REFUSED
    for kinds, kind in _TABLE:
        if is_any(chain, kinds):
            return kind
    return FaultKind.CONNECT_TIMEOUT if is_any(chain, (TimeoutError,)) else FaultKind.DROPPED


def _answered(chain: list[BaseException], exchange: Exchange) -> FaultKind:
    begun = exchange.received > 0
    if is_any(chain, (TimeoutError,)):
        return FaultKind.SLOW if begun else FaultKind.SILENT
    if is_any(chain, (aiohttp.ClientResponseError,)) and not _is_broken_chunk(chain):
        return FaultKind.GARBLED
    return FaultKind.CUT if begun else FaultKind.DROPPED


def _is_broken_chunk(chain: list[BaseException]) -> bool:
    """Tell whether the head was good: aiohttp forgets it if a bad chunk comes along with it."""
    return any(_BROKEN_CHUNK.match(getattr(each, "message", "")) for each in chain)
