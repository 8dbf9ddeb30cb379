"""What goes over the wire, to whom, and under whose certificate."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from ollama_bridge import (
    ConnectionFailed,
    InvalidReply,
    OllamaClient,
    RequestRejected,
    __version__,
)
from ollama_bridge.testing import FakeOllama, faults, when
from ollama_bridge.transports import sockets
from tests.net.proxies import ConnectProxy
from tests.net.rawserver import RawServer, read_request

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator
    from pathlib import Path

    import trustme

    from tests.conftest import MakeClient

QUESTION = "What is water?"
KEY = "sk-canary-0123456789"


@pytest.fixture
def secure(server_tls: ssl.SSLContext) -> Iterator[FakeOllama]:
    with FakeOllama(tls=server_tls) as server:
        yield server


def test_a_request_has_these_headers_and_no_others(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    make_client().chat(QUESTION)
    (request,) = fake_ollama.chats
    assert request.headers == {
        "host": f"127.0.0.1:{fake_ollama.port}",
        "user-agent": f"ollama_bridge/{__version__}",
        "accept": "application/json, application/x-ndjson",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "content-length": str(len(request.body)),
    }


def test_the_key_goes_to_its_server(fake_ollama: FakeOllama, make_client: MakeClient) -> None:
    make_client(api_key=KEY).chat(QUESTION)
    assert fake_ollama.chats[0].headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("host", ["ollama.example.com", "10.0.0.5", "127.0.0.1.evil.test"])
def test_the_key_never_goes_over_plain_http_to_another_machine(
    make_client: MakeClient, host: str
) -> None:
    client = make_client(base_url=f"http://{host}:11434", api_key=KEY)
    with pytest.raises(ImproperlyConfigured, match="plain http to another machine") as caught:
        client.chat(QUESTION)
    assert KEY not in str(caught.value)


def test_nor_through_a_proxy_that_could_read_it(make_client: MakeClient) -> None:
    client = make_client(api_key=KEY, proxy="http://proxy.example.com:3128")
    with pytest.raises(ImproperlyConfigured, match="plain http to another machine"):
        client.chat(QUESTION)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(make_client: MakeClient, status: int) -> None:
    with FakeOllama() as there, FakeOllama() as here:
        location = (("Location", f"{there.url}/api/chat"),)
        here.misbehave(faults.Status(status, headers=location))
        with pytest.raises(InvalidReply, match=r"a redirect perhaps\. Check BASE_URL"):
            make_client(base_url=here.url, api_key=KEY).chat(QUESTION)
        assert there.requests == []
        assert len(here.requests) == 1


def test_headers_of_the_settings_go_along(fake_ollama: FakeOllama, make_client: MakeClient) -> None:
    headers = {"X-Tenant": "school", "User-Agent": "mentor/1"}
    make_client(headers=headers).chat(QUESTION)
    sent = fake_ollama.chats[0].headers
    assert (sent["x-tenant"], sent["user-agent"]) == ("school", "mentor/1")


def test_a_basic_authorization_may_be_a_header(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    make_client(headers={"Authorization": "Basic YTpi"}).chat(QUESTION)
    assert fake_ollama.chats[0].headers["authorization"] == "Basic YTpi"


def test_a_host_may_be_a_header_as_proxies_need_it(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    make_client(headers={"Host": "localhost:11434"}).chat(QUESTION)
    assert fake_ollama.chats[0].headers["host"] == "localhost:11434"


def test_cookies_are_not_kept(fake_ollama: FakeOllama, make_client: MakeClient) -> None:
    cookie = (("Set-Cookie", "session=1; Path=/"),)
    fake_ollama.misbehave(faults.Status(503, headers=cookie), when=when.first(1))
    make_client().chat(QUESTION)
    assert len(fake_ollama.chats) == 2
    assert all("cookie" not in request.headers for request in fake_ollama.chats)


def test_netrc_is_not_read(
    fake_ollama: FakeOllama,
    make_client: MakeClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login ada password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    make_client().chat(QUESTION)
    assert "authorization" not in fake_ollama.chats[0].headers


def test_proxies_of_the_environment_are_ignored(
    fake_ollama: FakeOllama, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert make_client().chat(QUESTION)
    assert fake_ollama.chats[0].target == "/api/chat"


def test_a_base_url_may_have_a_path(make_client: MakeClient) -> None:
    with FakeOllama() as server:
        server.misbehave(faults.Status(418), path=None)
        client = make_client(base_url=f"{server.url}/ai/ollama/", max_retries=0)
        with pytest.raises(RequestRejected):
            client.chat(QUESTION)
        assert server.requests[0].target == "/ai/ollama/api/chat"


def test_localhost_and_ipv6_are_hosts_too(make_client: MakeClient) -> None:
    with FakeOllama() as server:
        assert make_client(base_url=f"http://localhost:{server.port}", api_key=KEY).chat(QUESTION)
    with FakeOllama(host="::1") as server:
        assert make_client(base_url=server.url, api_key=KEY).chat(QUESTION)
        assert server.chats[0].headers["host"] == f"[::1]:{server.port}"


# PROXY


def test_a_proxy_of_the_settings_gets_plain_requests(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    client = make_client(base_url="http://ollama.internal:11434", proxy=fake_ollama.url)
    assert client.chat(QUESTION)
    (request,) = fake_ollama.chats
    assert request.target == "http://ollama.internal:11434/api/chat"
    assert request.headers["host"] == "ollama.internal:11434"


def test_it_is_told_who_we_are(fake_ollama: FakeOllama, make_client: MakeClient) -> None:
    proxy = fake_ollama.url.replace("http://", "http://ada:secret@")
    make_client(base_url="http://ollama.internal", proxy=proxy).chat(QUESTION)
    assert fake_ollama.chats[0].headers["proxy-authorization"] == "Basic YWRhOnNlY3JldA=="


def test_its_connections_are_kept_too(fake_ollama: FakeOllama, make_client: MakeClient) -> None:
    client = make_client(base_url="http://ollama.internal", proxy=fake_ollama.url)
    for _ in range(3):
        client.chat(QUESTION)
    assert [request.turn for request in fake_ollama.chats] == [1, 2, 3]


def test_a_tunnel_hides_everything_from_the_proxy(
    secure: FakeOllama, make_client: MakeClient, ca_file: Path
) -> None:
    with ConnectProxy(secure.port) as proxy:
        client = make_client(
            base_url="https://ollama.internal",
            proxy=proxy.url.replace("http://", "http://ada:secret@"),
            verify_ssl=str(ca_file),
            api_key=KEY,
        )
        for _ in range(2):
            assert client.chat(QUESTION)
        client.close()
    (head,) = proxy.heads
    assert head.startswith("CONNECT ollama.internal:443 HTTP/1.")
    assert "Proxy-Authorization: Basic YWRhOnNlY3JldA==" in head
    assert KEY not in head
    assert [request.turn for request in secure.chats] == [1, 2]
    assert all("proxy-authorization" not in request.headers for request in secure.chats)
    assert secure.chats[0].headers["authorization"] == f"Bearer {KEY}"


def test_a_tunnel_that_was_dropped_is_dug_again(
    secure: FakeOllama, make_client: MakeClient, ca_file: Path
) -> None:
    secure.misbehave(faults.Drop(), when=when.reused())
    with ConnectProxy(secure.port) as proxy:
        client = make_client(
            base_url="https://ollama.internal",
            proxy=proxy.url,
            verify_ssl=str(ca_file),
            max_retries=0,
        )
        for _ in range(3):
            assert client.chat(QUESTION)
        client.close()
    assert len(proxy.heads) == 3


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_does_not_run_is_said_to_be_one(make_client: MakeClient, scheme: str) -> None:
    client = make_client(base_url=f"{scheme}://ollama.internal", proxy="http://127.0.0.1:1")
    with pytest.raises(ConnectionFailed) as caught:
        client.chat(QUESTION)
    assert str(caught.value) == (
        f"The proxy did not connect to {scheme}://ollama.internal: Connection refused. Check PROXY"
    )


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "HTTP 407"),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "HTTP 502"),
        (b"HTTP/1.1 503 \r\n\r\n", "HTTP 503"),
        (b"not HTTP\r\n\r\n", "no details"),
        (b"", "no details"),
    ],
)
def test_a_proxy_that_refuses_the_tunnel_is_said_to_be_one(
    make_client: MakeClient, answer: bytes, detail: str
) -> None:
    with ConnectProxy(1, answer=answer) as proxy:
        client = make_client(base_url="https://ollama.internal", proxy=proxy.url, max_retries=0)
        with pytest.raises(ConnectionFailed) as caught:
            client.chat(QUESTION)
    assert str(caught.value) == (
        f"The proxy did not connect to https://ollama.internal: {detail}. Check PROXY"
    )


def test_a_proxy_whose_name_has_no_address_is_said_to_be_one(make_client: MakeClient) -> None:
    client = make_client(base_url="http://ollama.internal", proxy="http://nothing.invalid:3128")
    with pytest.raises(ConnectionFailed, match=r"The proxy did not .* Name .* Check PROXY"):
        client.chat(QUESTION)


def test_a_connection_that_was_dropped_behind_a_proxy_is_replaced_too(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    fake_ollama.misbehave(faults.Drop(), when=when.reused())
    client = make_client(base_url="http://ollama.internal", proxy=fake_ollama.url, max_retries=0)
    for _ in range(3):
        assert client.chat(QUESTION)


def test_a_proxy_may_speak_tls_itself(
    secure: FakeOllama, make_client: MakeClient, ca_file: Path
) -> None:
    client = make_client(
        base_url="http://ollama.internal", proxy=secure.url, verify_ssl=str(ca_file)
    )
    for _ in range(2):
        assert client.chat(QUESTION)
    assert [request.turn for request in secure.chats] == [1, 2]


def test_a_tunnel_may_lead_through_tls(
    secure: FakeOllama, make_client: MakeClient, ca_file: Path, server_tls: ssl.SSLContext
) -> None:
    with ConnectProxy(secure.port, tls=server_tls) as proxy:
        client = make_client(
            base_url="https://ollama.internal", proxy=proxy.url, verify_ssl=str(ca_file)
        )
        for _ in range(2):
            assert client.chat(QUESTION)
        client.close()
    assert [request.turn for request in secure.chats] == [1, 2]


# VERIFY_SSL


def test_a_certificate_of_an_unknown_authority_is_refused(
    secure: FakeOllama, make_client: MakeClient
) -> None:
    with pytest.raises(ConnectionFailed) as caught:
        make_client(base_url=secure.url).chat(QUESTION)
    assert str(caught.value) == (
        f"No secure connection to {secure.url}: unable to get local issuer certificate. "
        "Set VERIFY_SSL to the path of its CA"
    ) or "self-signed certificate" in str(caught.value)
    assert not caught.value.retryable
    assert len(caught.value.attempts) == 1
    assert secure.requests == []


def test_the_path_of_the_authority_makes_it_known(
    secure: FakeOllama, make_client: MakeClient, ca_file: Path
) -> None:
    client = make_client(base_url=secure.url, verify_ssl=str(ca_file), api_key=KEY)
    for _ in range(3):
        assert client.chat(QUESTION)
    assert [request.turn for request in secure.chats] == [1, 2, 3]


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl makes the names of its files")
def test_so_does_a_folder_of_authorities(
    secure: FakeOllama, make_client: MakeClient, ca: trustme.CA, tmp_path: Path
) -> None:
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    # OpenSSL finds a certificate by the hash of its subject, which it alone computes.
    subprocess.run(["openssl", "rehash", str(tmp_path)], check=True)  # noqa: S603, S607
    assert make_client(base_url=secure.url, verify_ssl=str(tmp_path)).chat(QUESTION)


def test_without_verification_any_certificate_will_do(
    secure: FakeOllama, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    assert make_client(base_url=secure.url, verify_ssl=False).chat(QUESTION)
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []


def test_a_certificate_for_another_host_is_refused(
    make_client: MakeClient, ca: trustme.CA, ca_file: Path
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("elsewhere.test").configure_cert(context)
    with FakeOllama(tls=context) as server:
        client = make_client(base_url=server.url, verify_ssl=str(ca_file))
        with pytest.raises(ConnectionFailed, match=r"No secure connection .* not valid for"):
            client.chat(QUESTION)
        assert server.requests == []


def test_https_to_a_server_that_speaks_http_is_no_secure_connection(
    make_client: MakeClient,
) -> None:
    def serve(sock: socket.socket) -> None:
        sock.recv(100)
        sock.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n400 Bad Request")

    with RawServer(serve) as server:
        client = make_client(base_url=server.url.replace("http:", "https:"))
        with pytest.raises(ConnectionFailed, match="No secure connection"):
            client.chat(QUESTION)


def test_a_handshake_that_the_server_ends_is_a_dropped_connection(
    make_client: MakeClient,
) -> None:
    with RawServer(lambda sock: void(sock.recv(100))) as server:
        client = make_client(base_url=server.url.replace("http:", "https:"), max_retries=1)
        with pytest.raises(ConnectionFailed, match="closed the connection") as caught:
            client.chat(QUESTION)
        assert caught.value.retryable
        assert server.accepted == 3


def void(_: object) -> None:
    """Be a function that returns nothing."""


def test_http_to_a_server_that_speaks_tls_is_a_failure_of_the_connection_or_no_http(
    secure: FakeOllama, make_client: MakeClient
) -> None:
    client = make_client(base_url=secure.url.replace("https:", "http:"), max_retries=0)
    with pytest.raises((ConnectionFailed, InvalidReply)):
        client.chat(QUESTION)


def test_a_reply_that_comes_before_the_request_was_read_is_heard(make_client: MakeClient) -> None:
    def serve(sock: socket.socket) -> None:
        sock.recv(100)
        reply = b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        sock.sendall(reply)
        while sock.recv(1_000_000):
            pass

    with RawServer(serve) as server:
        client = make_client(base_url=server.url, max_retries=0)
        with pytest.raises(RequestRejected, match="too large for a proxy") as caught:
            client.chat("x" * 10_000_000)
    assert caught.value.status == 413


def test_a_server_that_closes_after_each_reply_and_says_so_is_believed(
    make_client: MakeClient,
) -> None:
    body = b'{"message":{"content":"Wet."},"done":true}'

    def serve(sock: socket.socket) -> None:
        if read_request(sock):
            head = b"HTTP/1.0 200 OK\r\n\r\n"
            sock.sendall(head + body)

    with RawServer(serve) as server:
        client = make_client(base_url=server.url, max_retries=0)
        assert [client.chat(QUESTION) for _ in range(3)] == ["Wet."] * 3
        assert server.accepted == 3


def test_a_client_for_another_server_does_not_take_the_key_and_headers_of_the_settings(
    fake_ollama: FakeOllama, settings: Any
) -> None:
    settings.OLLAMA_BRIDGE = {"API_KEY": "canary", "HEADERS": {"X-Secret": "canary"}}
    with OllamaClient(base_url=fake_ollama.url) as client:
        client.chat(QUESTION)
    assert "canary" not in str(fake_ollama.chats[-1].headers)
    with OllamaClient(base_url=fake_ollama.url, api_key="its-own") as client:
        client.chat(QUESTION)
    assert fake_ollama.chats[-1].headers["authorization"] == "Bearer its-own"


def test_head_and_body_leave_in_one_piece(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two would wake the server twice, once for nothing."""
    pieces: list[bytes] = []
    send = sockets._DeadlineSocket.sendall

    def sendall(self: Any, data: bytes) -> None:
        pieces.append(data)
        send(self, data)

    monkeypatch.setattr(sockets._DeadlineSocket, "sendall", sendall)
    make_client().chat("What is water?")
    (piece,) = pieces
    assert piece.startswith(b"POST /api/chat HTTP/1.1\r\n")
    assert b"What is water?" in piece
