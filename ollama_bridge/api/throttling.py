"""How often one user, or one address, may call: ``THROTTLE_RATE``."""

from __future__ import annotations

import logging
from hashlib import sha256
from typing import TYPE_CHECKING

from rest_framework.settings import api_settings
from rest_framework.throttling import BaseThrottle, SimpleRateThrottle

from .. import conf

if TYPE_CHECKING:
    from rest_framework.request import Request
    from rest_framework.views import APIView

logger = logging.getLogger(__name__)


class ChatThrottle(SimpleRateThrottle):
    """Counts the calls of all chat views together, in Django's default cache.

    This is politeness between users, not protection against attackers: counting is not atomic.
    Behind proxies, set REST framework's ``NUM_PROXIES``. Without it the address is that of the
    connection, because anybody can write anything into ``X-Forwarded-For``.
    """

    scope = "ollama_bridge"

    def get_rate(self) -> str | None:
        return conf.current().THROTTLE_RATE

    def get_cache_key(self, request: Request, view: APIView) -> str:  # noqa: ARG002  # REST's own
        # A hash, because an address from a header may hold what no cache takes as a key.
        return self.cache_format % {
            "scope": self.scope,
            "ident": sha256(who_asks(request).encode()).hexdigest()[:32],
        }

    def allow_request(self, request: Request, view: APIView) -> bool:
        """Let everybody pass while the cache is down: chats are worth more than their count."""
        try:
            return super().allow_request(request, view)
        except Exception:
            logger.exception("The cache failed, so calls are not counted. Check CACHES")
            return True


def user_of(request: Request) -> str:
    """Return what tells a user who is logged in from all others, "" for anybody else."""
    user = request.user
    if getattr(user, "is_authenticated", False) and getattr(user, "pk", None) is not None:
        return f"user:{user.pk}"
    return ""


def who_asks(request: Request) -> str:
    """Return what tells one user from others, or one address where nobody is logged in."""
    if user := user_of(request):
        return user
    if api_settings.NUM_PROXIES is None:
        return f"address {request.META.get('REMOTE_ADDR')}"
    return f"address {BaseThrottle().get_ident(request)}"
