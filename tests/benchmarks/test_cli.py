"""The command, on benchmarks that cost nothing; and once on the real ones, with hardly a call."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks import cli, peers, project, readme
from benchmarks.cases import ALL
from benchmarks.children import ROOT
from benchmarks.contest import CannotRunError
from benchmarks.figures import Goal

from . import made

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

SLOW = ("threads", "crowd", "streams_memory", "streams_files", "startup")
"""Those that take long with hardly a call too; other tests play them with less of everything."""

GOAL_MISSED = Goal(of="ours", limit=0.1, is_ratio=True)


def failing(error: BaseException) -> Any:
    """Return what gathers nobody."""

    def gather(_: int) -> Any:
        raise error

    return gather


@contextmanager
def alone(_: int) -> Iterator[list[Any]]:
    yield [made.OURS, made.ABSENT]


SAMPLES = {
    "good": made.benchmark(name="good"),
    "slow": made.benchmark(name="slow", goal=GOAL_MISSED),
    "broken": made.benchmark(
        name="broken", gather=failing(CannotRunError("the server did not start"))
    ),
    "alone": made.benchmark(name="alone", gather=alone),
    "stopped": made.benchmark(name="stopped", gather=failing(KeyboardInterrupt())),
}


@pytest.fixture
def _samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command knows the samples only, and leaves this process as it is."""
    monkeypatch.setattr(cli, "ALL", SAMPLES)
    monkeypatch.setattr(project, "set_up", lambda: None)


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """A README with an empty block."""
    path = tmp_path / "README.md"
    path.write_text(f"# Title\n{readme.BEGIN}\n{readme.END}\nThe rest.\n", encoding="utf-8")
    return path


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return what the command says to arguments that it refuses."""
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    return capsys.readouterr().err


@pytest.mark.usefixtures("_samples")
@pytest.mark.parametrize(
    ("names", "code"),
    [
        (["good"], 0),
        (["good", "slow"], 1),
        (["good", "broken"], 3),
        (["alone"], 3),
        (["good", "stopped"], 130),
    ],
)
def test_the_exit_code_says_how_it_went(names: list[str], code: int) -> None:
    assert cli.main([*names, "--rounds", "1"]) == code


@pytest.mark.usefixtures("_samples")
def test_one_that_cannot_run_keeps_no_other_from_running(
    capsys: pytest.CaptureFixture[str],
) -> None:
    cli.main(["broken", "good"])
    printed = capsys.readouterr()

    assert "broken could not run: the server did not start" in printed.err
    assert "good (3 rounds of 2,000)" in printed.out


@pytest.mark.usefixtures("_samples")
def test_missing_peers_are_named_with_the_command_that_installs_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(peers, "is_here", lambda name: name == "ollama")

    cli.main(["alone"])
    told = capsys.readouterr().err

    assert "Not installed: aiohttp, uvicorn, pybreaker, purgatory." in told
    assert "python -m pip install --group benchmarks" in told


@pytest.mark.usefixtures("_samples")
def test_progress_goes_to_stderr_and_results_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["good", "--rounds", "2"])
    printed = capsys.readouterr()

    assert "good: 2 rounds …" in printed.err
    assert "…" not in printed.out


@pytest.mark.usefixtures("_samples")
def test_json_goes_to_a_file_beside_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "figures.json"

    cli.main(["good", "--json", str(path)])

    assert list(json.loads(path.read_text(encoding="utf-8"))["benchmarks"]) == ["good"]
    assert "ollama_bridge" in capsys.readouterr().out


@pytest.mark.usefixtures("_samples")
def test_a_report_that_cannot_be_written_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["good", "--json", str(tmp_path)]) == 3
    assert "Cannot write the report" in capsys.readouterr().err


@pytest.mark.usefixtures("_samples")
def test_markdown_is_what_the_readme_gets(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["good", "--markdown"])

    assert "| `good` | ollama_bridge | 1.00 ms | 0.50 (0.50 to 0.50) |" in capsys.readouterr().out


@pytest.mark.usefixtures("_samples")
def test_the_readme_gets_the_table_between_its_markers(
    monkeypatch: pytest.MonkeyPatch, page: Path
) -> None:
    monkeypatch.setattr(cli, "ALL", {"good": SAMPLES["good"]})

    assert cli.main(["--readme", str(page)]) == 0

    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"# Title\n{readme.BEGIN}\nMeasured on ")
    assert "| `good` | ollama_bridge |" in text
    assert text.endswith(f"{readme.END}\nThe rest.\n")


@pytest.mark.usefixtures("_samples")
def test_the_readme_is_left_alone_where_not_all_could_be_measured(
    monkeypatch: pytest.MonkeyPatch, page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "ALL", {"alone": SAMPLES["alone"]})
    before = page.read_text(encoding="utf-8")

    assert cli.main(["--readme", str(page)]) == 3

    assert page.read_text(encoding="utf-8") == before
    assert "is left as it is" in capsys.readouterr().err


def test_an_unknown_name_is_refused_with_the_nearest_and_all(
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = refused(capsys, "caht")

    assert "there is no benchmark 'caht'. Did you mean chat?" in told
    assert all(name in told for name in ALL)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--rounds", "0"], "'0' is no number from 1 up"),
        (["--rounds", "many"], "'many' is no number from 1 up"),
        (["--calls", "-1"], "--calls"),
        (["--json", "-", "--markdown"], "both want stdout"),
        (["--json", "no/such/folder.json"], "there is no folder"),
        (["--readme", "Makefile"], "has no lines"),
        (["--readme", "nowhere.md"], "has no lines"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_measured(
    arguments: list[str],
    told: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)

    assert told in refused(capsys, *arguments)


def test_the_readme_takes_nothing_but_the_whole(
    page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "leave out names" in refused(capsys, "chat", "--readme", str(page))


def test_the_list_says_what_each_measures(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()

    assert [line.split()[0] for line in lines if not line.startswith(" ")] == list(ALL)
    assert max(map(len, lines)) <= 80


def test_the_help_says_what_the_exit_codes_mean(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--help"])

    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert all(f"\n  {code}  " in told for code in (0, 1, 2, 3, 130))


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(["chat", "astream_burst", "refusal"], id="some"),
        pytest.param([name for name in ALL if name not in SLOW], id="all", marks=pytest.mark.soak),
    ],
)
def test_the_real_benchmarks_run_and_their_json_has_the_same_keys_for_all(
    names: Sequence[str],
) -> None:
    """With hardly a call, so no figure of it means anything."""
    command = [sys.executable, "-m", "benchmarks", *names, "--rounds", "1", "--calls", "3"]
    done = subprocess.run(  # noqa: S603  # our own code
        [*command, "--json", "-"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    told = json.loads(done.stdout)

    assert done.returncode in ({0, 1} if peers.is_here("ollama") else {3}), done.stderr
    assert "Warning" not in done.stderr
    assert told["could_not_run"] == {}
    assert set(told) == {"date", "machine", "versions", "benchmarks", "could_not_run"}
    assert list(told["benchmarks"]) == [*names]
    for benchmark in told["benchmarks"].values():
        assert benchmark["contestants"]["ours"]["median"] is not None
        assert benchmark["goal"]["limit"] > 0
        for contestant in benchmark["contestants"].values():
            assert bool(contestant["absent"]) != bool(contestant["figures"])
