"""What the facts of a drill prove, as sentences. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from ..core.breaker import BreakerPolicy
from .evidence import TRIES
from .verdict import Sentence
from .wording import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from .chaos import Trouble
    from .evidence import Cuts, Failover, Pooling, Recovery, Retrying
    from .plan import Act
    from .tally import Figures


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


def answered(figures: Figures, least: float) -> Sentence:
    """Judge whether ``least`` percent of the calls were answered."""
    rate = figures.success_rate
    text = f"{figures.answered} of {figures.sent} calls answered"
    if rate is not None and rate >= least:
        return Sentence(good=True, text=text)
    return Sentence(good=False, text=f"{text}, {least:g} % wanted")


def failover(found: Failover, figures: Figures, least: float) -> tuple[Sentence, ...]:
    sum_of_all = answered(figures, least)
    hops = counted(figures.hops, "hop")
    return (
        sum_of_all,
        *(() if sum_of_all.good else _remedies(found)),
        Sentence(good=figures.hops > 0, text=f"{hops} to another endpoint after a failed request"),
        *(_CHAOS[act](found) for act in found.acts),
    )


def _remedies(found: Failover) -> Iterator[Sentence]:
    """Give what may be wrong with the settings; the endpoints are as bad as they shall be."""
    usual = BreakerPolicy().failure_threshold
    if not found.max_retries:
        yield Sentence(good=False, text="MAX_RETRIES is 0. Set it to 3, say")
    if found.threshold < usual:
        text = f"FAILURE_THRESHOLD is {found.threshold}, so circuits open soon. Set it to {usual}"
        yield Sentence(good=False, text=text)


def _flaky(found: Failover) -> Sentence:
    text = "flaky: each odd request of each endpoint failed"
    return _met(found, text, {"503": "by 503", "reset": "by a reset"})


def _slow(found: Failover) -> Sentence:
    text = "slow: two endpoints were slower than their TIMEOUT"
    return _met(found, text, {"stall": "requests stalled", "drip": "dripped"})


def _met(found: Failover, text: str, kinds: Mapping[Trouble, str]) -> Sentence:
    """Judge whether there was enough chaos, of each kind."""
    counts = ", ".join(f"{found.troubles[kind]} {words}" for kind, words in kinds.items())
    return Sentence(good=all(found.troubles[kind] for kind in kinds), text=f"{text}: {counts}")


def _dying(found: Failover) -> Sentence:
    killed, served = counted(found.deaths, "time"), counted(found.returns, "time")
    text = f"dying: an endpoint was killed {killed}, and came back to serve {served}"
    return Sentence(good=found.returns > 0, text=text)


def _limited(found: Failover) -> Sentence:
    """Judge whether a usage limit is heeded, but by those in flight, and tried again later."""
    tries = max(0, found.probes - 1)
    in_flight = found.held - tries
    too_many = found.troubles["too many at once"]
    is_heeded = 0 < in_flight <= found.callers and tries > 0
    text = (
        f"rate-limited: an account over its limit got {counted(found.held, 'request')}, "
        f"{in_flight} before that was known and {tries} after a cooldown each; "
        f"another refused {too_many} as too many at once"
    )
    return Sentence(good=is_heeded and too_many > 0, text=text)


_CHAOS: Final[Mapping[Act, Callable[[Failover], Sentence]]] = {
    "flaky": _flaky,
    "slow": _slow,
    "dying": _dying,
    "rate-limited": _limited,
}


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
