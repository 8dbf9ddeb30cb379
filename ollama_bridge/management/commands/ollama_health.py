"""`manage.py ollama_health`: whether the configured server can serve."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, ClassVar, Final

from ... import ollama_client
from ...reliability.document import of_health
from ...reliability.quiet import CALLS, unlogged
from ...reliability.wording import facts, seconds
from ..output import ReportCommand

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ...core.health import EndpointHealth, HealthReport, Status
    from ...reliability.wording import Fact, Tone

_TONES: Final[Mapping[Status, Tone]] = {
    "healthy": "good",
    "degraded": "odd",
    "unhealthy": "bad",
}
_MODES: Final = {
    "auto": "{state}, as far as this process knows",
    "forced_open": "forced open by an operator; reset it in the admin",
    "disabled": "switched off",
}
HEALTHY, UNHEALTHY = 0, 1


class Command(ReportCommand):
    """Asks the server anew each time, and moves no circuit."""

    help = "Ask the configured Ollama server whether it can serve; say what to do if not."
    epilog = """\
exit codes:
  0    healthy, or degraded: the default route serves, something else does not
  1    unhealthy: the report says why, and what to type
  2    wrong arguments
  3    wrong settings: stderr says which
  130  interrupted (Ctrl-C)
  141  nobody reads the report (a pipe was closed)

json: {"status", "endpoints": [{"status", "endpoint", "url", "reachable",
  "version", "model", "models" (by name true or false, null where the server
  did not say), "loaded", "circuit": {"state", "mode"}, "latency" (seconds),
  "retry_after", "error": {"code", "message"}}], "error"}
"""
    nothing: ClassVar = {"status": None, "endpoints": []}

    def report(self, options: Mapping[str, Any]) -> int:
        with nullcontext() if options["verbosity"] > 1 else unlogged(*CALLS):
            ollama_client.ask_accounts()  # a cloud lists its models to anybody, whatever the key
            health = ollama_client.health_check(force=True)
        breakers = ollama_client.circuit_breakers
        found = [(each, breakers[name].mode) for name, each in health.endpoints.items()]
        if options["format"] == "json":
            endpoints = [of_health(each, mode) for each, mode in found]
            self.print_document({"status": health.status, "endpoints": endpoints, "error": None})
        else:
            self.print_lines(self._lines(health, found))
        return HEALTHY if health else UNHEALTHY

    def _lines(
        self, health: HealthReport, found: Sequence[tuple[EndpointHealth, str]]
    ) -> Iterator[str]:
        if len(found) > 1:
            tone = _TONES[health.status]
            yield from facts([("status", health.status, tone), *_obstacle(health)], self.paint)
        for number, (each, mode) in enumerate(found):
            if number or len(found) > 1:
                yield ""
            yield from facts(list(_facts(each, mode)), self.paint)


def _obstacle(health: EndpointHealth) -> Iterator[Fact]:
    if health.error is not None:
        yield "error", str(health.error), "bad"


def _facts(health: EndpointHealth, mode: str) -> Iterator[Fact]:
    yield "endpoint", health.endpoint, None
    yield "url", health.url, None
    yield "status", health.status, _TONES[health.status]
    if health.reachable:
        yield "server", f"{_version(health)}, answered in {seconds(health.latency)} s", None
    else:
        yield "server", "not reachable", "bad"
    known = {model: found for model, found in health.models.items() if found is not None}
    for model, present in known.items():
        yield "model", f"{model}, {'present' if present else 'missing'}", None
    if known:
        yield "loaded", ", ".join(sorted(health.loaded)) or "no model yet", None
    yield "circuit", _MODES[mode].format(state=health.circuit), None
    yield from _obstacle(health)


def _version(health: EndpointHealth) -> str:
    return f"Ollama {health.version}" if health.version else "of unknown version"
