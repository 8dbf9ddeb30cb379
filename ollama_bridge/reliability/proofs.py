"""What the facts of a drill prove, as sentences. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..core.breaker import BreakerPolicy
from .evidence import TRIES
from .verdict import Sentence
from .wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .evidence import Cuts, Pooling, Recovery, Retrying


def pooling(found: Pooling) -> tuple[Sentence, ...]:
    good = found.answered == found.calls == found.requests and found.connections == 1
    over = counted(found.connections, "connection")
    return (Sentence(good=good, text=f"{found.answered} of {found.calls} calls over {over}"),)


def retries(found: Retrying) -> tuple[Sentence, ...]:
    if not found.max_retries:
        return (Sentence(good=False, text="MAX_RETRIES is 0. Set it to 3, say"),)
    if found.status is None:
        return (Sentence(good=False, text="RETRY_STATUSES lacks 503. Add it"),)
    good = found.answered == found.calls == found.retries and found.requests == 2 * found.calls
    text = (
        f"{found.answered} of {found.calls} calls answered with {found.retries} repeats, "
        f"by a server that fails each first attempt ({found.status})"
    )
    return (Sentence(good=good, text=text),)


def cuts(found: Cuts) -> tuple[Sentence, ...]:
    good = found.told == found.calls == found.requests
    repeats = counted(found.requests - found.calls, "repeat")
    text = f"{found.told} of {found.calls} streams that broke off told as interrupted, {repeats}"
    return (Sentence(good=good, text=text),)


def recovery(found: Recovery) -> tuple[Sentence, ...]:
    if not found.enabled:
        return (Sentence(good=False, text="CIRCUIT_BREAKER is off. Set it to True"),)
    sentences: list[Sentence] = []
    for each in _steps(found):
        sentences.append(each)
        if not each.good:
            break
    return tuple(sentences)


def _steps(found: Recovery) -> Iterator[Sentence]:
    """Give a sentence for each step of the drill; those after one that went wrong are void."""
    yield Sentence(
        good=found.healthy == TRIES, text=f"healthy server: {found.healthy} of {TRIES} answered"
    )
    yield _opening(found)
    yield Sentence(
        good=found.refused == TRIES and not found.leaked,
        text=f"server back: {found.refused} of {TRIES} refused while open, "
        f"{counted(found.leaked, 'request')} sent",
    )
    yield _probing(found)
    yield Sentence(
        good=found.closed and found.again == TRIES,
        text=f"circuit {'closed' if found.closed else 'not closed'}: "
        f"{found.again} of {TRIES} answered",
    )


def _opening(found: Recovery) -> Sentence:
    """Judge the opening: at the threshold, or sooner where half of many calls had failed."""
    failed = counted(found.failed, "failed call")
    if not found.opened:
        return Sentence(good=False, text=f"server killed: circuit still closed after {failed}")
    many = BreakerPolicy(failure_threshold=found.threshold).window_visits
    good = found.failed == found.threshold or TRIES + found.failed >= many
    return Sentence(good=good, text=f"server killed: circuit open after {failed}")


def _probing(found: Recovery) -> Sentence:
    after = f"after {math.ceil(found.waited * 10) / 10:.1f} s"
    if not found.probes:
        return Sentence(good=False, text=f"{after}: no call was let through")
    probes = counted(found.probes, "probe")
    if not found.held_back:
        return Sentence(good=False, text=f"{after}: {probes}, and others were let through too")
    return Sentence(good=found.probes == 1, text=f"{after}: {probes}, others refused meanwhile")
