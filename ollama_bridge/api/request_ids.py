"""The identifier of a request: the client's own if it is safe to log, else a new one."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

from .. import context

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.http import HttpRequest

HEADER = "X-Request-ID"
_SAFE = re.compile(r"[A-Za-z0-9._-]{1,64}")


@contextmanager
def bound(request: HttpRequest) -> Iterator[str]:
    """Give the request its identifier, which log lines and replies carry meanwhile."""
    sent = request.headers.get(HEADER, "")
    identifier = sent if _SAFE.fullmatch(sent) else uuid4().hex
    token = context.request_id.set(identifier)
    try:
        yield identifier
    finally:
        context.request_id.reset(token)
