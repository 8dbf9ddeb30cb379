"""The views. All are made to be subclassed; the hooks are named ``get_…``."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from django.core.exceptions import ImproperlyConfigured
from django.db import connections, transaction
from django.utils.cache import add_never_cache_headers
from django.utils.decorators import method_decorator
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables
from rest_framework.exceptions import APIException
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.permissions import AllowAny
from rest_framework.renderers import JSONRenderer
from rest_framework.response import Response
from rest_framework.views import APIView, set_rollback

from .. import conf
from ..client import ollama_client
from ..errors import OllamaBridgeError
from . import parsers, request_ids
from .concurrency import calls_by_user
from .errors import Problem, of_bridge, problem_of, wait_for
from .permissions import FromSettings
from .serializers import ChatSerializer
from .throttling import ChatThrottle, who_asks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from django.http import HttpRequest
    from django.http.response import HttpResponseBase
    from rest_framework.permissions import _PermissionClass
    from rest_framework.request import Request
    from rest_framework.throttling import BaseThrottle
    from rest_framework.views import AsView, GenericView

    from ..client import OllamaClient
    from ..core.health import HealthReport
    from ..core.types import ChatReply

logger = logging.getLogger(__name__)

# RFC 9110 wants a challenge with a 401. No browser knows this one, so none opens a dialogue.
_CHALLENGE = "Session"

# Where the client sends one of these, it may itself be to blame for a request that is rejected.
_CHOICES = frozenset({"model", "options", "system_prompt"})


class BridgeView(APIView):
    """What all views of the bridge share, whatever the project sets for its own.

    JSON in and out, one shape of errors, a request id, no caching, no transaction.
    """

    permission_classes: Sequence[_PermissionClass] = (FromSettings,)
    throttle_classes: Sequence[type[BaseThrottle]] = (ChatThrottle,)
    parser_classes = (parsers.BoundedJSONParser,)
    renderer_classes = (JSONRenderer,)
    content_negotiation_class = DefaultContentNegotiation
    versioning_class = None

    request_id = ""

    @classmethod
    def as_view(cls, **initkwargs: object) -> AsView[GenericView]:
        """Return the view, outside ``ATOMIC_REQUESTS``: a call may take a minute."""
        view = super().as_view(**initkwargs)
        for alias in connections:
            transaction.non_atomic_requests(using=alias)(view)
        return view

    def get_client(self) -> OllamaClient:
        """Return the client to ask; override this for one of your own."""
        return ollama_client

    @method_decorator(sensitive_post_parameters())
    def dispatch(self, request: HttpRequest, *args: object, **kwargs: object) -> HttpResponseBase:
        with request_ids.bound(request) as self.request_id:
            response = super().dispatch(request, *args, **kwargs)
        response.headers[request_ids.HEADER] = self.request_id
        add_never_cache_headers(response)
        return response

    def initial(self, request: Request, *args: object, **kwargs: object) -> None:
        parsers.refuse_by_length(request)
        super().initial(request, *args, **kwargs)
        if hasattr(self, (request.method or "").lower()):
            parsers.admit_body(request, self.get_parsers())

    def handle_exception(self, exc: Exception) -> Response:
        """Return the answer that tells of an error; a bug of the server's own is raised again."""
        problem = self.get_problem(exc)
        if problem is None:
            raise exc
        if isinstance(exc, ImproperlyConfigured):
            logger.error("%s", exc)
        set_rollback()
        return self.answer_problem(problem)

    def get_problem(self, exc: Exception) -> Problem | None:
        """Return what an exception means for the client; None lets Django answer with its 500."""
        return problem_of(exc)

    def answer_problem(self, problem: Problem) -> Response:
        body = problem.body(self.request_id, staff=is_staff(self.request))
        headers = problem.headers()
        if problem.code == "not_authenticated":
            headers["WWW-Authenticate"] = self.get_authenticate_header(self.request) or _CHALLENGE
        response = Response(body, problem.status, headers=headers)
        response.exception = True
        return response


