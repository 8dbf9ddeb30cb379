"""`manage.py ollama_quota`: how much of each account's allowance is used up."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from typing import TYPE_CHECKING, Any, ClassVar, Final

from django.core.management.base import CommandError, CommandParser

from ... import conf, ollama_client
from ...core.quota import Quota
from ...errors import InvalidReply, QuotaExhausted
from ...logs import calls, quotas
from ...reliability.quiet import silent
from ...reliability.wording import facts, share
from ..output import ReportCommand

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ...circuits import EndpointFacts
    from ...core.quota import Source
    from ...errors import OllamaBridgeError
    from ...reliability.wording import Fact, Tone
    from ...tables import EndpointSettings


class Code(IntEnum):
    """How it ends, see ``epilog``. The others are those of all commands."""

    FINE = 0
    LOW = 1
    WRONG_ARGUMENTS = 2
    USED_UP = 4
    UNKNOWN = 5


_STATES: Final[Mapping[Code, str]] = {
    Code.FINE: "fine",
    Code.LOW: "low",
    Code.USED_UP: "used_up",
    Code.UNKNOWN: "unknown",
}
_TONES: Final[Mapping[Code, Tone]] = {
    Code.FINE: "good",
    Code.LOW: "odd",
    Code.USED_UP: "bad",
    Code.UNKNOWN: "odd",
}
_SOURCES: Final[Mapping[Source, str]] = {
    "headers": "the headers of its replies",
    "balance": "/api/balance",
    "counted": "our own count of answered calls",
}
_WORST: Final = (Code.UNKNOWN, Code.FINE, Code.LOW, Code.USED_UP)
_HELP: Final = "Set QUOTA_LIMIT to the calls a day that the account allows, and they are counted"
_NOTHING: Final = Quota("counted", 0.0)
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """An endpoint, what is known of its allowance, and why no more is known."""

    facts: EndpointFacts
    has_key: bool
    limit: int | None
    threshold: float
    error: OllamaBridgeError | None

    @property
    def quota(self) -> Quota | None:
        return self.facts.quota

    @property
    def code(self) -> Code:
        if self.facts.cooldown or (self.quota is not None and self.quota.is_used_up):
            return Code.USED_UP
        if self.quota is None:
            return Code.UNKNOWN
        return Code.LOW if self.quota.used >= self.threshold else Code.FINE

    @property
    def is_known(self) -> bool:
        """Whether anything lets us think that there is an account at all."""
        return self.facts.is_cloud or self.has_key or self.limit is not None

    @property
    def lacks_limit(self) -> bool:
        """Whether a limit to count against is what is missing: the server itself does not tell."""
        may_tell = self.error is not None and not isinstance(self.error, InvalidReply)
        is_wanted = self.code is Code.UNKNOWN and self.is_known and self.limit is None
        return is_wanted and not may_tell


class Command(ReportCommand):
    """Asks the accounts that tell anew each time. Counts as no call."""

    help = """\
Show how much of the allowance of each endpoint's account is used up, and when
it comes back.

Accounts of Ollama's cloud are asked now. What headers of replies tell is known
to the process that got them; calls are counted where there is a QUOTA_LIMIT."""
    epilog = """\
exit codes, the worst of all endpoints that are shown:
  0    nothing is low
  1    an allowance is low: QUOTA_WARNING_THRESHOLD of it is used, or more
  2    wrong arguments
  3    wrong settings: stderr says which
  4    an allowance is used up, or a server asked to be left alone
  5    nothing is known of any allowance: the report says why
  130  interrupted (Ctrl-C)
  141  nobody reads the report (a pipe was closed)

json: {"endpoints": [{"endpoint", "url", "state": "fine", "low", "used_up" or
  "unknown", "used" (a share, from 0), "window", "resets_at" (ISO 8601),
  "source": "headers", "balance" or "counted", "limit", "unit", "bought" (USD),
  "threshold", "cooldown" (seconds), "cooldown_code",
  "error": {"code", "message"}}], "error"}
