"""Many threads at one endpoint: nothing is lost, whatever happens to whom."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Iterator

import pytest

from ollama_bridge import errors
from ollama_bridge.core.breaker import BreakerPolicy
from ollama_bridge.core.deadline import Deadline
from ollama_bridge.core.visit import Visit

from .virtual import World, endpoint

THREADS, VISITS = 16, 500
ENDS: list[BaseException | None] = [
    None,
    errors.ConnectionFailed(),
    errors.RateLimited(),
    errors.ModelNotFound(),
    KeyboardInterrupt(),
    GeneratorExit(),
]


@pytest.fixture(autouse=True)
def switches_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_no_slot_no_permit_and_no_count_is_lost() -> None:
    never = BreakerPolicy(failure_threshold=10**9, window_visits=10**9)
    world = World([endpoint(breaker=never)])
    place = world.router.place(world.router.default.endpoint)
    deadline = Deadline.after(60, now=world.time.now, usual=60)
    counted = {True: [0] * THREADS, False: [0] * THREADS}

    def work(number: int) -> None:
        chance = random.Random(number)
        for _ in range(VISITS):
            end = chance.choice(ENDS)
            if end is None or isinstance(end, errors.ConnectionFailed | errors.ModelNotFound):
                counted[isinstance(end, errors.ConnectionFailed)][number] += 1
            try:
                with Visit(world.router, world.router.default, deadline) as visit:
                    visit.admit()
                    visit.pause()
                    visit.resume()
                    visit.admit()
                    if end is not None:
                        raise end.with_traceback(None)
            except (errors.OllamaBridgeError, KeyboardInterrupt, GeneratorExit):
                pass

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    bad, visits = place.breaker._window.totals(world.time.now)
    assert place.model("m").limiter.in_flight == 0
    assert bad == sum(counted[True])
    assert visits == bad + sum(counted[False]), "answered visits count as good"
    assert place.breaker.generation == 0
