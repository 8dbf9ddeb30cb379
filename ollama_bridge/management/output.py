"""What commands with a report have in common: format, colours, exit codes, wrong settings."""

from __future__ import annotations

import json
import os
import sys
from argparse import RawDescriptionHelpFormatter
from typing import TYPE_CHECKING, Any, ClassVar, Final

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandParser, DjangoHelpFormatter

from ..reliability.wording import wrapped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ..reliability.wording import Tone

MISCONFIGURED = 3
INTERRUPTED = 130
NO_READER = 141  # as a shell reports SIGPIPE

_STYLES: Final[Mapping[Tone, str]] = {
    "title": "MIGRATE_HEADING",
    "head": "MIGRATE_LABEL",
    "good": "SUCCESS",
    "odd": "WARNING",
    "bad": "ERROR",
}
"""Django's names, so that DJANGO_COLORS applies."""


class _Formatter(DjangoHelpFormatter, RawDescriptionHelpFormatter):
    """Django's order of the arguments, and our own line breaks."""


class ReportCommand(BaseCommand):
    """A command that prints a table or JSON on stdout, all else on stderr, and ends with a code.

    Subclasses say in ``epilog`` what the codes mean, and implement ``report``. ``nothing`` is the
    document where nothing could be found out; it gets an ``error``.
    """

    # Wrong settings are reported by the command itself, with a code of their own.
    requires_system_checks = ()
    epilog: ClassVar[str]
    nothing: ClassVar[Mapping[str, object]]
    _is_forced = False

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: object) -> CommandParser:
        return super().create_parser(
            prog_name, subcommand, epilog=self.epilog, formatter_class=_Formatter, **kwargs
        )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--format",
            choices=("table", "json"),
            default="table",
            help="table: for people, 80 columns wide; json: one document (default: table)",
        )

    def execute(self, *args: object, **options: object) -> str | None:
        self._is_forced = bool(options.get("force_color"))
        # Django does not know the variable (https://no-color.org); --force-color outweighs it.
        if os.environ.get("NO_COLOR") and not self._is_forced:
            options["no_color"] = True
        return super().execute(*args, **options)

    def handle(self, *_: object, **options: object) -> None:
        try:
            code = self.report(options)
            self.stdout.flush()
        except ImproperlyConfigured as error:
            code = self._misconfigured(error, options)
        except KeyboardInterrupt:
            code = INTERRUPTED
        except BrokenPipeError:
            code = _hush()
        if code:
            sys.exit(code)

    def report(self, options: Mapping[str, Any]) -> int:
        """Print the report, and return the exit code.

        Raises:
            ImproperlyConfigured: the settings are wrong.
        """
        raise NotImplementedError

    def print_document(self, document: Mapping[str, Any]) -> None:
        self.stdout.write(json.dumps(document, indent=2))

    def print_lines(self, lines: Iterable[str]) -> None:
        self.stdout.write("\n".join(lines))

    def paint(self, tone: Tone, text: str) -> str:
        """Colour a text, if it goes to a terminal and nobody objects."""
        if not (self._is_forced or self.stdout.isatty()):
            return text
        painter: Callable[[str], str] = getattr(self.style, _STYLES[tone])
        return painter(text)

    def _misconfigured(self, error: ImproperlyConfigured, options: Mapping[str, Any]) -> int:
        """Say on stderr what is wrong; who reads JSON gets a document in any case."""
        if options["format"] == "json":
            self.print_document({**self.nothing, "error": _problem(error)})
        for line in str(error).splitlines():
            self.stderr.write("\n".join(wrapped(line)))
        return MISCONFIGURED


def _hush() -> int:
    """Let Python end without a word about the reader that is gone, as its documentation has it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return NO_READER


def _problem(error: ImproperlyConfigured) -> dict[str, str]:
    return {"code": "misconfigured", "message": str(error)}