class ChatView(BridgeView):
    """One question, one answer."""

    serializer_class: ClassVar[type[ChatSerializer]] = ChatSerializer

    _chosen = False

    @sensitive_variables()
    def post(self, request: Request, *_: object, **__: object) -> Response:
        serializer = self.serializer_class(data=request.data)
        serializer.is_valid(raise_exception=True)
        data = serializer.validated_data
        self._chosen = not _CHOICES.isdisjoint(data)
        with calls_by_user.one(who_asks(request), conf.current().MAX_CALLS_PER_USER):
            reply = self.get_client().chat(
                data["message"],
                self.get_system_prompt(data),
                history=data.get("history", ()),
                model=data.get("model"),
                options=data.get("options"),
            )
        return Response(_answer(reply, self.request_id))

    def get_system_prompt(self, data: Mapping[str, Any]) -> str | None:
        """Return what the model is told first; None for the setting, "" for nothing at all.

        ``data`` is the request as the serializer has validated it.
        """
        return data.get("system_prompt")

    def get_problem(self, exc: Exception) -> Problem | None:
        return problem_of(exc, chosen=self._chosen)


class HealthView(BridgeView):
    """Whether the default model can serve. For load balancers, so it is open to everyone."""

    permission_classes = (AllowAny,)
    throttle_classes = ()

    def get(self, request: Request, *_: object, **__: object) -> Response:
        staff = is_staff(request)
        force = staff and request.query_params.get("force") == "1"
        report = self.get_client().health_check(force=force)
        problem = None if report else _standstill(report)
        body = _health(report, problem)
        if staff:
            body["endpoints"] = {report.endpoint: _endpoint(report)}
        if problem is None:
            return Response(body)
        return Response(body, problem.status, headers=problem.headers())


class LiveView(BridgeView):
    """Whether this process answers at all; it asks neither Ollama nor the database."""

    authentication_classes = ()
    permission_classes = (AllowAny,)
    throttle_classes = ()

    def get(self, _request: Request, *_: object, **__: object) -> Response:
        return Response({"success": True, "status": "alive"})


def is_staff(request: Request) -> bool:
    """Tell whether a member of staff asks; a request that cannot tell who asks is none."""
    try:
        return bool(getattr(request.user, "is_staff", False))
    except APIException:
        return False


def _answer(reply: ChatReply, request_id: str) -> dict[str, Any]:
    return {
        "success": True,
        "response": str(reply),
        "source": reply.source,
        "reliability": reply.reliability,
        "model": reply.model,
        "usage": reply.usage.to_dict(),
        "done_reason": reply.done_reason,
        "request_id": request_id,
    }


def _standstill(report: HealthReport) -> Problem:
    """Return what stands in the way; here it is always a 503, whatever a chat would answer."""
    error = report.error or OllamaBridgeError()
    problem = of_bridge(error)
    seconds = report.retry_after if error.retry_after is None else error.retry_after
    return replace(problem, status=503, retry_after=wait_for(503, seconds))


def _health(report: HealthReport, problem: Problem | None) -> dict[str, Any]:
    body: dict[str, Any] = {
        "success": problem is None,
        "status": report.status,
        "ollama_connected": report.reachable,
        "default_model": report.model,
        "circuit_breaker_state": str(report.circuit),
    }
    if problem is not None:
        body |= {
            "error": problem.error,
            "code": problem.code,
            "retry_after": problem.retry_after,
        }
    return body


def _endpoint(report: HealthReport) -> dict[str, Any]:
    """Return what only the operator should know."""
    return {
        "url": report.url,
        "model": report.model,
        "reachable": report.reachable,
        "version": report.version,
        "models": dict(report.models),
        "loaded": sorted(report.loaded),
        "circuit_breaker_state": str(report.circuit),
        "latency_ms": round(report.latency * 1000, 1),
        "error": str(report.error) if report.error else None,
    }
