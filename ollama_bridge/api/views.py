"""The views. All are made to be subclassed; the hooks are named ``get_…``."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, cast

from asgiref.sync import sync_to_async
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.asgi import ASGIRequest
from django.db import connections, transaction
from django.http import StreamingHttpResponse
from django.utils.cache import add_never_cache_headers
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables
from rest_framework.exceptions import APIException
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.permissions import AllowAny
from rest_framework.renderers import JSONRenderer
from rest_framework.response import Response
from rest_framework.views import APIView, set_rollback

from .. import conf
from ..client import ollama_client
from . import bodies, events, parsers, request_ids, threads
from .arelay import AsyncEvents, ThreadedEvents
from .concurrency import calls_by_user
from .entry import DualView
from .errors import Problem, problem_of
from .permissions import FromSettings
from .relay import Events
from .serializers import ChatSerializer
from .throttling import ChatThrottle, user_of, who_asks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    from django.http import HttpRequest
    from django.http.response import HttpResponseBase
    from rest_framework.permissions import _PermissionClass
    from rest_framework.renderers import BaseRenderer
    from rest_framework.request import Request
    from rest_framework.throttling import BaseThrottle
    from rest_framework.views import AsView, GenericView

    from ..client import OllamaClient
    from ..core.health import HealthReport
    from ..core.types import ChatReply

logger = logging.getLogger(__name__)

# RFC 9110 wants a challenge with a 401. No browser knows this one, so none opens a dialogue.
_CHALLENGE = "Session"

# What runs on the event loop around a handler that does. An override may ask the database, which is
# for threads only.
_AROUND_HANDLERS = ("finalize_response", "answered", "failed", "get_problem", "told")

# Where the client sends one of these, it may itself be to blame for a request that is rejected.
_CHOICES = frozenset({"model", "options", "system_prompt"})


class BridgeView(APIView):
    """What all views of the bridge share, whatever the project sets for its own.

    JSON in and out, one shape of errors, a request id, no caching, no transaction.
    """

    permission_classes: Sequence[_PermissionClass] = (FromSettings,)
    throttle_classes: Sequence[type[BaseThrottle]] = (ChatThrottle,)
    parser_classes = (parsers.BoundedJSONParser,)
    renderer_classes: Sequence[type[BaseRenderer]] = (JSONRenderer,)
    content_negotiation_class = DefaultContentNegotiation
    versioning_class = None

    request_id = ""
    staff: bool | None = None  # not known before somebody has looked who asks

    @classmethod
    def as_view(cls, **initkwargs: object) -> AsView[GenericView]:
        """Return the view, for WSGI and ASGI alike: under ASGI no thread waits for a model.

        It is outside ``ATOMIC_REQUESTS``: a call may take a minute.
        """

        @sensitive_post_parameters()
        async def aview(request: HttpRequest, *args: object, **kwargs: object) -> HttpResponseBase:
            self = cls(**initkwargs)
            self.setup(request, *args, **kwargs)
            # Under WSGI an async view may call this one too, but on a loop that ends with it: no
            # stream could go on there.
            methods = self.http_method_names if isinstance(request, ASGIRequest) else ()
            if (request.method or "").lower() in cls._native_methods().intersection(methods):
                return await self.adispatch(request, *args, **kwargs)
            return await sync_to_async(self.dispatch)(request, *args, **kwargs)

        view: Any = super().as_view(**initkwargs)
        for alias in connections:
            transaction.non_atomic_requests(using=alias)(view)
        return cast("AsView[GenericView]", DualView(sensitive_post_parameters()(view), aview))

    @classmethod
    def _native_methods(cls) -> frozenset[str]:
        """Return the methods whose ``a…`` twin may serve them on the event loop.

        A subclass that overrides the sync one only, or what runs around it, is served in a thread.
        """
        if not threads.can_do_without() or _home(cls, "dispatch") is not BridgeView:
            return frozenset()
        return frozenset(
            name
            for name in cls.http_method_names
            if hasattr(cls, name)
            and hasattr(cls, f"a{name}")
            and all(
                issubclass(_home(cls, f"a{name}"), _home(cls, each))
                for each in (name, *_AROUND_HANDLERS)
                if hasattr(cls, each)
            )
        )

    def get_client(self) -> OllamaClient:
        """Return the client to ask; override this for one of your own."""
        return ollama_client

    def prepare(self, request: Request) -> object:
        """Return what there is to do, once it is known that the request is in order.

        Under ASGI this runs in a thread, so that it may ask the database; what it returns goes to
        the handler, which runs on the event loop.
        """

    def dispatch(self, request: HttpRequest, *args: object, **kwargs: object) -> HttpResponseBase:
        with request_ids.bound(request) as self.request_id:
            response = super().dispatch(request, *args, **kwargs)
        return self._labelled(response)

    async def adispatch(
        self, request: HttpRequest, *args: object, **kwargs: object
    ) -> HttpResponseBase:
        """Do as ``dispatch`` does, on an event loop.

        Only ``prepare`` with what comes before it, and errors, take a thread for a moment.
        """
        with request_ids.bound(request) as self.request_id:
            self.args, self.kwargs = args, kwargs
            self.request = found = self.initialize_request(request, *args, **kwargs)
            self.headers = self.default_response_headers
            try:
                prepared = await sync_to_async(self._prepared)(found, *args, **kwargs)
                await threads.release()
                handler = getattr(self, f"a{(request.method or '').lower()}")
                response = await handler(found, prepared)
            except Exception as exc:  # noqa: BLE001  # as REST framework's own dispatch
                response = await sync_to_async(self.handle_exception)(exc)
            self.response = self.finalize_response(found, response, *args, **kwargs)
        return self._labelled(self.response)

    def _prepared(self, request: Request, *args: object, **kwargs: object) -> object:
        self.initial(request, *args, **kwargs)
        return self.prepare(request)

    def _labelled(self, response: HttpResponseBase) -> HttpResponseBase:
        response.headers[request_ids.HEADER] = self.request_id
        if not response.streaming:
            add_never_cache_headers(response)
        return response

    def initial(self, request: Request, *args: object, **kwargs: object) -> None:
        parsers.refuse_by_length(request)
        super().initial(request, *args, **kwargs)
        self.staff = is_staff(request)
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
        body = self.told(problem)
        headers = problem.headers()
        if problem.code == "not_authenticated":
            headers["WWW-Authenticate"] = self.get_authenticate_header(self.request) or _CHALLENGE
        response = Response(body, problem.status, headers=headers)
        response.exception = True
        return response

    def told(self, problem: Problem) -> dict[str, Any]:
        """Return the body that tells of a problem."""
        staff = is_staff(self.request) if self.staff is None else self.staff
        return problem.body(self.request_id, staff=staff)


class Question(NamedTuple):
    """What is asked, and by whom."""

    client: OllamaClient
    message: str
    system_prompt: str | None
    chosen: Mapping[str, Any]
    who: str
    is_streamed: bool

    def __repr__(self) -> str:
        """Return nothing of what is asked, for logs and error reports."""
        return f"Question(is_streamed={self.is_streamed})"

    def seat(self) -> AbstractContextManager[None]:
        """Return what counts the call as one of its user's, as long as it is entered."""
        return calls_by_user.one(self.who, conf.current().MAX_CALLS_PER_USER)