"""
    nothing: ClassVar = {"endpoints": []}

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--endpoint", metavar="NAME", help="only this one (default: all)")
        super().add_arguments(parser)

    def report(self, options: Mapping[str, Any]) -> int:
        settings = conf.current()
        only = options["endpoint"]
        if only is not None and only not in settings.ENDPOINTS:
            names = ", ".join(settings.ENDPOINTS)
            sentence = f"There is no endpoint {only!r}. Type one of: {names}"
            raise CommandError(sentence, returncode=Code.WRONG_ARGUMENTS)
        # Of all threads: the one that counts calls warns too, of what the report says anyhow.
        with nullcontext() if options["verbosity"] > 1 else silent(calls, quotas):
            errors = ollama_client.ask_accounts(only)
            accounts = [
                _account(settings.ENDPOINTS[name], found, errors.get(name))
                for name, found in ollama_client.endpoints.items()
                if only in {None, name}
            ]
            if options["format"] == "json":
                endpoints = [_document(account) for account in accounts]
                self.print_document({"endpoints": endpoints, "error": None})
            else:
                self.print_lines(self._lines(accounts))
        return max((account.code for account in accounts), key=_WORST.index)

    def _lines(self, accounts: Sequence[Account]) -> Iterator[str]:
        for number, account in enumerate(accounts):
            if number:
                yield ""
            yield from facts(list(_facts(account)), self.paint)


def _account(
    settings: EndpointSettings, facts: EndpointFacts, error: OllamaBridgeError | None
) -> Account:
    names = {name.lower() for name in settings.HEADERS}
    return Account(
        facts=facts,
        has_key=settings.API_KEY is not None or "authorization" in names,
        limit=settings.QUOTA_LIMIT,
        threshold=settings.QUOTA_WARNING_THRESHOLD,
        error=error,
    )


def _facts(account: Account) -> Iterator[Fact]:
    found, quota = account.facts, account.quota
    yield "endpoint", found.name, None
    yield "url", found.url, None
    yield "used", _used(account), _TONES[account.code]
    if quota is not None:
        yield "back at", _back(quota.resets_at), None
        yield "says who", _SOURCES[quota.source], None
    if (limit := _limit(account)) is not None:
        yield "limit", limit, None
    if found.cooldown:
        why = "used up" if found.cooldown_code == QuotaExhausted.code else "it asked for a pause"
        yield "left alone", f"{_duration(found.cooldown)} more, {why}", "bad"
    if account.error is not None:
        yield "error", str(account.error), "bad"
    if account.lacks_limit:
        yield "help", _HELP, None


def _used(account: Account) -> str:
    quota = account.quota
    if quota is None:
        return "unknown" if account.is_known else "unknown, no account is known there"
    return ", ".join(filter(None, (share(quota.used * 100 + 1e-9), quota.window)))


def _back(moment: float | None) -> str:
    if moment is None:
        return "unknown"
    left = _duration(max(0.0, moment - time.time()))
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M} UTC, in {left}"


def _duration(seconds: float) -> str:
    whole = int(seconds)
    if whole >= _DAY:
        return f"{whole // _DAY} d {whole % _DAY // _HOUR} h"
    if whole >= _HOUR:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"
    return f"{whole // _MINUTE} min" if whole >= _MINUTE else f"{whole} s"


def _limit(account: Account) -> str | None:
    quota = account.quota
    if quota is None or quota.source == "counted":
        return None if account.limit is None else f"{account.limit} calls a day"
    parts = [] if quota.limit is None else [f"{quota.limit:g} {quota.unit}"]
    if quota.bought:
        parts.append(f"{quota.bought:.2f} USD bought besides")
    return ", ".join(parts) or None


def _document(account: Account) -> dict[str, Any]:
    found, quota, error = account.facts, account.quota, account.error
    is_counted = quota is None or quota.source == "counted"
    known = quota or _NOTHING
    resets_at = None if known.resets_at is None else datetime.fromtimestamp(known.resets_at, UTC)
    return {
        "endpoint": found.name,
        "url": found.url,
        "state": _STATES[account.code],
        "used": None if quota is None else round(quota.used, 6),
        "window": known.window or None,
        "resets_at": resets_at and resets_at.isoformat(timespec="seconds"),
        "source": quota and quota.source,
        "limit": account.limit if is_counted else known.limit,
        "unit": ("calls" if account.limit else None) if is_counted else known.unit or None,
        "bought": known.bought,
        "threshold": account.threshold,
        "cooldown": found.cooldown,
        "cooldown_code": found.cooldown_code or None,
        "error": error and {"code": error.code, "message": str(error)},
    }
