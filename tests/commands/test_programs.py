"""The commands as programs: in a terminal of 80 columns, through a pipe, and interrupted."""

from __future__ import annotations

import json
import os
import re
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import ollama_bridge
from ollama_bridge.management.commands import ollama_reliability_test
from ollama_bridge.reliability.verdict import Code
from ollama_bridge.testing import FakeOllama, faults, when

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(ollama_bridge.__file__).parents[1]
SECONDS = 60
SOON = 10  # of a program that must start nothing any more, on a busy machine
PARTS = ("health", "sequential", "concurrent")
DRILLS = ("pooling", "retries", "recovery", "cuts", "failover")
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")

posix = pytest.mark.skipif(os.name != "posix", reason="it needs a pseudo terminal and signals")


@pytest.fixture
def start(fake_ollama: FakeOllama) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a command of a site whose server is the fake one."""
    children: list[subprocess.Popen[str]] = []

    def start(*words: str, **options: Any) -> subprocess.Popen[str]:
        environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            "OLLAMA_BASE_URL": fake_ollama.url,
            "OLLAMA_RETRY_MAX_DELAY": "0.02",
            "TERM": "xterm-256color",
            **options.pop("environment", {}),
        }
        child = subprocess.Popen(  # noqa: S603  # our own interpreter and arguments
            [sys.executable, "-W", "error", "manage.py", *words],
            cwd=ROOT,
            env=environment,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options},
        )
        children.append(child)
        return child

    yield start
    for child in children:
        child.kill()
        child.communicate()


@pytest.fixture
def _interrupts_are_heeded() -> Iterator[None]:
    """Undo what a shell does to what it starts in the background: children would ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def on_a_terminal(start: Callable[..., subprocess.Popen[str]], *words: str) -> tuple[int, str]:
    """Run a command on a terminal of 80 columns; return its code and all that it writes there."""
    import fcntl  # noqa: PLC0415  # not on Windows
    import termios  # noqa: PLC0415  # the same

    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    child = start(*words, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    written = bytearray()
    try:
        while data := os.read(ours, 65536):
            written += data
    except OSError:  # on Linux, this is how a terminal says that nobody writes any more
        pass
    finally:
        os.close(ours)
    return child.wait(SECONDS), written.decode().replace("\r\n", "\n")


@posix
def test_a_flaky_server_in_a_terminal(
    start: Callable[..., subprocess.Popen[str]], fake_ollama: FakeOllama
) -> None:
    fake_ollama.misbehave(faults.unavailable(), when=when.odd_attempts())
    code, written = on_a_terminal(start, "ollama_reliability_test", "--requests=5")
    assert code == 0
    assert "concurrent \x1b" in written  # a live bar
    report = written[written.index("Reliability of") :]
    assert "\x1b[32;1mALL TESTS PASSED!\x1b[0m" in report
    assert "sequential: 5 retries needed" in report
    lines = ESCAPE.sub("", report).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[-4:] == [
        "  connection pooling",
        "  retry logic",
        "  circuit breaker pattern",
        "  concurrent request handling",
    ]


@posix
def test_no_color_in_a_terminal(
    start: Callable[..., subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert COLOUR.search(on_a_terminal(start, "ollama_health")[1])
    monkeypatch.setenv("NO_COLOR", "1")
    code, written = on_a_terminal(start, "ollama_health")
    assert code == 0
    assert "status    healthy" in written
    assert not COLOUR.search(written)


def test_an_absent_server_through_a_pipe(
    start: Callable[..., subprocess.Popen[str]], fake_ollama: FakeOllama
) -> None:
    fake_ollama.refuse()
    child = start("ollama_reliability_test", "--format=json")
    out, err = child.communicate(timeout=SECONDS)
    found = json.loads(out)
    assert child.returncode == found["exit_code"] == 3
    assert found["proven"] == ["connection pooling", "retry logic", "circuit breaker pattern"]
    assert "\x1b" not in out + err
    assert err.splitlines()[0] == f"health: asking {fake_ollama.url}"


@posix
@pytest.mark.usefixtures("_interrupts_are_heeded")
def test_an_interrupt_ends_it_soon_with_what_was_measured(
    start: Callable[..., subprocess.Popen[str]], fake_ollama: FakeOllama
) -> None:
    """Two calls are answered, the third never is: nothing but the interrupt ends it in time."""
    fake_ollama.misbehave(faults.BlackHole(), when=lambda request: "call 3:" in request.prompt)
    child = start("ollama_reliability_test", "--format=json", environment={"OLLAMA_TIMEOUT": "600"})
    fake_ollama.wait_for(lambda server: len(server.chats) == 3, SECONDS)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=SECONDS)
    found = json.loads(out)
    assert child.returncode == found["exit_code"] == 130
    sequential = found["sequential"]
    assert (sequential["sent"], sequential["answered"], sequential["unfinished"]) == (3, 2, 1)
    assert found["results"][1]["state"] == "interrupted"
    assert found["recovery"] is None
    assert "Traceback" not in err


@posix
@pytest.mark.usefixtures("_interrupts_are_heeded")
@pytest.mark.parametrize("words", [["--stream"], ["--async"], ["--stream", "--async"]])
def test_an_interrupt_of_callers_at_once_is_soon_and_clean_in_all_forms(
    start: Callable[..., subprocess.Popen[str]], fake_ollama: FakeOllama, words: list[str]
) -> None:
    """Nobody is answered: nothing but the interrupt ends it in time."""
    fake_ollama.misbehave(faults.StallStream(), when=when.prompt("concurrent call"))
    child = start(
        "ollama_reliability_test",
        *("--format=json", "--requests=2", "--concurrency=30", *words),
        environment={"OLLAMA_TIMEOUT": "600", "OLLAMA_CHUNK_TIMEOUT": "600"},
    )
    fake_ollama.wait_for(lambda server: server.in_flight == 30, SECONDS)
    began = time.monotonic()
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=SECONDS)
    assert time.monotonic() - began < SOON
    found = json.loads(out)
    assert child.returncode == found["exit_code"] == 130
    concurrent = found["concurrent"]
    assert (concurrent["sent"], concurrent["answered"], concurrent["unfinished"]) == (30, 0, 30)
    assert found["results"][2]["state"] == "interrupted"
    # Plain lines of progress only: no traceback, no warning, no task that nobody waited for.
    assert [line for line in err.splitlines() if line.split(":")[0] not in PARTS] == []
    fake_ollama.wait_for(lambda server: len(server.disconnects) == 30)


@posix
@pytest.mark.parametrize("words", [["--stream"], ["--async"], ["--stream", "--async"]])
def test_each_form_in_a_terminal(
    start: Callable[..., subprocess.Popen[str]], words: list[str]
) -> None:
    code, written = on_a_terminal(start, "ollama_reliability_test", "--requests=5", *words)
    assert code == 0, written
    assert "concurrent \x1b" in written  # a live bar
    report = ESCAPE.sub("", written[written.index("Reliability of") :])
    assert max(map(len, report.splitlines())) <= 80
    assert "ALL TESTS PASSED!" in report
    assert ("mid-stream error handling" in report) == ("--stream" in words)


FEW = ("--requests=2", "--concurrency=6")
FAILOVER = ("ollama_reliability_test", *FEW, "--failover")


@pytest.mark.parametrize(
    ("chaos", "words"),
    [
        ("flaky", ["--stream", "--async"]),
        ("slow", []),
        ("dying", ["--stream"]),
        ("rate-limited", ["--async"]),
    ],
)
@pytest.mark.soak
def test_failover_is_proven_in_each_kind_of_chaos(
    start: Callable[..., subprocess.Popen[str]], chaos: str, words: list[str]
) -> None:
    words = ["--chaos", chaos, "--duration=2", "--format=json", *words]
    child = start(*FAILOVER, *words)
    out, err = child.communicate(timeout=SECONDS)
    found = json.loads(out)
    assert child.returncode == found["exit_code"] == 0, out
    assert found["proven"][-1] == "endpoint failover"
    drill = found["failover"]
    assert (drill["acts"], drill["success_rate"]) == ([chaos], 100.0)
    assert drill["hops"] > 0
    # Plain lines of progress only: no traceback, no warning, no line of a log.
    assert {line.split(":")[0] for line in err.splitlines()} <= {*PARTS, *DRILLS}


@posix
@pytest.mark.soak
def test_failover_in_mixed_chaos_in_a_terminal(
    start: Callable[..., subprocess.Popen[str]],
) -> None:
    began = time.monotonic()
    code, written = on_a_terminal(start, *FAILOVER, "--seed=7")
    assert code == 0, written
    assert time.monotonic() - began < 30  # less than 20 of it for this drill
    assert "failover   \x1b" in written  # a live bar
    report = ESCAPE.sub("", written[written.index("Reliability of") :]).splitlines()
    assert max(map(len, report)) <= 80
    assert report[-6] == "ALL TESTS PASSED!"
    assert report[-1] == "  endpoint failover: flaky, slow, dying and rate-limited endpoints"
    assert "failover: the same chaos again with --chaos mixed --seed 7" in report


@pytest.mark.soak
def test_failover_that_is_not_proven_is_a_failure(
    start: Callable[..., subprocess.Popen[str]],
) -> None:
    """One failure opens a circuit, so soon all endpoints are held back together."""
    words = ("--chaos=flaky", "--duration=2", "--format=json")
    child = start(*FAILOVER, *words, environment={"OLLAMA_FAILURE_THRESHOLD": "1"})
    found = json.loads(child.communicate(timeout=SECONDS)[0])
    assert child.returncode == found["exit_code"] == 1
    assert "endpoint failover" not in found["proven"]
    assert found["failover"]["failures"][0]["code"] == "circuit_open"


@posix
@pytest.mark.usefixtures("_interrupts_are_heeded")
@pytest.mark.parametrize("words", [[], ["--stream", "--async"]])
@pytest.mark.soak
def test_an_interrupt_of_a_failover_is_soon_and_clean(
    start: Callable[..., subprocess.Popen[str]], words: list[str]
) -> None:
    child = start(*FAILOVER, "--format=json", *words)
    assert child.stderr is not None
    for line in child.stderr:  # two seconds of its twelve have passed where it says how far it is
        if re.match(r"failover: \d+ %", line):
            break
    began = time.monotonic()
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=SECONDS)
    assert time.monotonic() - began < SOON
    found = json.loads(out)
    assert child.returncode == found["exit_code"] == 130
    assert found["results"][-1]["state"] == "interrupted"
    assert len(found["failover"]["acts"]) < 4
    assert not [line for line in err.splitlines() if not line.startswith("failover:")]


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["ollama_reliability_test", "--concurrency=1"], 2, "--concurrency must be from 2"),
        (["ollama_reliability_test", "--chaos=slow"], 2, "Type: --failover --chaos slow"),
        ([*FAILOVER, "--chaos=wild"], 2, "argument --chaos: invalid choice: 'wild'"),
        (["ollama_health", "--always"], 2, "unrecognized arguments: --always"),
    ],
)
def test_wrong_arguments(
    start: Callable[..., subprocess.Popen[str]], words: list[str], code: int, told: str
) -> None:
    child = start(*words)
    out, err = child.communicate(timeout=SECONDS)
    assert (child.returncode, out) == (code, "")
    assert told in err


