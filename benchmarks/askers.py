"""Those who can ask an Ollama server: each sends the same question, and returns the answer's text.

Every one reads the whole body, parses it as JSON and keeps its connection; but LiteLLM often takes
another one.
"""

from __future__ import annotations

import json
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import requests
from requests.adapters import HTTPAdapter

from ollama_bridge import OllamaClient

from . import peers
from .contest import CannotRunError
from .replies import ANSWER, MODEL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    Ask = Callable[[], str]

QUESTION: Final = "What is water? Answer in six sentences that a child of ten understands."
MESSAGES: Final = [{"role": "user", "content": QUESTION}]
PAYLOAD: Final[dict[str, Any]] = {"model": MODEL, "messages": MESSAGES, "stream": False}
CHAT_PATH: Final = "/api/chat"
_TIMEOUT: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """One who can ask: ``open`` connects it with the server at a URL, for a block."""

    key: str
    name: str
    open: Callable[[str], AbstractContextManager[Ask]]
    needs: str = ""


@contextmanager
def bridge(url: str) -> Iterator[Ask]:
    """``chat()`` of a client with the default settings."""
    with OllamaClient(base_url=url) as client:
        yield partial(client.chat, QUESTION)


@contextmanager
def official(url: str) -> Iterator[Ask]:
    """``ollama.Client``, the official one."""
    client = peers.load("ollama").Client(host=url)

    def ask() -> str:
        content: str = client.chat(model=MODEL, messages=MESSAGES).message.content
        return content

    with closing(client._client):  # noqa: SLF001  # not every release has close() itself
        yield ask


@contextmanager
def session(url: str) -> Iterator[Ask]:
    """``requests.Session().post()``, as everybody writes it."""
    with requests.Session() as opened:
        yield lambda: _text(opened.post(url + CHAT_PATH, json=PAYLOAD, timeout=_TIMEOUT).json())


@contextmanager
def adapter(url: str) -> Iterator[Ask]:
    """The adapter of requests alone, with a request that was prepared once: the floor."""
    prepared = requests.Request("POST", url + CHAT_PATH, json=PAYLOAD).prepare()

    with closing(HTTPAdapter()) as opened:
        yield lambda: _text(
            json.loads(opened.send(prepared, stream=True, timeout=_TIMEOUT).raw.read())
        )


@contextmanager
def router(url: str) -> Iterator[Ask]:
    """LiteLLM's Router over the one server."""
    found = routing(url)

    def ask() -> str:
        content: str = found.completion(model=MODEL, messages=MESSAGES).choices[0].message.content
        return content

    yield ask


def routing(url: str) -> Any:  # noqa: ANN401  # types of LiteLLM are not at hand
    """Return a Router of LiteLLM over one server, which tells nobody anything."""
    of_litellm: Any = peers.load("litellm")
    of_litellm.telemetry = False
    of_litellm.suppress_debug_info = True
    to = {"model": f"ollama_chat/{MODEL}", "api_base": url}
    return of_litellm.Router(model_list=[{"model_name": MODEL, "litellm_params": to}])


def check(text: str) -> None:
    """Hold an answer against what the server says.

    Raises:
        CannotRunError: it is not that.
    """
    if text != ANSWER:
        raise CannotRunError(f"got another answer than the server sent, of length {len(text)}")


def _text(reply: dict[str, Any]) -> str:
    content: str = reply["message"]["content"]
    return content


OURS: Final = Asker(key="ours", name="ollama_bridge", open=bridge)
OFFICIAL: Final = Asker(key="official", name="ollama.Client", open=official, needs="ollama")
SESSION: Final = Asker(key="session", name="requests.Session", open=session)
ADAPTER: Final = Asker(key="adapter", name="requests' adapter alone", open=adapter)
ROUTER: Final = Asker(key="litellm", name="LiteLLM's Router", open=router, needs="litellm")
