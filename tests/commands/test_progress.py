"""Progress on stderr: live, plain or none."""

from __future__ import annotations

import sys
from io import StringIO

import pytest

from ollama_bridge.logs import circuits
from ollama_bridge.management import progress
from ollama_bridge.management.progress import LiveBars, PlainLines, Silence, progress_on

from .conftest import Terminal


@pytest.fixture
def _a_good_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.usefixtures("_a_good_terminal")
class TestItIs:
    def test_live_on_a_terminal(self) -> None:
        assert isinstance(progress_on(Terminal(), verbosity=1, colours=True), LiveBars)

    def test_plain_through_a_pipe(self) -> None:
        assert isinstance(progress_on(StringIO(), verbosity=1, colours=True), PlainLines)

    def test_plain_without_rich(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "rich.console", None)
        assert isinstance(progress_on(Terminal(), verbosity=1, colours=True), PlainLines)

    def test_plain_on_a_terminal_that_can_do_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TERM", "dumb")
        assert isinstance(progress_on(Terminal(), verbosity=1, colours=True), PlainLines)

    def test_plain_among_log_lines(self) -> None:
        assert isinstance(progress_on(Terminal(), verbosity=2, colours=True), PlainLines)

    def test_silent_where_that_is_wished(self) -> None:
        said = Terminal()
        shown = progress_on(said, verbosity=0, colours=True)
        shown.begin("health", "asking", 1)
        shown.update(1, "done")
        shown.end()
        assert isinstance(shown, Silence)
        assert said.getvalue() == ""


class TestPlainLines:
    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        now = [100.0]
        monkeypatch.setattr(progress, "monotonic", lambda: now[0])
        return now

    def test_come_where_a_part_begins_and_every_two_seconds(self, clock: list[float]) -> None:
        said = StringIO()
        lines = PlainLines(said)
        lines.begin("sequential", "10 calls, one after the other", 10)
        for number in range(1, 9):
            clock[0] += 0.5
            lines.update(number, f"{number} answered")
        lines.end()
        assert said.getvalue().splitlines() == [
            "sequential: 10 calls, one after the other",
            "sequential: 40 %, 4 answered",
            "sequential: 80 %, 8 answered",
        ]

    def test_without_news_come_every_ten_seconds(self, clock: list[float]) -> None:
        said = StringIO()
        lines = PlainLines(said)
        lines.begin("recovery", "a server dies", 5)
        for _ in range(25):
            clock[0] += 1.0
            lines.update(3)
        assert said.getvalue().splitlines() == [
            "recovery: a server dies",
            *["recovery: 60 %"] * 3,
        ]

    def test_never_say_more_than_100_percent(self, clock: list[float]) -> None:
        said = StringIO()
        lines = PlainLines(said)
        lines.begin("concurrent", "for 5 s", 5)
        clock[0] += 6.0
        lines.update(6.0)
        assert said.getvalue().endswith("concurrent: 100 %\n")


@pytest.mark.usefixtures("_a_good_terminal")
class TestLiveBars:
    def test_show_the_part_and_leave_nothing_behind(self) -> None:
        said = Terminal()
        shown = progress_on(said, verbosity=1, colours=True)
        shown.begin("sequential", "10 calls", 10)
        shown.update(3, "3 answered")
        shown.end()
        text = said.getvalue()
        assert "sequential" in text
        assert "30%" in text
        assert "3 answered" in text
        assert text.endswith("\x1b[1A\x1b[2K")  # one line up, and away with it

    def test_have_no_colours_where_they_are_not_wished(self) -> None:
        said = Terminal()
        shown = progress_on(said, verbosity=1, colours=False)
        shown.begin("sequential", "10 calls", 10)
        shown.end()
        assert "\x1b[3" not in said.getvalue()

    def test_make_room_for_a_line_of_the_log(self) -> None:
        said = Terminal()
        shown = progress_on(said, verbosity=1, colours=True)
        shown.begin("sequential", "10 calls", 10)
        assert not said.getvalue().endswith("\x1b[2K")
        circuits.error("Circuit breaker: Opening circuit after 5 failures")
        assert said.getvalue().endswith("\x1b[2K")
        shown.update(4, "4 answered")
        shown.end()
        assert "4 answered" in said.getvalue()
        assert not circuits.filters

    def test_end_twice_without_harm(self) -> None:
        shown = progress_on(Terminal(), verbosity=1, colours=True)
        shown.begin("health", "asking", 1)
        shown.end()
        shown.end()
        shown.update(1)
        assert not circuits.filters
