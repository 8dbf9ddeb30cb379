"""``manage.py demo``: the whole demo in one step, with or without an Ollama server."""

import sys
from contextlib import ExitStack
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connections

from demo_project import simulator
from ollama_bridge import check_availability, conf, ollama_client

DEFAULT = "127.0.0.1:8000"
PATIENCE = 2.0


class Command(BaseCommand):
    """Exits with 1 and a sentence where it cannot listen; Ctrl-C and SIGTERM end it with 0."""

    help = "Prepare the database and serve the demo, with the simulator where no Ollama answers."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "addrport",
            nargs="?",
            default=DEFAULT,
            help="port, or address:port to listen on (default: %(default)s)",
        )

    def handle(self, *_: object, addrport: str, **__: object) -> None:
        server = load_server()
        host, port = split(addrport)
        with ExitStack() as stack:
            stack.enter_context(server.ending_quietly())
            try:
                listener = stack.enter_context(server.listening(host, port))
            except OSError as exc:
                raise CommandError(
                    f"Cannot listen on {host}:{port}: {exc.strerror}. "
                    f"Choose another port: manage.py demo {host}:{port % 65535 + 1}"
                ) from exc
            call_command("migrate", interactive=False, verbosity=0)
            connections.close_all()
            self._prepare(stack)
            self.stdout.write(f"The demo is at http://{host}:{port}/ until you press Ctrl-C.")
            server.serve(listener)

    def _prepare(self, stack: ExitStack) -> None:
        """Say who will answer; where nobody would, let the simulator."""
        settings = conf.Settings.build()
        if check_availability(settings.BASE_URL, timeout=PATIENCE):
            self._tell_real(settings)
        else:
            stack.enter_context(simulator.standing_in(settings.MODEL))
            self.stdout.write(
                f"No Ollama answers at {settings.BASE_URL}. "
                "Answers come from the bundled simulator.\n"
                f"To use a real one: ollama serve, then ollama pull {settings.MODEL}, "
                "then start this again."
            )

    def _tell_real(self, settings: conf.Settings) -> None:
        self.stdout.write(
            f"Ollama answers at {settings.BASE_URL}. Answers come from {settings.MODEL} there."
        )
        report = ollama_client.health_check()
        if report.error is not None:
            self.stdout.write(self.style.WARNING(f"It is not ready yet: {report.error}"))


def load_server() -> ModuleType:
    """Return ``demo_project.server``.

    Raises:
        CommandError: uvicorn is not installed; with the command that installs it.
    """
    if find_spec("uvicorn") is None:
        raise CommandError(
            "The demo is served by uvicorn, which is not installed. Type: "
            f"{sys.executable} -m pip install --group demo"
        )
    return import_module("demo_project.server")


def split(addrport: str) -> tuple[str, int]:
    """Return address and port of ``8000``, ``localhost:8000`` or ``[::1]:8000``.

    Raises:
        CommandError: it is none of these.
    """
    host, _, port = addrport.rpartition(":")
    if not port.isdecimal() or not 0 < int(port) < 2**16:
        raise CommandError(f"{addrport!r} is no port. Type for example: manage.py demo {DEFAULT}")
    return host or DEFAULT.partition(":")[0], int(port)
