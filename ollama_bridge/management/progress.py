"""Progress on stderr: live with rich on a terminal, else a plain line now and then."""

from __future__ import annotations

import os
from time import monotonic
from typing import TYPE_CHECKING, TextIO

from ..logs import circuits

if TYPE_CHECKING:
    from logging import LogRecord

    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from ..reliability.evidence import Part
    from ..reliability.trial import Progress

_WITH_NEWS, _WITHOUT_NEWS = 2.0, 10.0


class Silence:
    """Shows nothing."""

    def begin(self, part: Part, what: str, total: float) -> None:
        """Keep quiet."""

    def update(self, done: float, note: str = "") -> None:
        """Keep quiet."""

    def end(self) -> None:
        """Keep quiet."""


class PlainLines:
    """A line where a part begins; while it lasts one every two seconds, or ten without news."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._part = ""
        self._total = 0.0
        self._said = ("", 0.0)

    def begin(self, part: Part, what: str, total: float) -> None:
        self._part, self._total = part, total
        self._say(what)

    def update(self, done: float, note: str = "") -> None:
        percent = min(100.0, 100 * done / self._total)
        text = ", ".join(filter(None, (f"{percent:.0f} %", note)))
        last, moment = self._said
        if monotonic() - moment >= (_WITHOUT_NEWS if text == last else _WITH_NEWS):
            self._say(text)

    def end(self) -> None:
        """The next part, or the report, says so."""

    def _say(self, text: str) -> None:
        self._said = (text, monotonic())
        self._stream.write(f"{self._part}: {text}\n")
        self._stream.flush()


class LiveBars:
    """A bar for the part under way; it is gone when the part is over."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._task: TaskID | None = None

    def begin(self, part: Part, what: str, total: float) -> None:
        self._task = self._bars.add_task(part, total=total, note=what)
        self._bars.start()
        circuits.addFilter(self._make_room)

    def update(self, done: float, note: str = "") -> None:
        if self._task is not None:
            self._bars.start()
            self._bars.update(self._task, completed=done)
            if note:
                self._bars.update(self._task, note=note)

    def end(self) -> None:
        if self._task is not None:
            circuits.removeFilter(self._make_room)
            self._bars.stop()
            self._bars.remove_task(self._task)
            self._task = None

    def _make_room(self, _: LogRecord) -> bool:
        """Take the bar away, until the next update, for a line that may go to this terminal."""
        self._bars.stop()
        return True


def progress_on(stream: TextIO, *, verbosity: int, colours: bool) -> Progress:
    """Return what shows progress on a stream: nothing at verbosity 0."""
    if not verbosity:
        return Silence()
    # Log lines, which verbosity 2 lets through, would tear a bar apart.
    if verbosity == 1 and stream.isatty() and os.environ.get("TERM") != "dumb":
        bars = _bars(stream, colours=colours)
        if bars is not None:
            return LiveBars(bars)
    return PlainLines(stream)


def _bars(stream: TextIO, *, colours: bool) -> Bars | None:
    try:
        # An extra, and half of what this command would load.
        from rich.console import Console  # noqa: PLC0415
        from rich.progress import (  # noqa: PLC0415
            BarColumn,
            Progress,
            TaskProgressColumn,
            TextColumn,
            TimeElapsedColumn,
        )
    except ImportError:
        return None
    return Progress(
        TextColumn("{task.description:<10}"),
        BarColumn(bar_width=20),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=Console(file=stream, no_color=not colours),
        transient=True,
        redirect_stdout=False,
    )
