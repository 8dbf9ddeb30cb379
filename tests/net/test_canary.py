"""A prompt, an answer, a key and a proxy's password, and every place where they must not sing.

The servers here are as indiscreet as can be: they echo all that they know in status lines, headers
and bodies.
"""

from __future__ import annotations

import json
import logging
import secrets
import sys
import traceback
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any

import pytest

from ollama_bridge import OllamaBridgeError, OllamaClient, check_availability
from ollama_bridge.testing import FakeOllama, faults
from tests.net.faulttable import CASES
from tests.net.proxies import ConnectProxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ollama_bridge.testing.faults import Exchange, Fault
    from tests.conftest import MakeClient

# Lower case and free of blanks: they could pass for the name of an option or of a media type.
PROMPT, ANSWER, KEY, PASSWORD = (
    f"{name}{secrets.token_hex(8)}" for name in ("prompt", "answer", "key", "password")
)
CANARIES = (PROMPT, ANSWER, KEY, PASSWORD)
ECHO = f"{PROMPT} {ANSWER} {KEY}"
SHORT = 0.2

Sung = list[str]


@dataclass(frozen=True, slots=True)
class Raw:
    """These bytes, and then the end of the connection, or silence."""

    data: bytes
    silent: bool = False

    async def reply(self, exchange: Exchange) -> None:
        exchange.write(self.data)
        if self.silent:
            await exchange.outwait_client()
        exchange.close()


