from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from django.db import transaction
from django.urls import include, path
from django.views.decorators.cache import cache_control

from ollama_bridge.api.views import ChatView

from . import controls

if TYPE_CHECKING:
    from django.http import HttpRequest
    from django.http.response import HttpResponseBase
    from rest_framework.request import Request


class PostOnly(ChatView):
    """As projects wrote it before there was an ``apost``."""

    def post(self, request: Request, *args: object, **kwargs: object) -> HttpResponseBase:
        response = super().post(request, *args, **kwargs)
        is_main = threading.current_thread() is threading.main_thread()
        response["X-Served-In"] = "the main thread" if is_main else "a thread"
        return response


chat: Any = ChatView.as_view()


@transaction.non_atomic_requests
async def wrapped(request: HttpRequest) -> HttpResponseBase:
    """Ask the view as an async one of a project's own may."""
    response: HttpResponseBase = await chat(request)
    return response


urlpatterns = [
    path("api/", include("ollama_bridge.urls")),
    path("decorated/", cache_control(private=True)(ChatView.as_view())),
    path("post-only/", PostOnly.as_view()),
    path("wrapped/", wrapped),
    path("controls/let-go/", controls.let_go),
    path("controls/configure/", controls.configure),
    path("controls/state/", controls.state),
    path("controls/enter/", controls.enter),
]
