"""Who may call: the classes that ``PERMISSION_CLASSES`` names, read live."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string
from rest_framework.permissions import BasePermission

from .. import conf

if TYPE_CHECKING:
    from rest_framework.request import Request
    from rest_framework.views import APIView


class FromSettings(BasePermission):
    """Asks every class of ``PERMISSION_CLASSES``, and says what the first that refuses says."""

    message: str | None = None
    code: str | None = None

    def has_permission(self, request: Request, view: APIView) -> bool:
        for path in conf.current().PERMISSION_CLASSES:
            permission = _made(path)
            if not permission.has_permission(request, view):
                self.message = getattr(permission, "message", None)
                self.code = getattr(permission, "code", None)
                return False
        return True


def _made(path: str) -> BasePermission:
    try:
        made: BasePermission = import_string(path)()
    except ImportError as exc:
        raise ImproperlyConfigured(
            f"PERMISSION_CLASSES: {path!r} cannot be imported. Correct it: manage.py check"
        ) from exc
    return made
