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

_DEFAULTS = Plan()


class Command(ReportCommand):
    """Calls the configured server in turn and at once, and holds drills beside it."""

    help = """\
Test how reliably the configured Ollama server answers, and prove that this
site survives a server that fails.

health, sequential and concurrent use the configured server with the client of
the site: real calls, which load a real model, and which may open the circuit
of this process if the server fails. pooling, retries and recovery are drills
with clients of their own, with your settings but short waits, against a
simulated server on 127.0.0.1: they touch no circuit of the site."""
    epilog = """\
A call takes TIMEOUT seconds at most, its place in the queue included. Times in
the report are those of answered calls; "per s" counts answered calls.
Calls of this test are logged with --verbosity 2 only, those of drills never.

exit codes:
  0    every part has passed
  1    a part has failed: the report says which
  2    wrong arguments
  3    the server cannot be reached, or the settings are wrong
  130  interrupted (Ctrl-C): the report has what was measured until then
  141  nobody reads the report (a pipe was closed)

json: one document, times in seconds, null for what did not run: "passed",
  "exit_code", "proven", "results", "plan", "health", "sequential",
  "concurrent", "pooling", "retries", "recovery", "error"
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
            title = f"Reliability of {settings.BASE_URL}, model {settings.MODEL}"
            self.print_lines(lines(evidence, verdict, title, self.paint))
        return verdict.code


def _plan(options: Mapping[str, Any]) -> Plan:
    try:
        return Plan(
            requests=options["requests"],
            concurrency=options["concurrency"],
            duration=options["duration"],
            min_success=options["min_success"],
        )
    except ValueError as wrong:
        raise CommandError(str(wrong), returncode=Code.WRONG_ARGUMENTS) from None
