"""Servers in processes of their own: what is measured is then whoever asks them.

The first line of such a process is its address. It ends with its standard input, and so with
whoever started it, even if that one is killed.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .contest import CannotRunError

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).resolve().parents[1]


@contextmanager
def server(module: str, *arguments: object) -> Iterator[str]:
    """Run ``python -m module`` for as long as the block lasts, and give its URL.

    Raises:
        CannotRunError: it did not start.
    """
    command = [sys.executable, "-m", module, *map(str, arguments)]
    with subprocess.Popen(  # noqa: S603  # our own code
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            url = child.stdout.readline().strip() if child.stdout is not None else ""
            if not url:
                raise CannotRunError("The server to measure with did not start; see above")
            yield url
        finally:
            child.kill()


def figures_of(module: str, *arguments: object) -> str:
    """Run ``python -m module`` to its end, and return what it printed.

    Raises:
        CannotRunError: it failed.
    """
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(  # noqa: S603  # our own code
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise CannotRunError(f"its process ended with exit code {done.returncode}; see above")
    return done.stdout


def leave_interrupts_to_the_parent() -> None:
    """Ignore Ctrl-C, which ends the parent, and that ends us."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def tell(port: int) -> None:
    """Print the address, as the first line."""
    sys.stdout.write(f"http://127.0.0.1:{port}\n")
    sys.stdout.flush()


def wait_for_the_end() -> None:
    """Return when standard input ends."""
    sys.stdin.read()


def allow_many_connections() -> None:
    """Raise the number of descriptors that this process may open as far as the system allows."""
    with suppress(ImportError):
        import resource  # noqa: PLC0415  # Windows has none

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