@pytest.mark.parametrize("format_", ["table", "json"])
def test_a_reader_that_is_gone_is_no_crash(
    start: Callable[..., subprocess.Popen[str]], format_: str
) -> None:
    child = start("ollama_health", "--format", format_)
    assert child.stdout is not None
    child.stdout.close()
    assert child.stderr is not None
    told = child.stderr.read()
    assert child.wait(SECONDS) == 141
    assert "Traceback" not in told


@pytest.mark.parametrize("command", ["ollama_reliability_test", "ollama_health"])
def test_the_help_tells_the_exit_codes(
    start: Callable[..., subprocess.Popen[str]], command: str
) -> None:
    out, _ = start(command, "--help", environment={"COLUMNS": "80"}).communicate(timeout=SECONDS)
    assert "exit codes:\n  0 " in out
    assert "json: " in out
    assert max(map(len, out.splitlines())) <= 80


def test_the_readme_names_options_that_exist() -> None:
    told = (ROOT / "README.md").read_text(encoding="utf-8")
    section = told.split("\n## Commands\n")[1].split("\n## ")[0]
    parser = ollama_reliability_test.Command().create_parser("manage.py", "ollama_reliability_test")
    options = {name for action in parser._actions for name in action.option_strings}
    named = set(re.findall(r"--[a-z][a-z-]+", section))
    assert {"--requests", "--concurrency", "--duration", "--min-success", "--format"} <= named
    assert {"--stream", "--async", "--failover", "--chaos", "--seed"} <= named
    assert named <= options
    codes = [row.split("|")[1].strip() for row in section.splitlines() if re.match(r"\| \d", row)]
    assert [int(code) for code in codes] == sorted(Code)
