"""``manage.py demo``: the whole demo in one step, with or without an Ollama server."""

import os
import socket
from contextlib import ExitStack

from django.contrib.staticfiles.management.commands.runserver import Command as Runserver
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.core.servers.basehttp import WSGIServer

from demo_project import simulator
from ollama_bridge import check_availability, conf, ollama_client

DEFAULT = "127.0.0.1:8000"
PATIENCE = 2.0


class ClosingServer(WSGIServer):
    """Gives its port back at the end, which Django's leaves to the collector, with a warning."""

    def serve_forever(self, poll_interval: float = 0.5) -> None:
        try:
            super().serve_forever(poll_interval)
        finally:
            self.server_close()


class Serve(Runserver):
    """Django's ``runserver``, with a server that closes."""

    server_cls = ClosingServer


class Command(BaseCommand):
    """Exits with 1 and a sentence where it cannot listen; Ctrl-C ends it."""

    help = "Prepare the database and serve the demo, with the simulator where no Ollama answers."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "addrport",
            nargs="?",
            default=DEFAULT,
            help="port, or address:port to listen on (default: %(default)s)",
        )

    def handle(self, *_: object, addrport: str, **__: object) -> None:
        host, port = split(addrport)
        refuse_taken(host, port)
        call_command("migrate", interactive=False, verbosity=0)
        with ExitStack() as stack:
            self._prepare(stack)
            call_command(Serve(), f"{host}:{port}", use_reloader=False, insecure_serving=True)

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


def split(addrport: str) -> tuple[str, int]:
    """Return address and port of ``8000``, ``localhost:8000`` or ``[::1]:8000``.

    Raises:
        CommandError: it is none of these.
    """
    host, _, port = addrport.rpartition(":")
    if not port.isdecimal() or not 0 < int(port) < 2**16:
        raise CommandError(f"{addrport!r} is no port. Type for example: manage.py demo {DEFAULT}")
    return host or DEFAULT.partition(":")[0], int(port)


def refuse_taken(host: str, port: int) -> None:
    """Find out early whether the address is free.

    Raises:
        CommandError: it is not, or is not ours to take.
    """
    bare = host.strip("[]")
    family = socket.AF_INET6 if ":" in bare else socket.AF_INET
    with socket.socket(family) as probe:
        if os.name == "posix":  # as the server will do; elsewhere this would mean "share it"
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((bare, port))
        except OSError as exc:
            raise CommandError(
                f"Cannot listen on {host}:{port}: {exc.strerror}. "
                f"Choose another port: manage.py demo {host}:{port % 65535 + 1}"
            ) from exc
