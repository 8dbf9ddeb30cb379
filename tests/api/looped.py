"""Views asked on an event loop, as Django asks them under ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from asgiref.sync import iscoroutinefunction
from django.test import AsyncRequestFactory

from tests.api.sites import JSON

if TYPE_CHECKING:
    from django.http import HttpRequest

HI = {"message": "Hi"}


def request(headers: Mapping[str, str] = JSON, **fields: object) -> HttpRequest:
    """Return a request that asks; a message is there unless it is given."""
    factory: Any = AsyncRequestFactory()
    found: HttpRequest = factory.post(
        "/", HI | fields, content_type="application/json", headers=headers
    )
    return found


def answered(view: Any, request: HttpRequest) -> Any:
    """Return the response of a view, which is no stream."""

    async def answer() -> Any:
        assert iscoroutinefunction(view)
        return (await view(request)).render()

    return asyncio.run(answer())
