"""The fake server as a child process, for benchmarks and crowds: its work is not on our clock."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

_END_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class SpawnedOllama:
    """A running child process."""

    url: str
    pid: int


@contextmanager
def spawn(
    *,
    models: Sequence[str] = ("llama3.2",),
    answer: str | None = None,
    tokens_per_second: float | None = None,
    fault: str | None = None,
    every: int = 1,
) -> Iterator[SpawnedOllama]:
    """Run the simulator in a child process on a free port; it ends with the `with` block.

    Args:
        models: Names of the installed models.
        answer: What the model says; None: the simulator's own text.
        tokens_per_second: The model's speed; None: everything at once.
        fault: What goes wrong, by the name that the simulator's `--fault` takes.
        every: On each so many chats.

    Raises:
        RuntimeError: the child did not start; it has said why on stderr.
    """
    command = [sys.executable, "-m", "ollama_bridge.testing", "--port", "0", "--quiet"]
    command += ["--tokens-per-second", str(tokens_per_second or 0), "--every", str(every)]
    command += [word for model in models for word in ("--model", model)]
    command += [] if answer is None else ["--answer", answer]
    command += [] if fault is None else ["--fault", fault]
    with subprocess.Popen(  # noqa: S603  # our own code
        command, stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            yield SpawnedOllama(_url(child), child.pid)
        finally:
            child.terminate()
            child.wait(_END_SECONDS)


def _url(child: "subprocess.Popen[str]") -> str:
    line = child.stdout.readline() if child.stdout is not None else ""
    if not line:
        raise RuntimeError("the simulator did not start")
    return line.strip()
