"""Reading a body no larger than ``MAX_BODY_BYTES``, and only if it is JSON."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any

from rest_framework.exceptions import ParseError, UnsupportedMediaType
from rest_framework.parsers import JSONParser
from rest_framework.utils.mediatypes import media_type_matches

from .. import conf
from .errors import TooLarge

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from django.http import HttpRequest
    from rest_framework.parsers import BaseParser
    from rest_framework.request import Request

_MOST_DIGITS = 18
_WITHOUT_BODY = {"GET", "HEAD", "OPTIONS"}
_NOT_JSON = 'The body is not valid JSON. Send for example {"message": "What is water?"}.'
_NO_OBJECT = 'The body must be a JSON object. Send for example {"message": "What is water?"}.'
_NO_LENGTH = "The body came without its length. Send that in the header Content-Length."


class BoundedJSONParser(JSONParser):
    """A JSON object; its faults are told without a word of it."""

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        try:
            value = super().parse(stream, media_type, parser_context)
        except (ParseError, RecursionError):  # the latter where it is nested too deeply
            raise ParseError(_NOT_JSON) from None  # the cause holds the text
        if not isinstance(value, dict):
            raise ParseError(_NO_OBJECT)
        return value


def refuse_by_length(request: HttpRequest) -> None:
    """Refuse a body by the length that it declares, before anybody reads it.

    Raises:
        TooLarge: it is too large.
        ParseError: what it declares is no length.
    """
    _check(_declared(request))


def admit_body(request: Request, parsers: Iterable[BaseParser]) -> None:
    """Refuse a body that is no JSON, and measure one that did not declare its length.

    Raises:
        UnsupportedMediaType: the body is something else.
        TooLarge: it is too large.
        ParseError: there is one, but it cannot be read.
    """
    if request.method in _WITHOUT_BODY:
        return
    kind = request.content_type
    if kind and not any(media_type_matches(each.media_type, kind) for each in parsers):
        raise UnsupportedMediaType(kind)
    if not _declared(request):
        _measure(request._request)  # noqa: SLF001  # the documented way to Django's request


def _measure(request: HttpRequest) -> None:
    """Declare the length of a body, because REST framework takes one without a length for none.

    Under ASGI it has been received already. Under WSGI Django cannot tell where it ends.
    """
    length = len(request.body)
    _check(length)
    if not length and request.META.get("HTTP_TRANSFER_ENCODING"):
        raise ParseError(_NO_LENGTH)
    request.META["CONTENT_LENGTH"] = str(length)


def _check(length: int) -> None:
    if length > conf.current().MAX_BODY_BYTES:
        raise TooLarge


def _declared(request: HttpRequest | Request) -> int:
    length: str = request.META.get("CONTENT_LENGTH") or "0"
    if not (length.isdecimal() and len(length) <= _MOST_DIGITS):
        raise ParseError(_NO_LENGTH)
    return int(length)
