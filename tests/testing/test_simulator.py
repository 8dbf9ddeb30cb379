"""The simulator as a program: the command, the module, the child process."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from ollama_bridge.testing import FakeOllama, cli
from ollama_bridge.testing.process import spawn
from tests.testing.plainhttp import SECONDS, Answer, ask

COMMAND = [sys.executable, "-m", "django", "ollama_simulator", "--settings=tests.settings"]
MODULE = [sys.executable, "-m", "ollama_bridge.testing"]
HI = b'{"model":"llama3.2","stream":false,"messages":[{"role":"user","content":"canary"}]}'


@contextmanager
def program(*words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    with subprocess.Popen(  # noqa: S603  # our own code
        [*words, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        try:
            yield child, child.stdout.readline().strip()
        finally:
            child.kill()


def post(url: str) -> Answer:
    with closing(HTTPConnection(url.removeprefix("http://"), timeout=SECONDS)) as connection:
        return ask(connection, "POST", "/api/chat", HI)


@pytest.mark.parametrize("words", [COMMAND, MODULE], ids=["command", "module"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_a_signal_and_ends_well(words: list[str], number: int) -> None:
    with program(*words, "--tokens-per-second=0", "--model=a", "--model=llama3.2") as (child, url):
        assert post(url).json["done"] is True
        child.send_signal(number)
        out, err = child.communicate(timeout=5)
    assert (child.returncode, out) == (0, "")
    assert err == "#1 POST /api/chat llama3.2\n"


def test_quiet_says_nothing() -> None:
    with program(*MODULE, "--quiet", "--tokens-per-second=0") as (child, url):
        post(url)
        child.terminate()
        assert child.communicate(timeout=5) == ("", "")


@pytest.mark.parametrize("words", [COMMAND, MODULE], ids=["command", "module"])
def test_a_taken_port_is_explained(words: list[str], fake_ollama: FakeOllama) -> None:
    ended = subprocess.run(  # noqa: S603  # our own code
        [*words, f"--port={fake_ollama.port}"], capture_output=True, text=True, check=False
    )
    port = fake_ollama.port
    assert ended.returncode == 2
    assert (
        f"port {port} is in use (is Ollama itself running?). Choose another: --port {port + 1}"
        in ended.stderr
    )


def test_an_address_that_is_not_ours_is_explained() -> None:
    with pytest.raises(CommandError, match=r"cannot listen on 192\.0\.2\.1:0: "):
        call_command("ollama_simulator", "--host=192.0.2.1", "--port=0")


def test_an_unknown_fault_gets_the_list_of_names() -> None:
    with pytest.raises(
        CommandError, match=r"no fault is named 'x'; there are: bad-gateway, .*stall"
    ):
        call_command("ollama_simulator", "--fault=x")


@pytest.mark.parametrize("word", ["--every=0", "--every=x", "--port=70000", "--port=-1"])
def test_impossible_numbers_are_refused(word: str) -> None:
    with pytest.raises(CommandError, match=r"at least 1|from 0 to 65535|invalid .* value"):
        call_command("ollama_simulator", word)


def test_faults_that_need_nothing_have_names_for_the_command_line() -> None:
    names = cli.simple_faults().keys()
    assert {"black-hole", "busy", "error-in-ok", "truncated-json", "usage-limit"} <= names
    assert not {"exchange", "fault", "redirect", "status"} & names


def test_every_nth_chat_meets_the_fault_and_the_log_says_so() -> None:
    log = StringIO()
    words = ["--fault=busy", "--every=2", "--port=0", "--tokens-per-second=0", "--answer=ok"]
    with cli.build(vars(cli.parser().parse_args(words)), log) as server:
        assert [post(server.url).status for _ in range(3)] == [200, 503, 200]
    assert log.getvalue().splitlines() == [
        "#1 POST /api/chat llama3.2",
        "#2 POST /api/chat llama3.2 -> busy",
        "#3 POST /api/chat llama3.2",
    ]


def test_a_spawned_server_is_another_process_and_ends_with_its_block() -> None:
    with spawn(models=["llama3.2", "b"], answer="hi", fault="reset", every=2) as server:
        assert server.pid != os.getpid()
        assert post(server.url).text == "hi"
        with pytest.raises(ConnectionResetError):
            post(server.url)
    with pytest.raises(ProcessLookupError):
        os.kill(server.pid, 0)


def test_a_spawned_server_that_does_not_start_is_an_error(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(RuntimeError, match="did not start"), spawn(fault="no-such-fault"):
        pass
    assert "no fault is named" in capfd.readouterr().err
