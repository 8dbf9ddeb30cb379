"""What Django would mail to the admins: an uncaught error's report, with local variables."""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
from typing import TYPE_CHECKING, Any

import pytest
from django.views.debug import ExceptionReporter

from ollama_bridge import OllamaBridgeError, OllamaClient
from ollama_bridge.testing import FakeOllama, faults

if TYPE_CHECKING:
    from ollama_bridge.testing.faults import Fault

PROMPT, ANSWER, KEY = (f"{name}-{secrets.token_hex(8)}" for name in ("prompt", "answer", "key"))
ECHO = json.dumps({"error": f"{PROMPT} {ANSWER} {KEY}"}).encode()

FAULTS: list[Fault] = [
    faults.Reset(),
    faults.CutBody(),
    faults.NotDone(),
    faults.TruncatedJSON(),
    faults.Status(500, ECHO),
    faults.Status(400, ECHO),
    faults.Status(200, ECHO),
    faults.Status(200, ECHO[:-1]),
]


def report() -> str:
    reporter = ExceptionReporter(None, *sys.exc_info())
    return reporter.get_traceback_text() + reporter.get_traceback_html()


def reveals(text: str) -> list[str]:
    return [canary for canary in (PROMPT, ANSWER, KEY) if canary in text]


def test_a_report_would_show_what_is_left_in_a_frame() -> None:
    """So that the tests below can fail."""

    def fail() -> None:
        shown = PROMPT  # noqa: F841  # a local variable, as reports show it
        raise ValueError

    try:
        fail()
    except ValueError:
        assert reveals(report()) == [PROMPT]


@pytest.mark.parametrize("number", range(len(FAULTS)))
def test_the_report_of_an_uncaught_error_reveals_nothing(
    number: int, fake_ollama: FakeOllama
) -> None:
    fake_ollama.misbehave(FAULTS[number])
    with OllamaClient(base_url=fake_ollama.url, api_key=KEY, max_retries=0) as client:
        try:
            client.chat(PROMPT, PROMPT, history=[{"role": "user", "content": PROMPT}])
        except OllamaBridgeError:
            assert reveals(report()) == []
        else:
            pytest.fail("the fault did no harm")


WRONG: dict[str, Any] = {
    "history": [{"role": "user", "content": PROMPT + "\ud800"}],
    "temperature": PROMPT,
    "keep_alive": PROMPT,
}


def ask(client: OllamaClient, form: str, name: str) -> None:
    """Make a call of this form with one wrong argument, which no frame of ours may hold."""
    match form:
        case "chat":
            client.chat(PROMPT, PROMPT, **{name: WRONG[name]})
        case "achat":
            asyncio.run(client.achat(PROMPT, PROMPT, **{name: WRONG[name]}))
        case "stream":
            list(client.stream(PROMPT, PROMPT, **{name: WRONG[name]}))
        case "astream":
            client.astream(PROMPT, PROMPT, **{name: WRONG[name]})
        case "chat_many":
            client.chat_many([PROMPT], PROMPT, **{name: WRONG[name]})
        case "achat_many":
            asyncio.run(client.achat_many([PROMPT], PROMPT, **{name: WRONG[name]}))


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("form", ["chat", "achat", "stream", "astream", "chat_many", "achat_many"])
def test_nor_does_the_report_of_a_wrong_argument(
    fake_ollama: FakeOllama, form: str, name: str
) -> None:
    with OllamaClient(base_url=fake_ollama.url, api_key=KEY) as client:
        try:
            ask(client, form, name)
        except (TypeError, ValueError):
            assert reveals(report()) == []
        else:
            pytest.fail("it was sent")