class ChatView(BridgeView):
    """One question, one answer: whole, or as server-sent events while it is made.

    ``Accept: text/event-stream`` or ``"stream": true`` asks for events: ``delta`` and ``thinking``
    with ``{"text": …}``, at last one ``done`` or one ``error`` with the body that would else be the
    response. Before the first of them, for ``SSE_COMMIT_AFTER`` seconds at most, an error is a
    response with its own status.
    """

    serializer_class: ClassVar[type[ChatSerializer]] = ChatSerializer
    renderer_classes = (JSONRenderer, events.EventStreamRenderer)

    _chosen = False
    _wants_events = False

    @sensitive_variables()
    def post(self, request: Request, *_: object, **__: object) -> HttpResponseBase:
        asked = self.prepare(request)
        with ExitStack() as stack:
            stack.enter_context(asked.seat())
            if not asked.is_streamed:
                reply = asked.client.chat(asked.message, asked.system_prompt, **asked.chosen)
                return Response(self.answered(reply))
            stream = asked.client.stream(asked.message, asked.system_prompt, **asked.chosen)
            found = Events(stream, self, stack.pop_all().close)
        threads.hang_up()
        try:
            found.begin(conf.current().SSE_COMMIT_AFTER)
        except BaseException:
            found.close()
            raise
        on_asgi = isinstance(request._request, ASGIRequest)  # noqa: SLF001  # the documented way
        return _event_stream(ThreadedEvents(found) if on_asgi else found)

    @sensitive_variables()
    async def apost(self, _request: Request, asked: Question) -> HttpResponseBase:
        with ExitStack() as stack:
            stack.enter_context(asked.seat())
            if not asked.is_streamed:
                reply = await asked.client.achat(asked.message, asked.system_prompt, **asked.chosen)
                return Response(self.answered(reply))
            stream = asked.client.astream(asked.message, asked.system_prompt, **asked.chosen)
            found = AsyncEvents(stream, self, stack.pop_all().close)
        try:
            await found.begin(conf.current().SSE_COMMIT_AFTER)
        except BaseException:
            found.stop()
            raise
        return _event_stream(found)

    @sensitive_variables()
    def prepare(self, request: Request) -> Question:
        serializer = self.serializer_class(data=request.data)
        serializer.is_valid(raise_exception=True)
        data = serializer.validated_data
        self._chosen = not _CHOICES.isdisjoint(data)
        return Question(
            client=self.get_client(),
            message=data["message"],
            system_prompt=self.get_system_prompt(data),
            chosen=self._chosen_by_client(data) | self._chosen_by_site(data),
            who=who_asks(request),
            is_streamed=self._wants_events or data.get("stream", False),
        )

    def perform_content_negotiation(
        self, request: Request, force: bool = False
    ) -> tuple[BaseRenderer, str]:
        """Note whether events are wanted; whatever is no event is JSON."""
        renderer, _ = super().perform_content_negotiation(request, force)
        self._wants_events = isinstance(renderer, events.EventStreamRenderer)
        return JSONRenderer(), JSONRenderer.media_type

    def get_system_prompt(self, data: Mapping[str, Any]) -> str | None:
        """Return what the model is told first; None for the setting, "" for nothing at all.

        ``data`` is the request as the serializer has validated it.
        """
        return data.get("system_prompt")

    def get_using(self, data: Mapping[str, Any]) -> str | None:  # noqa: ARG002  # for overrides
        """Return the route or the endpoint to ask, None for the one that serves by default."""
        return None

    def get_sticky_key(self, data: Mapping[str, Any]) -> str:  # noqa: ARG002  # the same
        """Return whose calls go to the same target, where a route draws lots: each user's."""
        return user_of(self.request)

    def get_cache_ttl(self, data: Mapping[str, Any]) -> float | None:  # noqa: ARG002  # the same
        """Return for how many seconds an answer may serve again, None to ask in any case.

        Where ``CACHE`` is None nothing is kept.
        """
        return None

    def get_cache_scope(self, data: Mapping[str, Any]) -> str | None:  # noqa: ARG002  # the same
        """Return who may have an answer again: its user alone, unless you say "shared".

        None keeps nothing, and is for visitors who are not logged in: we cannot tell them apart.
        """
        return user_of(self.request) or None

    def _chosen_by_client(self, data: Mapping[str, Any]) -> dict[str, Any]:
        return {name: data[name] for name in ("history", "model", "options") if name in data}

    def _chosen_by_site(self, data: Mapping[str, Any]) -> dict[str, Any]:
        chosen: dict[str, Any] = {
            "using": self.get_using(data),
            "sticky_key": self.get_sticky_key(data),
        }
        caching = {"cache_ttl": self.get_cache_ttl(data), "cache_scope": self.get_cache_scope(data)}
        if all(caching.values()) and conf.current().CACHE is not None:
            chosen |= caching
        return {name: value for name, value in chosen.items() if value not in (None, "")}

    def get_problem(self, exc: Exception) -> Problem | None:
        return problem_of(exc, chosen=self._chosen)

    def answered(self, reply: ChatReply) -> dict[str, Any]:
        """Return the body of an answer."""
        return bodies.of_answer(reply, self.request_id)

    def failed(self, error: Exception) -> Problem | None:
        return self.get_problem(error)


