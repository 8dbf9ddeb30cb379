"""`manage.py ollama_simulator`: an Ollama server for the demo, without a model."""

import sys
from argparse import ArgumentParser

from django.core.management.base import BaseCommand, CommandError

from ...testing import cli


class Command(BaseCommand):
    """Serves until Ctrl-C or SIGTERM; exit code 2 where it cannot listen."""

    help = cli.DESCRIPTION
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        cli.add_arguments(parser)

    def handle(self, *_args: object, **options: object) -> None:
        try:
            cli.run(options, sys.stdout, sys.stderr)
        except cli.CannotListenError as error:
            raise CommandError(str(error), returncode=2) from error
