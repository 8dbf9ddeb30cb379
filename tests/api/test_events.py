"""Server-sent events as bytes, read as a browser reads them."""

from __future__ import annotations

import json
import logging
import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from django.utils.translation import gettext_lazy
from rest_framework.renderers import JSONRenderer

from ollama_bridge import ChatReply, errors
from ollama_bridge.api import events
from ollama_bridge.api.errors import Problem, problem_of
from ollama_bridge.api.views import ChatView
from ollama_bridge.core.types import Delta
from tests.api import sse

CANARY = "heliotrope-armadillo"

# One event, in the order and with the line ends that the simplest of readers understand.
ONE_EVENT = re.compile(rb"event: [a-z]+\ndata: [^\r\n]+\n\n")

LINE_ENDS = ["a\nb", "a\r\nb", "a\rb", "\n", "a\n\nevent: done\ndata: {}\n\n"]
OTHERS = [
    "a\u2028b\u2029c",
    "a\x85b\x0bc\x0cd",
    "ä€😀",
    '"\\',
    "\x00\x1b",
    ": no comment",
    "\ufeff",
]


class Ended:
    """Tells of replies and problems as a view does."""

    def answered(self, reply: ChatReply) -> dict[str, Any]:
        view = ChatView()
        view.request_id = "mine"
        return view.answered(reply)

    def failed(self, error: Exception) -> Problem | None:
        return problem_of(error)

    def told(self, problem: Problem) -> dict[str, Any]:
        return problem.body("mine", staff=False)


class TestAPiece:
    @pytest.mark.parametrize("text", ["a", " a", "a ", *LINE_ENDS, *OTHERS])
    def test_is_one_event_with_the_text_whatever_is_in_it(self, text: str) -> None:
        data = events.of_delta(Delta(text))

        assert ONE_EVENT.fullmatch(data)
        assert sse.parse(data) == [("delta", {"text": text})]

    def test_with_text_and_thinking_is_two_events_the_thinking_first(self) -> None:
        assert sse.parse(events.of_delta(Delta("So.", "Hm\n"))) == [
            ("thinking", {"text": "Hm\n"}),
            ("delta", {"text": "So."}),
        ]

    def test_that_only_thinks_is_one_event(self) -> None:
        assert sse.parse(events.of_delta(Delta(thinking="Hm"))) == [("thinking", {"text": "Hm"})]

    def test_that_has_no_words_is_no_event(self) -> None:
        assert events.of_delta(Delta()) == b""
        assert events.of_delta(Delta(tool_calls=({"function": {"name": "look"}},))) == b""

    def test_is_not_escaped_more_than_it_must_be(self) -> None:
        assert events.of_delta(Delta("ä😀")) == 'event: delta\ndata: {"text": "ä😀"}\n\n'.encode()


class TestTheEnd:
    def test_is_one_event_with_the_body_of_a_whole_answer(self) -> None:
        reply = ChatReply("A\nliquid.", model="m", done_reason="stop")

        data = events.of_reply(Ended(), reply)

        assert ONE_EVENT.fullmatch(data)
        assert sse.parse(data) == [("done", Ended().answered(reply))]
        assert Ended().answered(reply)["response"] == "A\nliquid."

    def test_is_encoded_as_that_body_would_be_whatever_a_project_adds(self) -> None:
        class Adding(Ended):
            def answered(self, reply: ChatReply) -> dict[str, Any]:
                added = {"at": datetime(2026, 1, 2, 3, 4, tzinfo=UTC), "cost": Decimal("0.1")}
                return super().answered(reply) | added | {"note": gettext_lazy("A")}

        reply = ChatReply("A")

        ((_, body),) = sse.parse(events.of_reply(Adding(), reply))

        assert body == json.loads(JSONRenderer().render(Adding().answered(reply)))
        assert body.keys() >= {"at", "cost", "note"}

    @pytest.mark.parametrize("truncated", [False, True])
    def test_says_truncated_only_where_it_is(self, truncated: bool) -> None:
        ((_, body),) = sse.parse(events.of_reply(Ended(), ChatReply("A", truncated=truncated)))

        assert body.get("truncated", "left out") == (truncated or "left out")

    def test_may_be_an_error_with_the_body_that_a_response_would_have(self) -> None:
        error = errors.CircuitOpen(retry_after=11.2)

        data = events.of_error(Ended(), error)

        assert ONE_EVENT.fullmatch(data)
        ((name, body),) = sse.parse(data)
        assert name == "error"
        assert body == {
            "success": False,
            "error": errors.CircuitOpen.public_message,
            "code": "circuit_open",
            "retry_after": 12,
            "request_id": "mine",
        }

    def test_may_be_a_bug_which_is_logged_and_told_without_its_text(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        bug = ZeroDivisionError(CANARY)

        ((name, body),) = sse.parse(events.of_error(Ended(), bug))

        assert (name, body["code"]) == ("error", "stream_interrupted")
        assert CANARY not in str(body)
        (record,) = caplog.records
        assert (record.levelno, record.exc_info and record.exc_info[1]) == (logging.ERROR, bug)

    def test_may_be_an_error_that_needs_no_line_in_the_log(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        events.of_error(Ended(), errors.StreamInterrupted())

        assert caplog.records == []


def test_a_heartbeat_is_no_event() -> None:
    assert sse.parse(events.HEARTBEAT) == []
    assert sse.comments(events.HEARTBEAT) == [": waiting"]
