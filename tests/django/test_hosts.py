"""URLs of servers, and ``OLLAMA_HOST`` as the official Python client reads it."""

import pytest

from ollama_bridge import conf
from ollama_bridge.conf import Settings
from ollama_bridge.hosts import server_of


@pytest.fixture(autouse=True)
def _no_base_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OLLAMA_BASE_URL", raising=False)


# The values and results of the official client's own examples, and of its oddities.
@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("", "http://127.0.0.1:11434"),
        ("1.2.3.4", "http://1.2.3.4:11434"),
        (":56789", "http://127.0.0.1:56789"),
        ("1.2.3.4:56789", "http://1.2.3.4:56789"),
        ("http://1.2.3.4", "http://1.2.3.4:80"),
        ("https://1.2.3.4", "https://1.2.3.4:443"),
        ("https://1.2.3.4:56789", "https://1.2.3.4:56789"),
        ("example.com", "http://example.com:11434"),
        ("example.com:56789", "http://example.com:56789"),
        ("http://example.com", "http://example.com:80"),
        ("https://example.com", "https://example.com:443"),
        ("example.com/", "http://example.com:11434"),
        ("example.com/path", "http://example.com:11434/path"),
        ("https://example.com:56789/path/", "https://example.com:56789/path"),
        ("[0001:002:003:0004::1]", "http://[0001:002:003:0004::1]:11434"),
        ("https://[::1]", "https://[::1]:443"),
        ("[::1]:56789/path", "http://[::1]:56789/path"),
        ("ollama.com", "http://ollama.com:11434"),
        ("0.0.0.0:80", "http://0.0.0.0:80"),
        ("user:pw@example.com", "http://example.com:11434"),
        ("example.com:0", "http://example.com:11434"),
        ("example.com/path?query", "http://example.com:11434/path"),
    ],
)
def test_ollama_host_is_read_as_the_official_client_reads_it(
    monkeypatch: pytest.MonkeyPatch, host: str, url: str
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", host)

    assert url == Settings.build().BASE_URL


@pytest.mark.parametrize(
    "host", ["::1", "h:99999", "h:port", "[::1", '"http://h"', " h", "ftp://h", "two words"]
)
def test_a_bad_ollama_host_is_an_error_that_names_it(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", host)

    (problem,) = conf.problems()

    assert problem.name == "BASE_URL"
    assert "BASE_URL, from the environment (OLLAMA_HOST)," in problem.message


def test_an_ipv6_address_without_brackets_is_answered_with_brackets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "::1")

    assert "OLLAMA_HOST=[::1]" in conf.problems()[0].hint


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("http://gpu:11434", "http://gpu:11434"),
        ("http://gpu:11434/", "http://gpu:11434"),
        ("HTTPS://ollama.com", "https://ollama.com"),
        ("http://gateway/ollama/", "http://gateway/ollama"),
        ("http://[::1]:11434", "http://[::1]:11434"),
        ("http://gpu:", "http://gpu"),
        ("http://bücher.example", "http://bücher.example"),
    ],
)
def test_a_base_url_is_kept_without_its_trailing_slash(written: str, url: str) -> None:
    assert url == Settings.build({"BASE_URL": written}).BASE_URL


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("gpu:11434", "must begin with http:// or https://"),
        ("//gpu:11434", "must begin with http:// or https://"),
        ("ftp://gpu", "must begin with http:// or https://"),
        ("http://", "has an invalid host or port"),
        ("http://:11434", "has an invalid host or port"),
        ("http://gpu:port", "has an invalid host or port"),
        ("http://gpu:99999", "has an invalid host or port"),
        ("http://gpu:0", "has an invalid host or port"),
        ("http://::1", "has an invalid host or port"),
        ("http://[::1", "has an invalid host or port"),
        ("http://[gpu]", "has an invalid host or port"),
        ("http://[]", "has an invalid host or port"),
        ("http://g pu", "has an invalid host or port"),
        ("http://gpu\n", "has an invalid host or port"),
        ("http://gpu\\@example.com", "has an invalid host or port"),
        ("http://user:pw@gpu", "must not contain a user name or password"),
        ("http://@gpu", "must not contain a user name or password"),
        ("http://gpu?", "must not contain a query or fragment"),
        ("http://gpu/#top", "must not contain a query or fragment"),
    ],
)
def test_a_base_url_that_could_not_work_is_refused(written: str, message: str) -> None:
    (problem,) = conf.problems({"BASE_URL": written})

    assert problem.message == f"BASE_URL {message}."


def test_credentials_in_a_base_url_belong_into_a_key_or_header() -> None:
    (problem,) = conf.problems({"BASE_URL": "http://user:pw@gpu"})

    assert problem.hint == (
        'Remove them, and with an https:// address type "HEADERS": {"Authorization": "…"}, '
        'or "API_KEY": "…" for a key.'
    )


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("http://gpu", ("gpu", 80)),
        ("https://GPU/path", ("gpu", 443)),
        ("https://gpu:443", ("gpu", 443)),
        ("http://[::1]:11434", ("::1", 11434)),
    ],
)
def test_a_server_is_a_host_and_a_port(url: str, server: tuple[str, int]) -> None:
    assert server_of(url) == server


def test_a_proxy_may_have_credentials_in_its_url() -> None:
    proxy = "http://user:pw@proxy.example.com:3128"

    assert proxy == Settings.build({"PROXY": proxy}).PROXY


@pytest.mark.parametrize("proxy", ["proxy:3128", "socks5://proxy", "http://proxy?x"])
def test_a_proxy_is_a_url_too(proxy: str) -> None:
    (problem,) = conf.problems({"PROXY": proxy})

    assert problem.hint == 'Type for example "http://proxy.example.com:3128".'
