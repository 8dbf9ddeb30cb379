"""Each way in which an answer can fail to come: status, code, sentence, time to wait."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from django.core.exceptions import ImproperlyConfigured, PermissionDenied, RequestDataTooBig
from django.http import Http404
from django.test import RequestFactory
from django.views.debug import ExceptionReporter
from rest_framework import exceptions

from ollama_bridge import errors
from ollama_bridge.api.errors import STATUSES, Problem, of_bridge, problem_of
from ollama_bridge.api.views import ChatView
from ollama_bridge.testing import FakeOllama, faults

if TYPE_CHECKING:
    from rest_framework.test import APIClient

Ask = Callable[..., Any]
Configure = Callable[..., None]

CANARY = "heliotrope-armadillo"


def _error(status: int, text: str) -> faults.Fault:
    return faults.Status(status, json.dumps({"error": text}).encode(), "application/json")


UPSTREAM = [
    (faults.Reset(), 503, "connection_failed", 30),
    (faults.Drop(), 503, "connection_failed", 30),
    (faults.CutBody(), 503, "connection_failed", 30),
    (faults.BlackHole(), 504, "timeout", None),
    (faults.server_error(), 502, "upstream_failed", None),
    (faults.nested_error(), 502, "upstream_failed", None),
    (faults.out_of_memory(), 502, "upstream_failed", None),
    (faults.bad_gateway(), 502, "upstream_failed", None),
    (faults.gateway_timeout(), 502, "upstream_failed", None),
    (faults.ErrorInOK(), 502, "upstream_failed", None),
    (faults.unavailable(7), 502, "upstream_failed", 7),
    (faults.busy(), 503, "overloaded", 30),
    (faults.rate_limited(), 503, "rate_limited", 30),
    (faults.rate_limited(12), 503, "rate_limited", 12),
    (faults.usage_limit(3600), 503, "quota_exhausted", 3600),
    (faults.model_missing(), 503, "model_not_found", 30),
    (faults.page_not_found(), 502, "request_rejected", None),
    (faults.bad_option(), 502, "request_rejected", None),
    (faults.unauthorized(), 502, "upstream_auth", None),
    (faults.forbidden(), 502, "upstream_auth", None),
    (_error(400, "the input length exceeds the context length"), 400, "context_too_long", None),
    (faults.NotDone(), 502, "invalid_reply", None),
    (faults.TruncatedJSON(), 502, "invalid_reply", None),
    (faults.WrongType(), 502, "invalid_reply", None),
    (faults.Garbage(), 502, "invalid_reply", None),
]


def _leaves(kind: type[errors.OllamaBridgeError]) -> Iterator[type[errors.OllamaBridgeError]]:
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__ and not child.__name__.startswith("_"):
            yield child
        yield from _leaves(child)


def _sentence(code: str) -> str:
    kinds = {kind.code: kind.public_message for kind in _leaves(errors.OllamaBridgeError)}
    return kinds[code]


@pytest.fixture
def plain(configure: Configure) -> Configure:
    """One attempt, little time."""
    configure(MAX_RETRIES=0, TIMEOUT=0.3)
    return configure


class TestOfTheServer:
    @pytest.mark.usefixtures("plain")
    @pytest.mark.parametrize(("fault", "status", "code", "wait"), UPSTREAM)
    def test_each_fault_has_its_status_code_and_sentence(
        self,
        ask: Ask,
        fake_ollama: FakeOllama,
        fault: faults.Fault,
        status: int,
        code: str,
        wait: int | None,
    ) -> None:
        fake_ollama.misbehave(fault)
        response = ask()
        body = response.json()
        assert (response.status_code, body["code"]) == (status, code)
        assert body["error"] == _sentence(code)
        assert body.get("retry_after") == wait
        assert response.headers.get("Retry-After") == (str(wait) if wait else None)
        assert "no-store" in response.headers["Cache-Control"]
        assert set(body) - {"retry_after"} == {"success", "error", "code", "request_id"}

    def test_a_server_that_is_gone_opens_the_circuit(
        self, ask: Ask, plain: Configure, fake_ollama: FakeOllama
    ) -> None:
        plain(MAX_RETRIES=0, OPEN_SECONDS=20, FAILURE_THRESHOLD=2)
        fake_ollama.refuse()
        assert [ask().json()["code"] for _ in range(2)] == ["connection_failed"] * 2
        response = ask()
        assert response.status_code == 503
        assert response.json()["code"] == "circuit_open"
        assert 1 <= int(response.headers["Retry-After"]) <= 20

    def test_a_name_without_an_address_is_a_failed_connection(
        self, ask: Ask, plain: Configure
    ) -> None:
        plain(MAX_RETRIES=0, BASE_URL="http://nowhere.invalid:11434", CONNECT_TIMEOUT=0.3)
        assert ask().status_code in {503, 504}

    @pytest.mark.parametrize(
        "chosen", [{"options": {"temperature": 1}}, {"model": "llama3.2"}, {"system_prompt": ""}]
    )
    def test_a_rejected_request_is_the_clients_fault_where_it_chose(
        self, ask: Ask, plain: Configure, fake_ollama: FakeOllama, chosen: dict[str, Any]
    ) -> None:
        plain(CLIENT_MAY_SET=["model", "options", "system_prompt"])
        fake_ollama.misbehave(faults.bad_option())
        assert ask().status_code == 502
        response = ask(**chosen)
        assert response.status_code == 400
        assert response.json()["code"] == "request_rejected"

    def test_only_staff_see_what_the_operator_should_know(
        self, ask: Ask, staff: APIClient, plain: Configure, fake_ollama: FakeOllama
    ) -> None:
        plain(MAX_RETRIES=0)
        fake_ollama.misbehave(faults.model_missing())
        assert "detail" not in ask().json()
        body = staff.post("/api/chat/", {"message": "Hi"}, format="json").json()
        assert body["detail"] == "Model llama3.2 not found. Run: ollama pull llama3.2"


class TestOfTheSettings:
    def test_a_wrong_setting_is_told_to_the_log_and_to_staff(
        self, ask: Ask, staff: APIClient, configure: Configure, caplog: pytest.LogCaptureFixture
    ) -> None:
        configure(TIMEOUT="soon")
        response = ask()
        assert response.status_code == 500
        assert response.json()["code"] == "misconfigured"
        assert "tell the site's operator" in response.json()["error"]
        assert "detail" not in response.json()
        assert "TIMEOUT must be a number" in caplog.text
        detail = staff.post("/api/chat/", {"message": "Hi"}, format="json").json()["detail"]
        assert "TIMEOUT must be a number" in detail

    def test_a_permission_that_does_not_exist_is_one(self, ask: Ask, configure: Configure) -> None:
        configure(PERMISSION_CLASSES=["nowhere.IsAdmin"])
        assert ask().json()["code"] == "misconfigured"


@pytest.mark.usefixtures("configure")
class TestOfOurOwn:
    def _break(self, client: APIClient, monkeypatch: pytest.MonkeyPatch) -> Any:
        def get_system_prompt(*_: object) -> str:
            raise ZeroDivisionError("a bug")

        monkeypatch.setattr(ChatView, "get_system_prompt", get_system_prompt)
        return client.post("/api/chat/", {"message": CANARY}, format="json")

    def test_a_bug_is_left_to_django(
        self, member: APIClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(ZeroDivisionError):
            self._break(member, monkeypatch)

    def test_a_bug_is_reported_without_what_was_asked(
        self,
        member: APIClient,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        member.raise_request_exception = False
        assert self._break(member, monkeypatch).status_code == 500
        (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert record.exc_info
        request = record.__dict__["request"]
        reporter = ExceptionReporter(request, *record.exc_info)
        report = reporter.get_traceback_html() + reporter.get_traceback_text()
        assert "ZeroDivisionError" in report
        assert CANARY not in report
        assert CANARY not in caplog.text


class TestTheTable:
    def test_has_a_row_for_every_error_of_the_bridge(self) -> None:
        codes = {kind.code for kind in _leaves(errors.OllamaBridgeError)}
        assert codes <= STATUSES.keys()
        assert len(codes) == 16

    def test_an_error_of_somebody_elses_making_is_answered_too(self) -> None:
        class Melted(errors.OllamaBridgeError):
            code = "melted"

        problem = of_bridge(Melted("GPU 3 has melted", retry_after=0.2))
        assert (problem.status, problem.code, problem.retry_after) == (502, "melted", 1)

    @pytest.mark.parametrize(
        ("seconds", "shown"), [(None, 30), (0.0, 1), (0.1, 1), (11.2, 12), (float("inf"), 30)]
    )
    def test_a_503_always_says_when_to_try_again(self, seconds: float | None, shown: int) -> None:
        problem = of_bridge(errors.CircuitOpen(retry_after=seconds))
        assert problem.retry_after == shown
        assert problem.headers() == {"Retry-After": str(shown)}
        assert problem.body("id", staff=False)["retry_after"] == shown

    @pytest.mark.parametrize(
        ("exc", "status", "code", "sentence"),
        [
            (exceptions.NotFound("/secret"), 404, "not_found", "There is nothing at this address."),
            (Http404("/secret"), 404, "not_found", "There is nothing at this address."),
            (PermissionDenied(), 403, "forbidden", "You may not do this."),
            (PermissionDenied("Ask Ada."), 403, "forbidden", "Ask Ada."),
            (exceptions.AuthenticationFailed("Expired."), 401, "not_authenticated", "Expired."),
            (exceptions.Throttled(0.4), 429, "throttled", "You are sending too many"),
            (exceptions.ValidationError("Odd."), 400, "invalid", "Odd."),
            (exceptions.ValidationError(["Odd.", "Old."]), 400, "invalid", "Odd."),
            (exceptions.ValidationError({"a": [["x"]]}), 400, "invalid", "a[0]: x"),
            (RequestDataTooBig("/secret"), 413, "too_large", "The request is too large."),
            (ImproperlyConfigured("secret"), 500, "misconfigured", "The AI service is not set up"),
            (exceptions.APIException("Gone fishing."), 500, "error", "Gone fishing."),
        ],
    )
    def test_translates_what_django_raises(
        self, exc: Exception, status: int, code: str, sentence: str
    ) -> None:
        problem = problem_of(exc)
        assert problem is not None
        assert (problem.status, problem.code) == (status, code)
        assert problem.error.startswith(sentence)
        assert "secret" not in problem.error

    def test_knows_no_answer_to_a_bug(self) -> None:
        assert problem_of(ZeroDivisionError()) is None

    def test_a_detail_is_for_staff(self) -> None:
        problem = Problem(code="c", status=500, error="e", detail="d")
        assert "detail" not in problem.body("id", staff=False)
        assert problem.body("id", staff=True)["detail"] == "d"


def test_who_asks_may_be_unknown_when_an_error_comes_early(configure: Configure) -> None:
    """The settings are read before it is asked who is there, which itself may fail."""

    class Unsure(ChatView):
        def get_authenticators(self) -> Any:
            return [_Refusing()]

    configure(MAX_BODY_BYTES="many")
    request = RequestFactory().post("/", b"{}", content_type="application/json")
    response: Any = Unsure.as_view()(request)
    assert response.status_code == 500
    assert "detail" not in response.data


class _Refusing:
    def authenticate(self, _request: object) -> None:
        raise exceptions.PermissionDenied

    def authenticate_header(self, _request: object) -> str:
        return "Key"


@pytest.mark.usefixtures("configure")
def test_the_challenge_of_the_first_authenticator_comes_with_a_401() -> None:
    class Keyed(ChatView):
        def get_authenticators(self) -> Any:
            return [_Silent()]

    request = RequestFactory().post("/", b"{}", content_type="application/json")
    response = Keyed.as_view()(request)
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Key"


class _Silent(_Refusing):
    def authenticate(self, _request: object) -> None:
        return None
