"""A strict Content Security Policy for the page."""

from django.http import HttpRequest, HttpResponseBase
from django.utils.deprecation import MiddlewareMixin

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
    # Text never becomes markup or script, not even by mistake.
    "require-trusted-types-for 'script'; trusted-types 'none'"
)


class PagePolicyMiddleware(MiddlewareMixin):
    """Sends the policy with the page only, because the admin needs more than it allows.

    From Django 6.0 on, a project would use ``django.middleware.csp`` in its place.
    """

    def process_response(
        self, request: HttpRequest, response: HttpResponseBase
    ) -> HttpResponseBase:
        match = request.resolver_match
        if match is not None and match.view_name == "page":
            response.headers["Content-Security-Policy"] = POLICY
        return response
