"""Numbers and lines as people read them."""

from __future__ import annotations

import pytest

from ollama_bridge.reliability.wording import (
    columns,
    counted,
    facts,
    labelled,
    rate,
    seconds,
    share,
    wrapped,
)

LONG = "Cannot connect to Ollama at http://ollama.example.com:11434. Start it with: ollama serve"


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (None, "-"),
        (0.0, "0.000"),
        (0.0042, "0.004"),
        (9.9994, "9.999"),
        (9.9996, "10.00"),
        (99.996, "100.0"),
        (999.96, "1000"),
        (3600.0, "3600"),
    ],
)
def test_times_are_short(number: float | None, text: str) -> None:
    assert seconds(number) == text


@pytest.mark.parametrize(
    ("number", "text"), [(None, "-"), (1.894, "1.89"), (36.7, "36.7"), (804.4, "804")]
)
def test_rates_are_short(number: float | None, text: str) -> None:
    assert rate(number) == text


@pytest.mark.parametrize(
    ("percent", "text"),
    [(None, "-"), (0.0, "0 %"), (50.0, "50 %"), (99.99, "99.9 %"), (100.0, "100 %")],
)
def test_only_the_whole_is_100_percent(percent: float | None, text: str) -> None:
    assert share(percent) == text


def test_what_fits_is_not_broken() -> None:
    assert wrapped("One. Two.", first="  ") == ["  One. Two."]


def test_a_command_to_type_stays_whole() -> None:
    assert wrapped(LONG, first="   ") == [
        "   Cannot connect to Ollama at http://ollama.example.com:11434.",
        "   Start it with: ollama serve",
    ]


def test_an_address_stays_whole_however_long() -> None:
    address = "http://" + "a-b" * 40
    assert address in wrapped(f"Cannot connect to {address}", first="  ")[-1]


def test_the_first_line_may_begin_otherwise() -> None:
    assert wrapped(LONG, first="error  ")[1] == "       Start it with: ollama serve"


def test_columns_are_aligned() -> None:
    assert columns([("", "sent"), ("sequential", "7")]) == [
        "            sent",
        "sequential     7",
    ]


def test_labels_are_painted_and_the_rest_is_aligned_all_the_same() -> None:
    rows = [("health", "ok", "good", ["All is well"]), ("sequential", "FAILED", "bad", ["a", "b"])]
    plain = labelled(rows, lambda _, text: text)  # type: ignore[arg-type]  # tones are plain words
    assert plain == [
        "health      ok      All is well",
        "sequential  FAILED  a",
        "                    b",
    ]
    painted = labelled(rows, lambda tone, text: f"<{tone}>{text}</>")  # type: ignore[arg-type]
    assert painted[1] == "sequential  <bad>FAILED</>  a"
    assert [
        line.replace("<good>", "").replace("<bad>", "").replace("</>", "") for line in painted
    ] == plain


def test_facts_are_folded_beside_their_names() -> None:
    told = facts([("url", "http://127.0.0.1", None), ("error", LONG, "bad")], lambda _, text: text)
    assert told == [
        "url    http://127.0.0.1",
        "error  Cannot connect to Ollama at http://ollama.example.com:11434.",
        "       Start it with: ollama serve",
    ]


def test_one_is_not_many() -> None:
    assert [counted(1, "call"), counted(2, "call"), counted(2, "retry", "retries")] == [
        "1 call",
        "2 calls",
        "2 retries",
    ]
