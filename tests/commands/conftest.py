"""Commands as a person starts them, in this process."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from ollama_bridge.reliability import trial
from ollama_bridge.reliability.askers import ASKERS, Asker
from ollama_bridge.reliability.evidence import TRIES, Recovery

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ollama_bridge.testing import FakeOllama


FORMS = ("chat", "stream", "achat", "astream")
OPTIONS = {"chat": (), "stream": ("--stream",), "achat": ("--async",)}
OPTIONS["astream"] = ("--stream", "--async")


@dataclass(frozen=True, slots=True)
class Ended:
    """What a command left."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


class Terminal(StringIO):
    """Claims to be one."""

    def isatty(self) -> bool:
        return True


class Run(Protocol):
    """Runs a command with arguments as they are typed."""

    def __call__(self, *words: str, terminal: bool = False) -> Ended: ...


@pytest.fixture(autouse=True)
def _terminal_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "DJANGO_COLORS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def run() -> Run:
    def run(*words: str, terminal: bool = False) -> Ended:
        out, err = (Terminal() if terminal else StringIO() for _ in "oe")
        code = 0
        try:
            call_command(*words, stdout=out, stderr=err)
        except SystemExit as end:
            code = int(end.code or 0)
        except CommandError as error:
            code = error.returncode
            err.write(str(error))
        return Ended(code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture
def asker(request: pytest.FixtureRequest) -> Iterator[Asker]:
    """Ask in one form: that of the parameter, else by ``chat()``."""
    with ASKERS[getattr(request, "param", "chat")]() as made:
        yield made


in_all_forms = pytest.mark.parametrize("asker", FORMS, indirect=True)


@pytest.fixture
def configure(settings: Any, fake_ollama: FakeOllama) -> Callable[..., None]:
    """Set ``OLLAMA_BRIDGE`` for the fake server and short waits; done once without changes."""

    def configure(**changes: object) -> None:
        quick = {"RETRY_INITIAL_DELAY": 0.01, "RETRY_MAX_DELAY": 0.02}
        settings.OLLAMA_BRIDGE = {"BASE_URL": fake_ollama.url, **quick, **changes}

    configure()
    return configure


GOOD_RECOVERY = {
    "enabled": True,
    "threshold": 5,
    "healthy": TRIES,
    "failed": 5,
    "opened": True,
    "refused": TRIES,
    "leaked": 0,
    "waited": 1.23,
    "probes": 1,
    "held_back": True,
    "closed": True,
    "again": TRIES,
}


GOOD_FAILOVER: dict[str, Any] = {
    "profile": "mixed",
    "seed": 7,
    "callers": 20,
    "max_retries": 3,
    "threshold": 5,
    "acts": ["flaky", "slow", "dying", "rate-limited"],
    "requests": Counter(a=700, b=600, c=500),
    "troubles": Counter(
        {"503": 9, "reset": 8, "stall": 7, "drip": 6, "usage limit": 25, "too many at once": 5}
    ),
    "openings": Counter(a=4, b=1),
    "cooldowns": Counter(a=6),
    "deaths": 3,
    "returns": 2,
    "held": 25,
    "probes": 6,
}


@pytest.fixture
def _no_time_for_recovery(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the one drill that must wait, in tests of something else."""

    def recovery(*_: object) -> Recovery:
        return Recovery(**GOOD_RECOVERY)  # type: ignore[arg-type]  # a plain table

    monkeypatch.setattr(trial, "recovery", recovery)
