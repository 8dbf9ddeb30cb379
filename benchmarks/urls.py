"""The site that is measured: the bridge, and by hand the least that does the same."""

from __future__ import annotations

import json
from time import process_time
from typing import TYPE_CHECKING, Any, Final

from django.http import HttpResponse, StreamingHttpResponse
from django.urls import include, path
from django.views.decorators.csrf import csrf_exempt
from rest_framework.permissions import AllowAny
from rest_framework.renderers import JSONRenderer
from rest_framework.response import Response
from rest_framework.views import APIView

from ollama_bridge import conf

from . import peers
from .askers import CHAT_PATH
from .replies import MODEL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from django.http import HttpRequest
    from rest_framework.request import Request


class FloorView(APIView):
    """Answers 503 to everybody, without a look at the request."""

    permission_classes = (AllowAny,)
    throttle_classes = ()
    renderer_classes = (JSONRenderer,)

    def post(self, _: Request) -> Response:
        return Response(
            {"success": False, "code": "circuit_open"}, 503, headers={"Retry-After": "5"}
        )


class _Relay:
    """Relays a stream as server-sent events, and does nothing else: one session for all."""

    def __init__(self) -> None:
        self._session: Any = None

    async def __call__(self, request: HttpRequest) -> StreamingHttpResponse:
        if self._session is None:
            aiohttp = peers.load("aiohttp")
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        question = json.loads(request.body)["message"]
        return StreamingHttpResponse(self._events(question), content_type="text/event-stream")

    async def _events(self, question: str) -> AsyncIterator[bytes]:
        asked = {
            "model": MODEL,
            "messages": [{"role": "user", "content": question}],
            "stream": True,
        }
        url = conf.current().BASE_URL + CHAT_PATH
        async with self._session.post(url, json=asked) as response:
            async for line in response.content:
                part = json.loads(line)
                if text := part["message"]["content"]:
                    yield _event("delta", {"text": text})
        yield _event("done", {"success": True, "model": part["model"]})


_relay: Final = _Relay()


@csrf_exempt
async def relay_view(request: HttpRequest) -> StreamingHttpResponse:
    """Relay a stream by hand."""
    return await _relay(request)


async def processor_view(_: HttpRequest) -> HttpResponse:
    """Tell the processor time of this process, in seconds."""
    return HttpResponse(repr(process_time()), content_type="text/plain")


def _event(name: str, data: object) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


urlpatterns = [
    path("api/", include("ollama_bridge.urls")),
    path("floor/", FloorView.as_view()),
    path("relay/", relay_view),
    path("processor/", processor_view),
]
