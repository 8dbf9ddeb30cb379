"""The command: its arguments, the runs, the reports, the exit code."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, ArgumentTypeError, RawDescriptionHelpFormatter
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Final, TextIO

from . import document, machine, peers, project, readme, terminal, words
from .cases import ALL
from .contest import CannotRunError
from .results import Run, result_of
from .rounds import play

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

    from .contest import Benchmark
    from .results import Result

_STDOUT: Final = "-"
_COLUMN: Final = 16
_DESCRIPTION: Final = """\
Measure what the bridge costs, beside others who do the same.

In each round every contestant has one turn; another one begins each time, and
the first round is thrown away. A figure is the median of all rounds, a ratio
the median of the ratios round by round."""
_EPILOG: Final = f"""\
exit codes:
  0  everything was measured, and every goal reached
  1  a goal was missed
  2  an argument is wrong
  3  a benchmark could not run, or a goal not be judged (a peer is missing?)
  130  interrupted

The peers are a dependency group:  {peers.REMEDY}
LiteLLM takes part where it is installed."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Says on stderr how far it is: on a terminal round by round, else a line a benchmark."""

    stream: TextIO

    def begin(self, name: str, rounds: int) -> None:
        if not self.stream.isatty():
            self._write(f"{name}: {words.rounds(rounds)} …\n")

    def round(self, name: str, number: int, rounds: int) -> None:
        if self.stream.isatty():
            told = f"round {number} of {rounds}" if number else "warming up"
            self._write(f"\r\033[K{name}: {told} …")

    def end(self) -> None:
        if self.stream.isatty():
            self._write("\r\033[K")

    def _write(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = _parsed(arguments)
    if options.list:
        sys.stdout.write(_listed())
        return 0
    try:
        run = _run(options)
        _warn(run)
        _write(run, options)
    except KeyboardInterrupt:
        sys.stderr.write("\nInterrupted.\n")
        return 130
    except OSError as error:
        sys.stderr.write(f"Cannot write the report: {error}\n")
        return 3
    if not run.is_complete:
        return 3
    return 1 if run.has_missed else 0


def _parsed(arguments: Sequence[str] | None) -> Namespace:
    """Return the arguments; a wrong one ends the program with exit code 2."""
    parser = ArgumentParser(
        prog="python -m benchmarks",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", type=_name, help=f"of {', '.join(ALL)} (default: all)")
    add("--rounds", type=_positive, metavar="N", help="rounds (default: what each one needs)")
    add("--calls", type=_positive, metavar="N", help="calls in a turn, for a quick look")
    add("--json", metavar="FILE", help="write all figures there; - for stdout, without the table")
    add("--markdown", action="store_true", help="print the table as it is in the README")
    add("--readme", type=_readme, metavar="FILE", help="put that table between FILE's markers")
    add("--list", action="store_true", help="say what there is, and end")
    options = parser.parse_args(arguments)
    if options.json == _STDOUT and options.markdown:
        parser.error("--json - and --markdown both want stdout: give --json a file")
    if options.json not in {None, _STDOUT} and not Path(options.json).parent.is_dir():
        parser.error(f"--json: there is no folder {Path(options.json).parent}")
    if options.readme and (options.names or options.calls):
        parser.error("--readme takes all benchmarks as they are: leave out names and --calls")
    return options


def _name(word: str) -> str:
    if word in ALL:
        return word
    near = get_close_matches(word, ALL, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    told = f"there is no benchmark {word!r}.{hint} There are: {', '.join(ALL)}"
    raise ArgumentTypeError(told)


def _positive(word: str) -> int:
    if not word.isdecimal() or int(word) < 1:
        raise ArgumentTypeError(f"{word!r} is no number from 1 up")
    return int(word)


def _readme(word: str) -> Path:
    path = Path(word)
    if not path.is_file() or not readme.has_block(path.read_text(encoding="utf-8")):
        markers = f"{readme.BEGIN} and {readme.END}"
        raise ArgumentTypeError(f"{word} has no lines {markers} to write between")
    return path


def _listed() -> str:
    return "".join(f"{_summary(each)}\n" for each in ALL.values())


def _summary(benchmark: Benchmark) -> str:
    what = benchmark.what.format(calls=f"{benchmark.calls:,}")
    indent = " " * _COLUMN
    return fill(
        what,
        terminal.WIDTH,
        initial_indent=f"{benchmark.name:<{_COLUMN}}",
        subsequent_indent=indent,
    )


def _run(options: Namespace) -> Run:
    project.set_up()
    progress = Progress(sys.stderr)
    found: list[Result] = []
    failures: dict[str, str] = {}
    where = machine.this_machine()
    for name in options.names or ALL:
        try:
            found.append(_measured(ALL[name], options, progress))
        except CannotRunError as error:
            failures[name] = str(error)
        finally:
            progress.end()
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Run(
        date=now, machine=where, versions=machine.versions(), results=found, failures=failures
    )


def _measured(benchmark: Benchmark, options: Namespace, progress: Progress) -> Result:
    rounds = options.rounds or benchmark.rounds
    calls = options.calls or benchmark.calls
    progress.begin(benchmark.name, rounds)
    with benchmark.gather(calls) as contestants:
        figures = play(
            contestants,
            rounds=rounds,
            warm_up=benchmark.warm_up,
            tell=lambda number: progress.round(benchmark.name, number, rounds),
        )
    return result_of(benchmark, contestants, figures, calls=calls)


def _warn(run: Run) -> None:
    for name, reason in run.failures.items():
        sys.stderr.write(f"{name} could not run: {reason}\n")
    if missing := peers.missing():
        names = ", ".join(missing)
        sys.stderr.write(f"Not installed: {names}. Install the peers: {peers.REMEDY}\n")


def _write(run: Run, options: Namespace) -> None:
    if options.json == _STDOUT:
        sys.stdout.write(document.to_json(run))
    else:
        sys.stdout.write(readme.markdown(run) if options.markdown else terminal.text(run))
    if options.json not in {None, _STDOUT}:
        Path(options.json).write_text(document.to_json(run), encoding="utf-8")
    if options.readme is not None:
        _write_readme(run, options.readme)


def _write_readme(run: Run, path: Path) -> None:
    if not run.is_complete:
        sys.stderr.write(f"{path} is left as it is, because not everything could be measured.\n")
        return
    whole = readme.with_block(path.read_text(encoding="utf-8"), readme.markdown(run))
    path.write_text(whole, encoding="utf-8")
