"""`manage.py ollama_reliability_test`: whether the site would survive a bad day of its server."""

from __future__ import annotations

import sys
from random import randrange
from typing import TYPE_CHECKING, Any, Final

from django.core.management.base import CommandError, CommandParser

from ... import conf, ollama_client
from ...reliability.document import document
from ...reliability.evidence import Evidence
from ...reliability.judgement import judge
from ...reliability.plan import PROFILES, Plan
from ...reliability.table import lines
from ...reliability.trial import Trial
from ...reliability.verdict import Code, Verdict
from ..output import ReportCommand
from ..progress import progress_on

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...reliability.plan import Form, Profile

_DEFAULTS = Plan()
_USUAL_CHAOS: Final = "mixed"
_SEEDS: Final = 10_000  # enough for chance, and short to type


class Command(ReportCommand):
    """Calls the configured server in turn and at once, and holds drills beside it."""

    help = """\
Test how reliably the configured Ollama server answers, and prove that this
site survives a server that fails.

health, sequential and concurrent use the configured servers with the client of
the site: real calls, which load a real model, and which may open circuits of
this process if a server fails. pooling, retries, recovery, with --stream cuts
(streams that break off) and with --failover failover are drills with clients
of their own, with your settings but short waits, against simulated servers on
127.0.0.1: they touch no circuit of the site.

Questions are asked with chat(), with --stream by stream(), with --async by
achat(), with both by astream(); what is proven is proven for that form.

--failover adds a drill of some seconds: up to 20 callers ask by a route over
three endpoints, a, b and c, while --chaos is
  flaky         each odd request of each fails, with a 503 or a reset connection
  slow          a answers nothing within its TIMEOUT of 0.5 s, and b drips
  dying         a is killed and comes back, again and again
  rate-limited  the account of a is over its usage limit, and to b one call of
                four is too many at once
  mixed         all of them, one after the other (the default)"""
    epilog = """\
A call takes TIMEOUT seconds at most, its place in the queue included; a stream
FIRST_TOKEN_TIMEOUT, else TIMEOUT, to its first piece, and CHUNK_TIMEOUT to each
of the others. Times in the report are those of answered calls; "per s" counts
answered calls. A stream is answered once it came to its end.
With several endpoints, a hop is a call that went on at another one after a
request that failed. Calls of this test are logged with --verbosity 2 only,
those of drills never.

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
  "failover" (with --failover), "error"
  "plan": "requests", "concurrency", "duration", "min_success", "form", "chaos"
  and "seed" (null without --failover)
  "sequential", "concurrent" and "failover": "sent", "answered", "unfinished",
  "success_rate" (percent), "latency" and, with --stream, "first_token" (each
  "average", "min", "max", "p95"), "total", "requests_per_second", "retries",
  "hops", "passed_by", "answered_by" (by endpoint), "peak_in_flight",
  "failures" (each "code", "count", "sentences")
  "failover" also: "profile", "seed", "callers", "acts"; "requests", "openings"
  and "cooldowns" by endpoint; "troubles" by kind; "deaths", "returns"; "held",
  requests to the account over its limit, and how many of them were "probes"
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
            help="callers at once go on for so long (default: each makes one call), and so does "
            "the drill of --failover (default: 3 for each kind of chaos)",
        )
        add(
            "--min-success",
            type=float,
            default=_DEFAULTS.min_success,
            metavar="PERCENT",
            help="of the calls of each part that must be answered (default: %(default)g)",
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
        add(
            "--failover",
            action="store_true",
            help="also call over several endpoints, which are simulated and misbehave",
        )
        add(
            "--chaos",
            choices=PROFILES,
            metavar="PROFILE",
            help=f"how they misbehave: {', '.join(PROFILES)} (default: {_USUAL_CHAOS})",
        )
        add(
            "--seed",
            type=int,
            metavar="N",
            help="repeat the chaos of another run; its report has the number (default: any)",
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
    first, *others = settings.ENDPOINTS.values()
    if not others:
        return f"Reliability of {first.BASE_URL}, model {first.MODEL}{how}"
    there = ", ".join(f"{name} at {it.BASE_URL}" for name, it in settings.ENDPOINTS.items())
    return f"Reliability of {there}{how}"


def _form(options: Mapping[str, Any]) -> Form:
    if options["async"]:
        return "astream" if options["stream"] else "achat"
    return "stream" if options["stream"] else "chat"


def _plan(options: Mapping[str, Any]) -> Plan:
    try:
        chaos = _chaos(options)
        seed = options["seed"]
        if seed is None:
            seed = randrange(_SEEDS) if chaos else _DEFAULTS.seed  # noqa: S311  # no secret
        return Plan(
            requests=options["requests"],
            concurrency=options["concurrency"],
            duration=options["duration"],
            min_success=options["min_success"],
            form=_form(options),
            chaos=chaos,
            seed=seed,
        )
    except ValueError as wrong:
        raise CommandError(str(wrong), returncode=Code.WRONG_ARGUMENTS) from None


def _chaos(options: Mapping[str, Any]) -> Profile | None:
    """Return the chaos that is wanted, None for no drill.

    Raises:
        ValueError: there is an option that makes sense with the drill only.
    """
    if options["failover"]:
        return options["chaos"] or _USUAL_CHAOS
    for option in ("chaos", "seed"):
        if options[option] is not None:
            typed = f"--failover --{option} {options[option]}"
            raise ValueError(f"--{option} is of the failover drill. Type: {typed}")
    return None
