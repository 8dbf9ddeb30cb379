from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_bridge import errors
from ollama_bridge.core.actions import FaultKind, TransportFault
from ollama_bridge.core.diagnosis import from_body, from_error, from_fault, from_status, missing
from ollama_bridge.core.types import Head, Target

from .virtual import endpoint, reply

TARGET = Target(endpoint(base_url="http://gpu.test:11434"), "tiny")


def diagnose(body: object, status: int, **headers: str) -> errors.OllamaBridgeError:
    response = reply(body, status=status, headers=headers)
    return from_status(response, response.body, TARGET, wall=0.0)


LLAMA_SERVER = (
    '{"error":{"code":400,"message":"request (302 tokens) exceeds the available context size '
    '(256 tokens), try increasing it"}}'
)

# What Ollama 0.24 to 0.33 says, and what it means.
TEXTS: list[tuple[int, object, type[errors.OllamaBridgeError], str]] = [
    (
        400,
        {"error": '"tiny" does not support thinking'},
        errors.RequestRejected,
        "not support think",
    ),
    (400, {"error": "model is required"}, errors.RequestRejected, "Set MODEL"),
    (400, {"error": 'time: missing unit in duration "10"'}, errors.RequestRejected, "keep_alive"),
    (400, {"error": LLAMA_SERVER}, errors.ContextTooLong, "raise num_ctx"),
    (
        400,
        {"error": "the input length exceeds the context length"},
        errors.ContextTooLong,
        "Shorten",
    ),
    (400, {"error": "http: request body too large"}, errors.RequestRejected, "Send less"),
    (400, {"error": "unexpected EOF"}, errors.RequestRejected, "HTTP 400"),
    (401, b"unauthorized\n", errors.AuthenticationFailed, "OLLAMA_API_KEY"),
    (401, {"error": "unauthorized", "signin_url": "x"}, errors.AuthenticationFailed, "the key"),
    (403, b"", errors.AuthenticationFailed, "Host: localhost:11434"),
    (403, {"error": "this model requires a subscription"}, errors.AuthenticationFailed, "upgrade"),
    (403, {"error": "ollama cloud is disabled: x"}, errors.AuthenticationFailed, "OLLAMA_NO_CLOUD"),
    (403, {"error": "no"}, errors.AuthenticationFailed, "refuses this client"),
    (404, {"error": "model 'tiny' not found"}, errors.ModelNotFound, "ollama pull tiny"),
    (404, {"error": "model 'tiny:latest' not found"}, errors.ModelNotFound, "ollama pull tiny"),
    (404, {"error": 'model "tiny" not found, try pulling it first'}, errors.ModelNotFound, "pull"),
    (404, b"404 page not found", errors.RequestRejected, "no Ollama API"),
    (404, {"error": 'path "/api/chat" not found'}, errors.RequestRejected, "no Ollama API"),
    (405, b"405 method not allowed", errors.RequestRejected, "no Ollama API"),
    (413, b"<html>", errors.RequestRejected, "proxy"),
    (418, b"", errors.RequestRejected, "HTTP 418"),
    (429, {"error": "too many concurrent requests"}, errors.RateLimited, "fewer requests"),
    (
        429,
        {"error": "you (x) have reached your weekly usage limit"},
        errors.QuotaExhausted,
        "upgrade",
    ),
    (500, {"error": 'option "num_ctx" must be of type integer'}, errors.RequestRejected, "num_ctx"),
    (500, {"error": 'invalid format: "x"'}, errors.RequestRejected, "JSON schema"),
    (500, {"error": "CUDA error: out of memory"}, errors.ServerFailed, "does not fit in memory"),
    (
        500,
        {"error": "timed out waiting for llama-server to start"},
        errors.ServerFailed,
        "ollama run",
    ),
    (500, {"error": "model runner has unexpectedly stopped"}, errors.ServerFailed, "crashed"),
    (500, {"error": "error parsing tool call: raw='x'"}, errors.ServerFailed, "tool call"),
    (
        500,
        {"error": "this model may be incompatible with your version"},
        errors.ServerFailed,
        "pull",
    ),
    (500, {"error": "boom"}, errors.ServerFailed, "HTTP 500"),
    (500, b"", errors.ServerFailed, "HTTP 500"),
    (502, b"<html>", errors.ServerFailed, "proxy"),
    (503, {"error": "server busy, please try again."}, errors.Overloaded, "OLLAMA_MAX_QUEUE"),
    (503, {"error": "Service Temporarily Unavailable"}, errors.ServerFailed, "HTTP 503"),
    (504, b"<html>", errors.ServerFailed, "proxy"),
    (302, b"", errors.InvalidReply, "redirect"),
]


