"""One view for both kinds of server: sync under WSGI, async under ASGI.

Django takes a view for one or the other for good. A sync one costs a thread for each call that
waits under ASGI; an async one costs an event loop for each call under WSGI, which could keep no
connection for the next.
"""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any, Final

from asgiref.sync import markcoroutinefunction

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

_MARK: Final[Mapping[str, Any]] = vars(markcoroutinefunction(lambda: None))
"""The attribute by which Django and asgiref know an async callable."""


class DualView:
    """Is async, and says so, wherever an event loop runs in the thread that asks; else sync.

    Django asks for that before there is a request to look at. So its sync test client cannot be
    used where a loop runs in the same thread, in a notebook say: there ``AsyncClient`` can.
    """

    def __init__(
        self,
        view: Callable[..., HttpResponseBase],
        aview: Callable[..., Awaitable[HttpResponseBase]],
    ) -> None:
        functools.update_wrapper(self, view)
        self._view = view
        self._aview = aview

    def __call__(
        self, request: HttpRequest, *args: object, **kwargs: object
    ) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        view = self._aview if _is_on_a_loop() else self._view
        return view(request, *args, **kwargs)

    def __getattr__(self, name: str) -> object:
        if name in _MARK and _is_on_a_loop():
            return _MARK[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


def _is_on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
