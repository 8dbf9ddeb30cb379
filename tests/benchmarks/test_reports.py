"""Results as text."""

from __future__ import annotations

import json

import pytest

from benchmarks import document, readme, terminal, words
from benchmarks.contest import Unit

from . import made

RUN = made.run(made.REACHED, made.MISSED, made.UNJUDGED, made.FOR_INFORMATION, made.ABSOLUTE)


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (1.5, "1.50 s"),
        (0.0123, "12.3 ms"),
        (0.000412, "412 us"),
        (2.5e-6, "2.50 us"),
        (2.5e-8, "0.03 us"),
        (0.9996, "1000 ms"),
        (61.0, "61.0 s"),
    ],
)
def test_times_have_three_digits_and_a_unit(seconds: float, told: str) -> None:
    assert words.figure(seconds, Unit.SECONDS) == told


def test_sizes_are_in_kibibytes_and_may_shrink() -> None:
    assert words.figure(2048, Unit.BYTES) == "2 KiB"
    assert words.figure(-2048, Unit.BYTES) == "-2 KiB"


def test_a_verdict_says_goal_and_figure() -> None:
    assert words.verdict(made.REACHED) == "Goal: ollama_bridge / the peer < 0.8: reached, 0.50."
    assert words.verdict(made.MISSED) == "Goal: ollama_bridge / the peer < 0.8: missed, 1.00."
    assert words.verdict(made.UNJUDGED) == "Goal: ollama_bridge / the peer < 0.8: not judged."
    assert words.verdict(made.ABSOLUTE) == "Goal: ollama_bridge < 4 KiB: reached, 2 KiB."
    assert words.verdict(made.FOR_INFORMATION) == ""


def test_the_text_fits_a_terminal_and_has_a_line_for_everybody() -> None:
    lines = terminal.text(RUN).splitlines()

    assert max(map(len, lines)) <= 80
    assert "sample (3 rounds of 2,000)                 median   ratio (middle half)" in lines
    assert "  ollama_bridge                           2.00 ms   0.50 (0.50 to 0.50)" in lines
    assert "  the peer                                4.00 ms   1" in lines
    assert "  the peer                          not installed" in lines


def test_the_text_says_where_and_with_what_but_not_what_is_not_installed() -> None:
    text = terminal.text(RUN)

    assert "2 CPUs (Some CPU), 8 GiB, Linux; Python 3.11.7." in text
    assert "litellm" not in text


def test_the_table_of_the_readme_has_a_row_for_everybody() -> None:
    lines = readme.markdown(made.run(made.REACHED, made.UNJUDGED)).splitlines()

    assert "| `sample` | ollama_bridge | 2.00 ms | 0.50 (0.50 to 0.50) |" in lines
    assert "|  | the peer | 4.00 ms | 1 |" in lines
    assert "|  | the peer | not installed |  |" in lines


def test_the_block_of_a_readme_is_replaced_and_the_rest_is_left() -> None:
    before = f"# Title\n\n{readme.BEGIN}\nold \\1\n{readme.END}\n\nThe rest.\n"
    after = readme.with_block(before, "new \\1\n")

    assert after == f"# Title\n\n{readme.BEGIN}\nnew \\1\n{readme.END}\n\nThe rest.\n"
    assert readme.with_block(after, "new \\1\n") == after


def test_a_readme_without_the_markers_has_no_block() -> None:
    assert readme.has_block(f"{readme.BEGIN}\n{readme.END}\n")
    assert not readme.has_block(f"{readme.BEGIN}\n")


def test_json_has_every_figure() -> None:
    told = json.loads(document.to_json(made.run(made.REACHED, failures={"chat": "no server"})))

    assert told["machine"] == {
        "cpus": 2,
        "model": "Some CPU",
        "memory_bytes": 8 * 2**30,
        "os": "Linux",
        "load": 0.5,
    }
    assert told["versions"] == {"Python": "3.11.7", "litellm": None}
    assert told["could_not_run"] == {"chat": "no server"}
    sample = told["benchmarks"]["sample"]
    assert sample["contestants"]["ours"] == {
        "name": "ollama_bridge",
        "absent": None,
        "median": 0.002,
        "quartiles": [0.0015, 0.0025],
        "least": 0.001,
        "ratio": {"median": 0.5, "quartiles": [0.5, 0.5], "least": 0.5},
        "figures": [0.001, 0.002, 0.003],
    }
    assert sample["goal"] == {
        "text": "ollama_bridge / the peer < 0.8",
        "limit": 0.8,
        "measured": 0.5,
        "reached": True,
    }


def test_json_says_who_was_absent_and_why() -> None:
    told = json.loads(document.to_json(made.run(made.UNJUDGED)))

    peer = told["benchmarks"]["sample"]["contestants"]["peer"]
    assert (peer["absent"], peer["median"], peer["figures"]) == ("not installed", None, [])
