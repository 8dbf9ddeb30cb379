"""Evidence and verdict for people: what passed, the figures, what failed and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .wording import columns, counted, labelled, rate, seconds, share, wrapped

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .evidence import CallPart, Evidence, Failover
    from .tally import Figures, Times
    from .verdict import State, Verdict
    from .wording import Paint, Tone

_LABELS: dict[State, tuple[str, Tone]] = {
    "passed": ("ok", "good"),
    "failed": ("FAILED", "bad"),
    "not run": ("not run", "odd"),
    "interrupted": ("interrupted", "odd"),
}
_HEAD = ("times in s", "sent", "answered", "success", "avg", "min", "max", "p95", "total", "per s")
_HEAD_OF_FIRST_TOKENS = ("first token in s", "avg", "min", "max", "p95")


def lines(evidence: Evidence, verdict: Verdict, title: str, paint: Paint) -> list[str]:
    """Return the report as lines of at most 80 columns, under a title."""
    blocks = (
        [paint("title", line) for line in wrapped(title)],
        _results(verdict, paint),
        _figures(evidence, paint),
        _first_tokens(evidence, paint),
        [*_repeats(evidence), *_ways(evidence)],
        list(_failures(evidence)),
        list(_end(verdict, paint)),
    )
    return [line for block in blocks if block for line in (*block, "")][:-1]


def _results(verdict: Verdict, paint: Paint) -> list[str]:
    return labelled(
        [
            (each.part, *_LABELS[each.state], [sentence.text for sentence in each.sentences])
            for each in verdict.results
        ],
        paint,
    )


def _figures(evidence: Evidence, paint: Paint) -> list[str]:
    if not evidence.calls:
        return []
    head, *rows = columns([_HEAD, *(_row(part, each) for part, each in evidence.calls.items())])
    return [paint("head", head), *rows]


def _row(part: CallPart, figures: Figures) -> tuple[str, ...]:
    return (
        part,
        str(figures.sent),
        str(figures.answered),
        share(figures.success_rate),
        *_times(figures.latency),
        seconds(figures.total),
        rate(figures.rate),
    )


def _first_tokens(evidence: Evidence, paint: Paint) -> list[str]:
    """Give a table of its own: in 80 columns there is no room beside the others."""
    times = {part: each.first_token for part, each in evidence.calls.items()}
    rows = [(part, *_times(each)) for part, each in times.items() if each is not None]
    if not rows:
        return []
    head, *rest = columns([_HEAD_OF_FIRST_TOKENS, *rows])
    return [paint("head", head), *rest]


def _times(times: Times) -> tuple[str, ...]:
    return tuple(map(seconds, (times.average, times.shortest, times.longest, times.p95)))


def _repeats(evidence: Evidence) -> Iterator[str]:
    for part, figures in evidence.calls.items():
        if figures.retries:
            yield f"{part}: {counted(figures.retries, 'retry', 'retries')} needed"
        if figures.unfinished:
            yield f"{part}: {counted(figures.unfinished, 'call')} interrupted"


def _ways(evidence: Evidence) -> Iterator[str]:
    """Give where calls went, of parts that had more than one place to go."""
    for part, figures in evidence.calls.items():
        if len(figures.answered_by) > 1 or figures.hops or figures.passed_by:
            hops = counted(figures.hops, "hop")
            past = counted(figures.passed_by, "time")
            yield f"{part}: {hops}, {past} past an endpoint that was held back"
            yield from wrapped(f"answered by {_by_name(figures.answered_by)}", first=f"{part}: ")
    if evidence.failover is not None:
        yield from _holds(evidence.failover)


def _holds(found: Failover) -> Iterator[str]:
    openings, cooldowns = found.openings, found.cooldowns
    yield f"failover: circuits opened {counted(openings.total(), 'time')}{_each(openings)}"
    yield f"failover: {counted(cooldowns.total(), 'cooldown')}{_each(cooldowns)}"
    yield f"failover: the same chaos again with --chaos {found.profile} --seed {found.seed}"


def _each(counts: Mapping[str, int]) -> str:
    return f" ({_by_name(counts)})" if counts else ""


def _by_name(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


def _failures(evidence: Evidence) -> Iterator[str]:
    """Give the failures of each part by their code, and what to do about it once each."""
    told: set[str] = set()
    for part, figures in evidence.calls.items():
        for failure in figures.failures:
            yield f"{part}: {failure.count} x {failure.code}"
            if part == "failover":  # nothing is to be done about simulated servers
                continue
            for sentence in failure.sentences:
                if sentence not in told:
                    yield from wrapped(sentence, first="  ")
            told.update(failure.sentences)


def _end(verdict: Verdict, paint: Paint) -> Iterator[str]:
    if verdict.passed:
        yield paint("good", "ALL TESTS PASSED!")
    else:
        bad = [each.part for each in verdict.results if each.state != "passed"]
        yield from (paint("bad", line) for line in wrapped(f"NOT PASSED: {', '.join(bad)}"))
        if verdict.proven:
            yield "Proven all the same:"
    for claim in verdict.shown:
        yield f"  {claim}"
