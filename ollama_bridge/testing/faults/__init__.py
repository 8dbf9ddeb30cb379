"""Ways to misbehave, for `FakeOllama.misbehave`.

A fault of your own is any object with `async def reply(self, exchange)`; see `Exchange`.
"""

from ..connection import Fault
from ..exchange import Exchange
from .body import CutBody, HugeBody, HugeLine, NotDone, TruncatedJSON
from .connection import (
    BlackHole,
    CloseAfterReply,
    Drip,
    Drop,
    Garbage,
    Reset,
    Stall,
)
from .status import (
    ErrorInOK,
    Status,
    WithHeaders,
    WrongType,
    bad_gateway,
    bad_option,
    busy,
    forbidden,
    gateway_timeout,
    model_missing,
    nested_error,
    out_of_memory,
    page_not_found,
    rate_limited,
    redirect,
    server_error,
    unauthorized,
    unavailable,
    usage_limit,
)
from .stream import CutStream, ErrorLine, Resplit, StallStream

__all__ = [
    "BlackHole",
    "CloseAfterReply",
    "CutBody",
    "CutStream",
    "Drip",
    "Drop",
    "ErrorInOK",
    "ErrorLine",
    "Exchange",
    "Fault",
    "Garbage",
    "HugeBody",
    "HugeLine",
    "NotDone",
    "Reset",
    "Resplit",
    "Stall",
    "StallStream",
    "Status",
    "TruncatedJSON",
    "WithHeaders",
    "WrongType",
    "bad_gateway",
    "bad_option",
    "busy",
    "forbidden",
    "gateway_timeout",
    "model_missing",
    "nested_error",
    "out_of_memory",
    "page_not_found",
    "rate_limited",
    "redirect",
    "server_error",
    "unauthorized",
    "unavailable",
    "usage_limit",
]