@pytest.mark.parametrize(("status", "body", "cls", "sentence"), TEXTS, ids=lambda v: str(v)[:40])
def test_each_known_reply_has_its_class_and_its_sentence(
    status: int, body: object, cls: type[errors.OllamaBridgeError], sentence: str
) -> None:
    error = diagnose(body, status)
    assert type(error) is cls
    assert sentence in str(error)
    assert (error.status, error.endpoint, error.model) == (status, "default", "tiny")


def at(name: str, *, is_cloud: bool = False) -> Target:
    return Target(endpoint(name, base_url="http://gpu.test:11434", is_cloud=is_cloud), "tiny")


@pytest.mark.parametrize(
    ("target", "setting"),
    [
        (at("default"), "BASE_URL"),
        (at("default", is_cloud=True), "BASE_URL"),
        (at("local"), "BASE_URL"),
        (at("cloud", is_cloud=True), "CLOUD_ENDPOINT or BASE_URL of cloud"),
        (at("cloud"), "BASE_URL of cloud"),
        (at("gpu"), "BASE_URL of gpu"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_the_setting_that_has_the_address_is_named(target: Target, setting: str) -> None:
    def said(kind: FaultKind) -> str:
        return str(from_fault(TransportFault(kind, "no route"), target, phase="total"))

    page = reply(b"404 page not found", status=404)
    moved = reply(b"", status=302)
    assert said(FaultKind.UNRESOLVED).endswith(f" no address for gpu.test. Check {setting}")
    assert said(FaultKind.UNREACHABLE).endswith(f": no route. Check {setting} and the network")
    assert f" Check {setting}, the network and the firewall" in said(FaultKind.CONNECT_TIMEOUT)
    assert said(FaultKind.GARBLED).endswith(f" Check {setting}")
    assert str(from_body(Head(200, {}), target)).endswith(f" Check {setting}")
    assert str(from_status(moved, b"", target, wall=0.0)).endswith(f" Check {setting}")
    assert f" Check {setting}, and the server" in str(
        from_status(page, page.body, target, wall=0.0)
    )


def test_a_missing_model_is_pulled_but_for_the_cloud_where_nobody_can() -> None:
    for target, sentence in (
        (at("gpu"), "Model tiny not found. Run: ollama pull tiny"),
        (
            at("cloud", is_cloud=True),
            "Model tiny not found at http://gpu.test:11434. See https://ollama.com/search?c=cloud",
        ),
    ):
        response = reply({"error": "model 'tiny' not found"}, status=404)
        for error in (missing(target), from_status(response, response.body, target, wall=0.0)):
            assert type(error) is errors.ModelNotFound
            assert (str(error), error.endpoint) == (sentence, target.endpoint.name)


def test_a_pause_that_the_server_asks_for_is_kept() -> None:
    assert diagnose({"error": "x"}, 503, **{"Retry-After": "7"}).retry_after == 7


@given(st.text(min_size=8), st.sampled_from([200, 302, 400, 403, 404, 429, 500, 503, 599]))
def test_no_text_of_a_server_is_ever_shown(text: str, status: int) -> None:
    canary = f"canary{text}canary"
    error = diagnose({"error": canary}, status)
    assert "canary" not in str(error) + repr(error) + repr(vars(error))


@pytest.mark.parametrize("quoted", ["usage limit", "requires a subscription", "out of memory"])
def test_a_text_means_nothing_under_a_status_that_it_does_not_go_with(quoted: str) -> None:
    assert type(diagnose({"error": quoted}, 404)) is errors.ModelNotFound
    assert type(diagnose({"error": quoted}, 400)) is errors.RequestRejected


def test_an_error_inside_a_200_is_known_by_its_text() -> None:
    assert type(from_error("model requires more system memory", TARGET)) is errors.ServerFailed
    assert "inside its reply" in str(from_error("odd", TARGET))
    assert from_error("odd", TARGET).status == 200


@pytest.mark.parametrize(
    ("content_type", "what"),
    [("text/html; charset=utf-8", "text/html"), ("", "something"), ("canary of <b>", "something")],
)
def test_a_body_that_is_no_reply_is_told_by_its_type(content_type: str, what: str) -> None:
    error = from_body(Head(200, {"Content-Type": content_type}), TARGET)
    assert str(error).startswith(f"http://gpu.test:11434 answered with {what} that is no reply")
    assert (type(error), error.status) == (errors.InvalidReply, 200)


FAULTS: list[tuple[FaultKind, type[errors.OllamaBridgeError], str]] = [
    (FaultKind.UNRESOLVED, errors.ConnectionFailed, "no address for gpu.test"),
    (FaultKind.REFUSED, errors.ConnectionFailed, "Start it with: ollama serve"),
    (FaultKind.UNREACHABLE, errors.ConnectionFailed, "no route"),
    (FaultKind.CONNECT_TIMEOUT, errors.Timeout, "firewall"),
    (FaultKind.TLS, errors.ConnectionFailed, "VERIFY_SSL"),
    (FaultKind.PROXY, errors.ConnectionFailed, "Check PROXY"),
    (FaultKind.DROPPED, errors.ConnectionFailed, "without a reply"),
    (FaultKind.CUT, errors.ConnectionFailed, "broke inside the reply"),
    (FaultKind.GARBLED, errors.InvalidReply, "not HTTP"),
    (FaultKind.SILENT, errors.Timeout, "still loading. Load it once by hand: ollama run tiny"),
    (FaultKind.SLOW, errors.Timeout, "Raise TIMEOUT"),
    (FaultKind.TOO_LARGE, errors.InvalidReply, "MAX_RESPONSE_BYTES (10000)"),
]


@pytest.mark.parametrize(("kind", "cls", "sentence"), FAULTS, ids=str)
def test_each_fault_has_its_class_and_its_sentence(
    kind: FaultKind, cls: type[errors.OllamaBridgeError], sentence: str
) -> None:
    error = from_fault(TransportFault(kind, "no route"), TARGET, phase="total")
    assert type(error) is cls
    assert sentence in str(error)
    assert error.retryable is (cls.retryable and kind is not FaultKind.TLS)


def test_nobody_is_told_to_start_the_cloud() -> None:
    fault = TransportFault(FaultKind.REFUSED, "Connection refused")
    assert "Start it with: ollama serve" in str(from_fault(fault, at("gpu"), phase="total"))
    error = from_fault(fault, at("cloud", is_cloud=True), phase="total")
    assert str(error) == (
        "Cannot connect to Ollama at http://gpu.test:11434: Connection refused. "
        "Check CLOUD_ENDPOINT or BASE_URL of cloud and the network"
    )


def test_every_fault_is_in_the_table() -> None:
    assert {kind for kind, *_ in FAULTS} == set(FaultKind)


@pytest.mark.parametrize(
    ("kind", "phase", "expected"),
    [
        (FaultKind.CONNECT_TIMEOUT, "total", "connect"),
        (FaultKind.SILENT, "first_token", "first_token"),
        (FaultKind.SLOW, "idle", "idle"),
    ],
)
def test_a_timeout_says_which_limit_elapsed(kind: FaultKind, phase: Any, expected: str) -> None:
    error = from_fault(TransportFault(kind), TARGET, phase=phase)
    assert isinstance(error, errors.Timeout)
    assert error.phase == expected


def test_every_sentence_for_operators_says_what_to_do_next() -> None:
    remedies = (
        "Check",
        "Set",
        "Start",
        "See",
        "Run",
        "Load",
        "Raise",
        "Use",
        "Shorten",
        "Correct",
        "Choose",
        "Send",
        "Wait",
        "Unset",
        "Try",
        "MAX_RESPONSE_BYTES",
        "fewer",
    )
    said = [str(from_fault(TransportFault(kind), TARGET, phase="total")) for kind in FaultKind]
    said += [str(diagnose(body, status)) for status, body, *_ in TEXTS]
    assert [sentence for sentence in said if not any(word in sentence for word in remedies)] == []
