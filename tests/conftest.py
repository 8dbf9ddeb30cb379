"""What tests of the client have in common."""

from __future__ import annotations

import os
import ssl
import sys
from typing import TYPE_CHECKING, Any, Protocol

import pytest
import trustme

from ollama_bridge import OllamaClient, ollama_client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ollama_bridge.testing import FakeOllama

_FOREIGN = ("OLLAMA_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE")


class MakeClient(Protocol):
    """Makes clients of the fake server that wait only shortly before they repeat."""

    def __call__(self, **overrides: Any) -> OllamaClient: ...


@pytest.fixture(autouse=True)
def _environment_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith(_FOREIGN):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _singleton_starts_afresh() -> Iterator[None]:
    yield
    ollama_client.close()


@pytest.fixture
def make_client(fake_ollama: FakeOllama) -> Iterator[MakeClient]:
    """Return a maker of clients; they are closed after the test."""
    made: list[OllamaClient] = []

    def make(**overrides: Any) -> OllamaClient:
        quick = {"retry_initial_delay": 0.01, "retry_max_delay": 0.02}
        made.append(OllamaClient(**{"base_url": fake_ollama.url, **quick, **overrides}))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Return what writes a measured figure into the log of the run."""

    def say(line: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n{line}\n")

    return say


@pytest.fixture(scope="session")
def ca() -> trustme.CA:
    """A certificate authority that nobody knows."""
    return trustme.CA()


@pytest.fixture(scope="session")
def ca_file(ca: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The authority's certificate, for VERIFY_SSL."""
    path: Path = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    return path


@pytest.fixture(scope="session")
def server_tls(ca: trustme.CA) -> ssl.SSLContext:
    """What a server on 127.0.0.1 or localhost needs to speak TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1", "localhost", "ollama.internal").configure_cert(context)
    return context
