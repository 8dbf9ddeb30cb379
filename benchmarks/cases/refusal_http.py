"""How soon a visitor hears that a circuit is open."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Final

from django.test import Client
from django.test.utils import override_settings

from ollama_bridge import ollama_client

from .. import askers, refused
from ..contest import Benchmark, CannotRunError, Contestant, Unit
from ..figures import Goal
from ..rounds import middle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_UNAVAILABLE: Final = 503


@contextmanager
def _gather(calls: int) -> Iterator[Sequence[Contestant]]:
    with refused.port() as url, override_settings(**_site(url)):
        chat = _visitor("/api/chat/")
        for _ in range(refused.FAILURES):
            chat()
        if ollama_client.circuit_breaker.state != "open":
            raise CannotRunError("the circuit did not open")
        floor = _visitor("/floor/")
        yield [
            Contestant(key="ours", name="ollama_bridge, chat/", turn=partial(middle, chat, calls)),
            Contestant(
                key="floor", name="a bare DRF view with 503", turn=partial(middle, floor, calls)
            ),
        ]


def _site(url: str) -> dict[str, object]:
    bridge = {
        "BASE_URL": url,
        "MAX_RETRIES": 0,
        "FAILURE_THRESHOLD": refused.FAILURES,
        "OPEN_SECONDS": refused.LONG,
        "RECOVERY_TIMEOUT": refused.LONG,
        "PERMISSION_CLASSES": ["rest_framework.permissions.AllowAny"],
    }
    return {
        "ROOT_URLCONF": "benchmarks.urls",
        "ALLOWED_HOSTS": ["testserver"],
        "OLLAMA_BRIDGE": bridge,
    }


def _visitor(address: str) -> Callable[[], None]:
    """Return what posts a question, each time from another address, so that none is throttled."""
    client = Client()
    question = {"message": askers.QUESTION}
    numbers = count()

    def call() -> None:
        number = next(numbers)
        sender = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        response = client.post(
            address, question, content_type="application/json", REMOTE_ADDR=sender
        )
        if response.status_code != _UNAVAILABLE:
            raise CannotRunError(f"{address} answered {response.status_code}, not 503")

    return call


BENCHMARK: Final = Benchmark(
    name="refusal_http",
    what=(
        "The same through chat/: a POST of Django's test client (its own work included) until "
        "the 503, each from another address; the median of a turn's requests."
    ),
    unit=Unit.SECONDS,
    rounds=15,
    calls=200,
    gather=_gather,
    peer="floor",
    goal=Goal(of="ours", limit=2e-3),
)
