"""The site of the benchmark ``refusal_http``: the bridge, and the least that REST framework can."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.urls import include, path
from rest_framework.permissions import AllowAny
from rest_framework.renderers import JSONRenderer
from rest_framework.response import Response
from rest_framework.views import APIView

if TYPE_CHECKING:
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


urlpatterns = [path("api/", include("ollama_bridge.urls")), path("floor/", FloorView.as_view())]
