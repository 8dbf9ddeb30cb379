"""Views by which a test configures the site that it asks, and looks inside."""

from __future__ import annotations

import json
import os
import threading
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth import login
from django.contrib.auth.models import User
from django.core.signals import setting_changed
from django.db import connection, transaction
from django.db.backends.signals import connection_created
from django.dispatch import receiver
from django.http import Http404, HttpResponse, JsonResponse
from django.utils.deprecation import MiddlewareMixin

from ollama_bridge import ollama_client
from ollama_bridge.api import events
from ollama_bridge.api.concurrency import calls_by_user

from .running import BOUND

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

_databases: WeakSet[BaseDatabaseWrapper] = WeakSet()
_held: list[HttpResponseBase] = []
_let_go = threading.Event()


@receiver(connection_created)
def _note(connection: BaseDatabaseWrapper, **_: object) -> None:
    _databases.add(connection)


class WayOut(MiddlewareMixin):
    """Does with a response what ``way_out`` of its request asks for: lose it, hold it, ask."""

    def process_response(
        self, request: HttpRequest, response: HttpResponseBase
    ) -> HttpResponseBase:
        match request.GET.get("way_out"):
            case "lost":
                raise Http404
            case "held":
                _held.append(response)
                _let_go.wait(BOUND)
                _held.remove(response)
            case "asking the database":
                connection.ensure_connection()
        return response


def sync_only_middleware(
    get_response: Callable[[HttpRequest], HttpResponseBase],
) -> Callable[[HttpRequest], HttpResponseBase]:
    def middleware(request: HttpRequest) -> HttpResponseBase:
        response = get_response(request)
        response["X-Sync-Only"] = threading.current_thread().name
        return response

    return middleware


@transaction.non_atomic_requests  # Django takes no async view else where ATOMIC_REQUESTS is set
async def configure(request: HttpRequest) -> HttpResponse:
    """Begin anew, with the settings, the two spans between heartbeats and the lease of the body."""
    body: dict[str, Any] = json.loads(request.body)
    await ollama_client.aclose()
    settings.OLLAMA_BRIDGE = body["bridge"]
    await sync_to_async(setting_changed.send)(
        sender=None, setting="OLLAMA_BRIDGE", value=body["bridge"], enter=True
    )
    events.HEARTBEAT_EVERY, events.FIRST_HEARTBEAT = body["heartbeats"]
    events.LEASE = body["lease"]
    _let_go.clear()
    return HttpResponse()


def let_go(_request: HttpRequest) -> HttpResponse:
    """Let responses pass that ``WayOut`` holds."""
    _let_go.set()
    return HttpResponse()


def state(_request: HttpRequest) -> JsonResponse:
    """Tell what is under way in this process, and how the client fares."""
    stats = ollama_client.get_stats()
    breaker = ollama_client.circuit_breaker
    named = ("in_flight", "waiting", "cancelled_requests", "failed_requests")
    return JsonResponse(
        {
            "pid": os.getpid(),
            "threads": threading.active_count(),
            "calls": sum(map(len, calls_by_user._began.values())),
            "held": len(_held),
            "databases": sum(each.connection is not None for each in list(_databases)),
            "circuit": breaker.state,
            "failures": breaker.failures,
            **{name: stats[name] for name in named},
        }
    )


def enter(request: HttpRequest) -> HttpResponse:
    """Log somebody in."""
    user, _ = User.objects.get_or_create(username="ada")
    login(request, user, "django.contrib.auth.backends.ModelBackend")
    return HttpResponse()