def http(status: str, headers: str = "", body: bytes = b"", *, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    head = f"HTTP/1.1 {status}\r\n{headers}Content-Length: {size}\r\n\r\n"
    return head.encode() + body


def chatter(**changes: Any) -> bytes:
    good = {
        "model": "llama3.2",
        "message": {"role": "assistant", "content": ANSWER},
        "done": True,
        "done_reason": "stop",
    }
    return json.dumps({**good, **changes}).encode()


HEADERS = (
    f"X-Echo: {ECHO}\r\nServer: {ECHO}\r\nRetry-After: {ECHO}\r\nLocation: http://{KEY}/{PROMPT}\r\n"
    f"WWW-Authenticate: Bearer {KEY}\r\nSet-Cookie: {KEY}={PROMPT}\r\nContent-Type: text/{KEY}\r\n"
)
STATUSES = (200, 301, 307, 400, 401, 403, 404, 405, 413, 418, 422, 429, 499, 500, 501, 502, 503)
TEXTS = (
    f"{ECHO}",
    f'option "{KEY}" must be of type {PROMPT}',
    f"{ECHO} out of memory {ECHO}",
    f"{ECHO} usage limit {ECHO}",
    f"{ECHO} server busy {ECHO}",
    f'"{PROMPT}" does not support {KEY}',
    f'"{PROMPT}" does not support thinking {KEY}',
    f"{PROMPT} exceeds the available context size {KEY}",
    f'model "{PROMPT}" not found, try pulling it first {KEY}',
    f'path "{PROMPT}" not found {KEY}',
    json.dumps({"error": {"code": 500, "message": ECHO}}),
    f"error parsing tool call: raw='{ANSWER}', err={PROMPT}",
)
BODIES = (
    *(json.dumps({"error": text}).encode() for text in TEXTS),
    json.dumps({"error": {"message": ECHO}}).encode(),
    json.dumps({"error": [ECHO]}).encode(),
    json.dumps({ECHO: ECHO}).encode(),
    json.dumps([ECHO]).encode(),
    json.dumps({"error": ECHO}).encode()[:-3],
    ECHO.encode(),
    f"<html>{ECHO}</html>".encode(),
    b"\xff" + ECHO.encode("utf-16"),
)
LINES = (
    f"{ECHO}\r\n\r\n",
    f"HTTP/1.1 {ECHO}\r\n\r\n",
    f"HTTP/1.1 200{KEY} {PROMPT}\r\n\r\n",
    f"{KEY}/1.1 200 OK\r\n\r\n",
    f"HTTP/9.9{KEY} 200 OK\r\n\r\n",
    f"HTTP/1.1 200 OK\r\n{ECHO}\r\n\r\n",
    f"HTTP/1.1 200 OK\r\nX: y\r\n{ECHO} without a colon\r\nContent-Length: 2\r\n\r\n{{}}",
    f"HTTP/1.1 200 OK\r\n {ECHO}: continued\r\nContent-Length: 2\r\n\r\n{{}}",
    f"HTTP/1.1 200 OK\r\nContent-Type: multipart/{KEY}\r\n\r\n{ECHO}",
    f"HTTP/1.1 200 OK\r\nContent-Length: {KEY}\r\n\r\n{ECHO}",
    f"HTTP/1.1 200 OK\r\nContent-Length: 5, {KEY}\r\n\r\n{ECHO}",
    f"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: {KEY}\r\n\r\n{ECHO}",
    f"HTTP/1.1 200 OK\r\nTransfer-Encoding: {KEY}\r\n\r\n{ECHO}",
    f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{KEY}\r\n{ECHO}\r\n",
    f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n99;{KEY}\r\n{ECHO}\r\n",
    f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{ECHO}\r\n",
    f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n{ECHO}\r\n\r\n",
    f"HTTP/1.1 200 OK\r\nContent-Encoding: {KEY}\r\nContent-Length: 5\r\n\r\n{ECHO}",
    f"HTTP/1.1 200 OK\r\nConnection: {KEY}\r\nX-Long: {ECHO * 3000}\r\n\r\n",
    "HTTP/1.1 200 OK\r\n" + f"X-Many: {ECHO}\r\n" * 200 + "\r\n",
)
ODD_REPLIES = (
    chatter(done=False),
    chatter(message=ANSWER),
    chatter(message={"content": [ANSWER], "thinking": {ANSWER: 1}}, done=ANSWER),
    chatter(error=ECHO),
    chatter()[:-2],
    chatter() + ANSWER.encode(),
)
ECHOES: list[Fault] = [
    *(Raw(http(f"{status} {ECHO}", HEADERS, BODIES[0])) for status in STATUSES),
    *(faults.Status(500, body) for body in BODIES),
    *(faults.Status(400, body) for body in BODIES),
    *(faults.Status(200, body) for body in BODIES),
    *(Raw(line.encode()) for line in LINES),
    *(faults.Status(200, body, "application/json") for body in ODD_REPLIES),
    Raw(http("200 OK", body=chatter(), length=10_000)),
    Raw(http("200 OK", body=chatter(), length=10_000), silent=True),
    Raw(f"HTTP/1.1 200 {ECHO}\r\nX-Echo: {ECHO}\r\n".encode(), silent=True),
    Raw(f"HTTP/1.1 200 {ECHO}".encode(), silent=True),
]


@pytest.fixture
def heard(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> Iterator[Callable[[], Sung]]:
    """Return which canaries were heard in logs and output so far."""

    def hear() -> Sung:
        told = capfd.readouterr()
        records = [
            (record.getMessage(), caplog.handler.format(record), vars(record))
            for record in caplog.records
        ]
        return sung(told.out, told.err, *(repr(record) for record in records))

    with caplog.at_level(logging.DEBUG):
        for name in list(logging.root.manager.loggerDict):
            caplog.set_level(logging.NOTSET, name)
        yield hear


def sung(*texts: str) -> Sung:
    return [canary for canary in CANARIES if any(canary in text for text in texts)]


def family(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and all that it came from, shown or not."""
    while error is not None:
        yield error
        if error.__context__ is not error.__cause__:
            yield from family(error.__context__)
        error = error.__cause__


def held(error: BaseException) -> Iterator[str]:
    """Yield what an exception holds, but for its ``partial``, and what that in turn holds."""
    attributes = {name: value for name, value in vars(error).items() if name != "partial"}
    for value in (*error.args, *attributes.values()):
        yield from shown(value)
        if not isinstance(value, str | int | float | None):
            for inner in parts(value):
                yield from shown(inner)


def shown(value: object) -> Iterator[str]:
    yield repr(value)
    yield str(value)


def parts(value: object) -> Iterator[object]:
    if isinstance(value, list | tuple | set | frozenset):
        yield from value
    if isinstance(value, dict):
        yield from value.items()
    if is_dataclass(value):
        yield from (getattr(value, field.name) for field in fields(value))
    yield from getattr(value, "__dict__", {}).values()


def told(error: BaseException) -> Sung:
    """Return which canaries an exception sings of."""
    texts = ["".join(traceback.format_exception(error))]
    for member in family(error):
        texts += [str(member), repr(member), repr(getattr(member, "__notes__", "")), *held(member)]
    return sung(*texts)


def reveal(client: OllamaClient, **arguments: Any) -> Sung:
    """Chat about all canaries; return those that the error sings of."""
    history = [{"role": "assistant", "content": ANSWER}]
    with pytest.raises(OllamaBridgeError) as caught:
        client.chat(PROMPT, f"Never say {PROMPT}.", history=history, **arguments)
    return told(caught.value)


def test_a_canary_that_is_held_is_found() -> None:
    """So that the other tests can fail."""
    inner = ValueError(PROMPT)
    outer = OllamaBridgeError("well")
    outer.__context__ = inner
    assert told(outer) == [PROMPT]
    outer = OllamaBridgeError("well")
    outer.status = {"body": [ANSWER]}  # type: ignore[assignment]
    assert told(outer) == [ANSWER]


def test_a_canary_that_is_logged_is_heard(heard: Callable[[], Sung]) -> None:
    logging.getLogger("urllib3.connection").debug("%s", PROMPT)
    logging.getLogger("ollama_bridge.client").debug("well", extra={"model": ANSWER})
    sys.stdout.write(KEY)
    assert heard() == [PROMPT, ANSWER, KEY]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_no_fault_of_the_table_makes_them_sing(
    make_client: MakeClient, heard: Callable[[], Sung], case: Any
) -> None:
    with FakeOllama(answer=ECHO * 5) as server:
        server.misbehave(case.fault)
        settings = {"max_retries": 1, **case.settings}
        client = make_client(base_url=server.url, api_key=KEY, system_prompt=PROMPT, **settings)
        assert reveal(client) == []
        assert PROMPT in server.chats[0].prompt
        assert KEY in server.chats[0].headers["authorization"]
    assert heard() == []


@pytest.mark.parametrize("number", range(len(ECHOES)))
def test_no_server_that_echoes_all_it_knows_makes_them_sing(
    fake_ollama: FakeOllama,
    make_client: MakeClient,
    heard: Callable[[], Sung],
    number: int,
) -> None:
    fake_ollama.misbehave(ECHOES[number], path=None)
    client = make_client(api_key=KEY, max_retries=1, timeout=SHORT, circuit_breaker=False)
    assert reveal(client) == []
    report = client.health_check()
    assert not report
    assert report.error is not None
    assert told(report.error) == []
    assert sung(repr(report)) == []
    assert heard() == []


def test_nor_does_a_server_that_answers_well_and_echoes_beside_it(
    fake_ollama: FakeOllama, make_client: MakeClient, heard: Callable[[], Sung]
) -> None:
    body = chatter(model=PROMPT, done_reason=KEY, created_at=ANSWER)
    fake_ollama.misbehave(Raw(http(f"200 {ECHO}", HEADERS, body)))
    client = make_client(api_key=KEY)
    assert client.chat(PROMPT) == ANSWER
    assert sung(repr(client), repr(client.circuit_breaker), repr(client.circuit_breakers)) == []
    assert heard() == []


def test_nor_do_refusals(
    fake_ollama: FakeOllama, make_client: MakeClient, heard: Callable[[], Sung]
) -> None:
    fake_ollama.refuse()
    client = make_client(api_key=KEY, failure_threshold=1)
    for _ in range(2):
        assert reveal(client) == []
    assert client.circuit_breaker.state == "open"
    fake_ollama.listen()
    fake_ollama.misbehave(faults.Status(429, BODIES[0], headers=(("Retry-After", "99"),)))
    client.circuit_breaker.reset()
    for _ in range(2):
        assert reveal(client) == []
    assert heard() == []


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_nor_do_proxies(make_client: MakeClient, heard: Callable[[], Sung], scheme: str) -> None:
    with ConnectProxy(1, answer=f"HTTP/1.1 407 {ECHO} {PASSWORD}\r\n\r\n".encode()) as proxy:
        for address in (proxy.url, "http://127.0.0.1:1"):
            client = make_client(
                base_url=f"{scheme}://ollama.internal",
                proxy=address.replace("http://", f"http://ada:{PASSWORD}@"),
                headers={"X-Key": KEY},
                max_retries=1,
            )
            assert reveal(client) == []
            assert sung(repr(client.health_check())) == []
    assert heard() == []


def test_nor_does_a_look_for_a_server(fake_ollama: FakeOllama, heard: Callable[[], Sung]) -> None:
    fake_ollama.misbehave(Raw(LINES[6].encode()), path=None)
    assert not check_availability(fake_ollama.url)
    assert heard() == []
