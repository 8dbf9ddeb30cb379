"""Which way calls took, as their attempts tell it."""

from __future__ import annotations

import pytest

from ollama_bridge.core.types import Attempt
from ollama_bridge.reliability.ways import Ways

REFUSED = ("circuit_open", "overloaded", "quota_exhausted", "rate_limited")


def attempt(told: str) -> Attempt:
    """Return an attempt at "endpoint", "endpoint:code" or "endpoint:code:status"."""
    endpoint, code, status, *_ = f"{told}::".split(":")
    number = int(status) if status else None
    return Attempt(endpoint=endpoint, model="m", code=code, status=number, seconds=0.1)


@pytest.mark.parametrize(
    ("told", "ways"),
    [
        ("a", Ways()),
        ("a:timeout a", Ways(retries=1)),
        ("a:upstream_failed:503 b", Ways(hops=1)),
        ("a:timeout b:connection_failed a", Ways(retries=1, hops=2)),
        ("a:rate_limited:429 b", Ways(hops=1)),
        ("a:overloaded:503 a b", Ways(retries=1, hops=1)),
        *[(f"a:{code} b", Ways(passed_by=1)) for code in REFUSED],
        ("a:circuit_open b:timeout c", Ways(hops=1, passed_by=1)),
        ("b:timeout a:circuit_open c", Ways(hops=1, passed_by=1)),
        ("a:circuit_open b:quota_exhausted", Ways()),
        ("", Ways()),
    ],
)
def test_the_way_of_a_call(told: str, ways: Ways) -> None:
    found = Ways()
    found.add([attempt(each) for each in told.split()])
    assert found == ways


def test_the_ways_of_several_calls_are_summed_up() -> None:
    found = Ways()
    for told in ("a:timeout b", "a:timeout b", "a:circuit_open b", "a:timeout a"):
        found.add([attempt(each) for each in told.split()])
    assert found == Ways(retries=1, hops=2, passed_by=1)


def test_another_model_at_the_same_endpoint_is_neither_a_repeat_nor_a_hop() -> None:
    found = Ways()
    other = Attempt(endpoint="a", model="n", code="", status=200, seconds=0.1)
    found.add([attempt("a:timeout"), other])
    assert found == Ways()
