"""`manage.py ollama_reliability_test`: whether the site would survive a bad day of its server."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from django.core.management.base import CommandError, CommandParser

from ... import conf, ollama_client
from ...reliability.document import document
from ...reliability.evidence import Evidence
from ...reliability.judgement import judge
from ...reliability.plan import Plan
from ...reliability.table import lines
from ...reliability.trial import Trial
from ...reliability.verdict import Code, Verdict
from ..output import ReportCommand
from ..progress import progress_on

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...reliability.plan import Form

_DEFAULTS = Plan()


class Command(ReportCommand):
    """Calls the configured server in turn and at once, and holds drills beside it."""

    help = """\
Test how reliably the configured Ollama server answers, and prove that this
site survives a server that fails.

health, sequential and concurrent use the configured server with the client of
the site: real calls, which load a real model, and which may open the circuit
of this process if the server fails. pooling, retries, recovery and, with
--stream, cuts (streams that break off) are drills with clients of their own,
with your settings but short waits, against a simulated server on 127.0.0.1:
they touch no circuit of the site.

Questions are asked with chat(), with --stream by stream(), with --async by
achat(), with both by astream(); what is proven is proven for that form."""
    epilog = """\
A call takes TIMEOUT seconds at most, its place in the queue included; a stream
FIRST_TOKEN_TIMEOUT, else TIMEOUT, to its first piece, and CHUNK_TIMEOUT to each
of the others. Times in the report are those of answered calls; "per s" counts
answered calls. A stream is answered once it came to its end.
Calls of this test are logged with --verbosity 2 only, those of drills never.

exit codes:
  0    every part has passed
  1    a part has failed: the report says which
  2    wrong arguments
  3    the server cannot be reached, the settings are wrong, or aiohttp, which
       --async needs, is missing: stderr or the report says what to type
  130  interrupted (Ctrl-C): the report has what was measured until then
  141  nobody reads the report (a pipe was closed)

json: one document, times in seconds, null for what did not run: "passed",
  "exit_code", "proven", "results", "plan", "health", "sequential",
  "concurrent", "pooling", "retries", "recovery", "cuts" (with --stream),
  "error"
  "sequential" and "concurrent": "sent", "answered", "unfinished",
  "success_rate" (percent), "latency" and, with --stream, "first_token" (each
  "average", "min", "max", "p95"), "total", "requests_per_second", "retries",
  "peak_in_flight", "failures" (each "code", "count", "sentences")
"""
    nothing = document(Evidence(), Verdict((), Code.NO_SERVER), None)

    def add_arguments(self, parser: CommandParser) -> None:
        add = parser.add_argument
        add(
            "--requests",
            type=int,
            default=_DEFAULTS.requests,
            metavar="N",
            help="calls one after the other (default: %(default)s)",
        )
        add(
            "--concurrency",
            type=int,
            default=_DEFAULTS.concurrency,
            metavar="N",
            help="callers at once (default: %(default)s)",
        )
        add(
            "--duration",
            type=float,
            metavar="SECONDS",
            help="callers at once go on for so long (default: each makes one call)",
        )
        add(
            "--min-success",
            type=float,
            default=_DEFAULTS.min_success,
            metavar="PERCENT",
            help="of the calls, in turn and at once, that must be answered (default: %(default)g)",
        )
        add(
            "--stream",
            action="store_true",
            help="ask for answers piece by piece, and tell the time to the first piece",
        )
        add(
            "--async",
            action="store_true",
            help="ask from one event loop instead of threads (needs aiohttp)",
        )
        super().add_arguments(parser)

    def report(self, options: Mapping[str, Any]) -> int:
        plan = _plan(options)
        settings = conf.current()
        verbosity = options["verbosity"]
        progress = progress_on(
            options.get("stderr") or sys.stderr,
            verbosity=verbosity,
            colours=not options["no_color"],
        )
        trial = Trial(ollama_client, settings, plan, progress, log_calls=verbosity > 1)
        evidence = trial.run()
        verdict = judge(evidence, plan)
        if options["format"] == "json":
            self.print_document(document(evidence, verdict, plan))
        else:
            self.print_lines(lines(evidence, verdict, _title(settings, plan), self.paint))
        return verdict.code


def _title(settings: conf.Settings, plan: Plan) -> str:
    how = "" if plan.form == _DEFAULTS.form else f", by {plan.form}()"
    return f"Reliability of {settings.BASE_URL}, model {settings.MODEL}{how}"


def _form(options: Mapping[str, Any]) -> Form:
    if options["async"]:
        return "astream" if options["stream"] else "achat"
    return "stream" if options["stream"] else "chat"


def _plan(options: Mapping[str, Any]) -> Plan:
    try:
        return Plan(
            requests=options["requests"],
            concurrency=options["concurrency"],
            duration=options["duration"],
            min_success=options["min_success"],
            form=_form(options),
        )
    except ValueError as wrong:
        raise CommandError(str(wrong), returncode=Code.WRONG_ARGUMENTS) from None
