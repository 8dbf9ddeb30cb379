"""The operator's page: every endpoint of the settings as this process sees it, and what to do.

Django's ``ModelAdmin`` gives it its place, its permissions and its history. But no rows are edited:
an endpoint is listed because the settings name it, and is moved by actions, each of them a POST.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.db import DatabaseError, connections, transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.views.decorators.http import require_POST

from .. import keeping
from ..client import ollama_client
from ..models import EndpointState, Mode, database
from . import page, wording

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.urls import URLPattern

    Base = admin.ModelAdmin[EndpointState]
    Action = Callable[[HttpRequest, str], None]
else:
    Base = admin.ModelAdmin

OPERATE = "ollama_bridge.operate_endpoint"


class ReasonForm(forms.Form):
    """Why an operator does something; people may leave it out."""

    reason = forms.CharField(
        max_length=EndpointState._meta.get_field("reason").max_length,  # noqa: SLF001  # Django's public _meta
        required=False,
    )

    def clean_reason(self) -> str:
        return " ".join(self.cleaned_data["reason"].split())


@admin.register(EndpointState)
class EndpointStateAdmin(Base):
    """The page of endpoints. Seeing it and acting on it are two permissions."""

    change_list_template = "admin/ollama_bridge/endpointstate/change_list.html"

    def get_urls(self) -> list[URLPattern]:
        """Return page, history and actions; nothing adds, edits or deletes a row."""
        kept = [self._url_name(name) for name in ("changelist", "history", "change")]
        return [
            self._action("reset", self.reset),
            self._action("force-open", self.force_open),
            self._action("disable", self.disable),
            self._action("check", self.check_now),
            *(each for each in super().get_urls() if each.name in kept),
        ]

    def has_add_permission(self, request: HttpRequest) -> bool:  # noqa: ARG002  # as Django has it
        return False

    def has_change_permission(
        self,
        request: HttpRequest,  # noqa: ARG002  # the same
        obj: EndpointState | None = None,  # noqa: ARG002  # the same
    ) -> bool:
        return False

    def has_delete_permission(
        self,
        request: HttpRequest,  # noqa: ARG002  # the same
        obj: EndpointState | None = None,  # noqa: ARG002  # the same
    ) -> bool:
        return False

    def has_view_permission(self, request: HttpRequest, obj: EndpointState | None = None) -> bool:
        return self.has_operate_permission(request) or super().has_view_permission(request, obj)

    def has_operate_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm(OPERATE)

    def get_object(
        self,
        request: HttpRequest,  # noqa: ARG002  # the same
        object_id: str,
        from_field: str | None = None,  # noqa: ARG002  # the same
    ) -> EndpointState | None:
        """Return an endpoint of the settings; it needs no row to have a history."""
        return EndpointState(name=object_id) if object_id in page.names() else None

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        context = {
            **self.admin_site.each_context(request),
            "title": "Endpoints of Ollama",
            "opts": self.opts,
            "cl": {"opts": self.opts},  # what Django's own template wants for its breadcrumbs
            "actions_on_top": True,  # and this, or it writes a style into the page
            "media": forms.Media(),
            "may_operate": self.has_operate_permission(request),
            "page": page.look(),
            **(extra_context or {}),
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, self.change_list_template, context)

    def change_view(
        self,
        request: HttpRequest,  # noqa: ARG002  # the same
        object_id: str,  # noqa: ARG002  # the same
        form_url: str = "",  # noqa: ARG002  # the same
        extra_context: dict[str, Any] | None = None,  # noqa: ARG002  # the same
    ) -> HttpResponse:
        """Lead to the page, where Django's log of recent actions has its links."""
        return self._to_page()

    def reset(self, request: HttpRequest, name: str) -> None:
        self._change(request, name, Mode.AUTO)

    def force_open(self, request: HttpRequest, name: str) -> None:
        self._change(request, name, Mode.FORCED_OPEN)

    def disable(self, request: HttpRequest, name: str) -> None:
        self._change(request, name, Mode.DISABLED)

    def check_now(self, request: HttpRequest, name: str) -> None:
        """Ask the servers how they are, which takes some seconds at most; moves no circuit."""
        ollama_client.ask_accounts(name)  # a cloud lists its models to anybody, whatever the key
        health = ollama_client.health_check(force=True).endpoints[name]
        level = {"healthy": messages.SUCCESS, "degraded": messages.WARNING}
        self.log_change(request, EndpointState(name=name), page.checked(health))
        said = wording.found(health)
        self.message_user(request, said, level.get(health.status, messages.ERROR))

    def _change(self, request: HttpRequest, name: str, mode: Mode) -> None:
        form = ReasonForm(request.POST)
        if not form.is_valid():
            wrong = " ".join(map(str, form.errors["reason"]))
            self.message_user(request, f"Nothing was changed. Reason: {wrong}", messages.ERROR)
        elif keeping.is_migrated():
            self._store(request, name, mode, form.cleaned_data["reason"])
        else:
            self._change_here(request, name, mode, form.cleaned_data["reason"])

    def _store(self, request: HttpRequest, name: str, mode: Mode, reason: str) -> None:
        with transaction.atomic(using=database()):
            state = EndpointState.objects.change(name, mode, reason)
            self.log_change(request, state, page.changed(name, mode, reason))
            transaction.on_commit(partial(ollama_client.mode_changed, name), using=database())
        self.message_user(
            request,
            f"{page.DONE[mode].format(name)} Other processes follow within 5 seconds.",
            messages.SUCCESS,
        )

    def _change_here(self, request: HttpRequest, name: str, mode: Mode, reason: str) -> None:
        """Do without the table what can be done without it."""
        keeping.move(ollama_client.circuit_breakers[name], mode)
        line = f"{page.changed(name, mode, reason)} (in one process only)"
        self.log_change(request, EndpointState(name=name), line)
        self.message_user(
            request,
            f"{page.DONE[mode].format(name)} This process only, until it ends.",
            messages.WARNING,
        )

    def _action(self, word: str, action: Action) -> URLPattern:
        view = self.admin_site.admin_view(require_POST(partial(self._perform, action=action)))
        for alias in connections:
            # A check takes seconds, in which a transaction would hold its locks. The others have
            # transactions of their own.
            transaction.non_atomic_requests(using=alias)(view)
        return path(f"<slug:name>/{word}/", view, name=self._url_name(word))

    def _perform(self, request: HttpRequest, name: str, action: Action) -> HttpResponse:
        if not self.has_operate_permission(request):
            raise PermissionDenied
        try:
            if name not in ollama_client.endpoints:
                raise Http404("There is no such endpoint in the settings.")
            action(request, name)
        except ImproperlyConfigured:
            pass  # the page says what is wrong
        except DatabaseError as error:
            said = f"Nothing was changed: the database said {type(error).__name__}."
            self.message_user(request, said, messages.ERROR)
        return self._to_page()

    def _to_page(self) -> HttpResponse:
        site = self.admin_site.name
        return redirect(reverse(f"admin:{self._url_name('changelist')}", current_app=site))

    def _url_name(self, word: str) -> str:
        return f"{self.opts.app_label}_{self.opts.model_name}_{word}"