class HealthView(BridgeView):
    """Whether the default model can serve. For load balancers, so it is open to everyone."""

    permission_classes = (AllowAny,)
    throttle_classes = ()

    def get(self, request: Request, *_: object, **__: object) -> Response:
        client, force = self.prepare(request)
        return self._told(client.health_check(force=force))

    async def aget(self, _request: Request, prepared: tuple[OllamaClient, bool]) -> Response:
        client, force = prepared
        return self._told(await client.ahealth_check(force=force))

    def prepare(self, request: Request) -> tuple[OllamaClient, bool]:
        force = bool(self.staff) and request.query_params.get("force") == "1"
        return self.get_client(), force

    def _told(self, report: HealthReport) -> Response:
        problem = None if report else bodies.standstill(report)
        body = bodies.of_health(report, problem)
        if self.staff:
            body["endpoints"] = {
                name: bodies.of_endpoint(each) for name, each in report.endpoints.items()
            }
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


def _home(cls: type, name: str) -> type:
    """Return the class that a method is from."""
    return next(each for each in cls.__mro__ if name in vars(each))


def _event_stream(content: Events | AsyncEvents | ThreadedEvents) -> StreamingHttpResponse:
    return StreamingHttpResponse(
        content, content_type=events.MEDIA_TYPE, headers=dict(events.HEADERS)
    )


def is_staff(request: Request) -> bool:
    """Tell whether a member of staff asks; a request that cannot tell who asks is none."""
    try:
        return bool(getattr(request.user, "is_staff", False))
    except APIException:
        return False
