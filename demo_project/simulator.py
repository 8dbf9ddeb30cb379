"""The bundled simulator, in this process, for who has no Ollama."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from django.core.signals import setting_changed

from ollama_bridge import conf
from ollama_bridge.testing import FakeOllama

VARIABLE = "OLLAMA_BASE_URL"
TOKENS_PER_SECOND = 40

_running: set[str] = set()


@contextmanager
def standing_in(model: str) -> Iterator[str]:
    """Run a simulator that has the model, and let the bridge call it; yield its URL."""
    with FakeOllama(
        models=[model], tokens_per_second=TOKENS_PER_SECOND, keep_requests=False
    ) as server:
        before = os.environ.get(VARIABLE)
        _running.add(server.url)
        _point_to(server.url)
        try:
            yield server.url
        finally:
            _point_to(before)
            _running.remove(server.url)


def is_running_at(url: str) -> bool:
    """Tell whether it is our simulator that listens at the URL."""
    return url in _running


def _point_to(url: str | None) -> None:
    if url is None:
        del os.environ[VARIABLE]
    else:
        os.environ[VARIABLE] = url
    setting_changed.send(sender=None, setting=conf.DICT, value=None, enter=True)
