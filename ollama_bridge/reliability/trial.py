"""The parts of the test in turn."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

from . import drills
from .askers import ASKERS
from .crowd import Crowd
from .evidence import Evidence, Failover
from .failover import MOST_CALLERS, failover
from .quiet import CALLS, unlogged
from .recovery import STEPS, recovery
from .tally import Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from ..client import OllamaClient
    from ..conf import Settings
    from .askers import Answer
    from .evidence import CallPart, Part
    from .plan import Act, Plan, Profile

# Enough for "OK", and a bound for models that like to talk.
_MOST_TOKENS = 32


class Progress(Protocol):
    """Shows what is being done, on stderr say."""

    def begin(self, part: Part, what: str, total: float) -> None:
        """Show that a part begins, and what it does; ``total`` is the ``done`` of its end."""

    def update(self, done: float, note: str = "") -> None:
        """Show how far the part is; called often, so it may skip."""

    def end(self) -> None:
        """Show that the part is over, or was interrupted."""


class Trial:
    """Gathers the evidence.

    Health and calls go through ``client`` to the configured servers, and count in its circuits as
    calls of visitors do. The drills have clients and servers of their own.

    Args:
        client: The client of the site.
        settings: The settings that it has.
        plan: How many calls, and in which form.
        progress: Shows what is being done.
        log_calls: Whether the calls of the test are logged as others are.
    """

    def __init__(
        self,
        client: OllamaClient,
        settings: Settings,
        plan: Plan,
        progress: Progress,
        *,
        log_calls: bool = False,
    ) -> None:
        self._client = client
        self._settings = settings
        self._plan = plan
        self._progress = progress
        self._log_calls = log_calls
        self._asker = ASKERS[plan.form]()
        self._found = Evidence()
        self._at: Part = "health"

    def run(self) -> Evidence:
        """Run all parts; Ctrl-C ends it with what was found until then.

        Raises:
            ImproperlyConfigured: the settings are wrong, or the form needs aiohttp.
        """
        try:
            with self._asker:
                with nullcontext() if self._log_calls else unlogged(*CALLS):
                    if self._is_healthy():
                        self._call_in_turn()
                        self._call_at_once()
                self._hold_drills()
        except KeyboardInterrupt:
            self._found.cut = self._at
        return self._found

    def _is_healthy(self) -> bool:
        endpoints = self._settings.ENDPOINTS
        asked = ", ".join(each.BASE_URL for each in endpoints.values())
        with self._part("health", f"asking {asked}", 1):
            self._found.health = self._asker.run(self._asker.report(self._client))
            self._found.mode = self._client.circuit_breaker.mode
            breakers = self._client.circuit_breakers
            self._found.modes = {name: breakers[name].mode for name in endpoints}
        return bool(self._found.health)

    def _call_in_turn(self) -> None:
        requests = self._plan.requests
        with self._calls("sequential", f"{requests} calls, one after the other", requests) as tally:
            ask = self._asking("sequential")
            crowd = Crowd(self._asker, ask, tally, callers=1, each=requests)
            crowd.run(lambda: self._progress.update(*_told(tally)))

    def _call_at_once(self) -> None:
        callers, seconds = self._plan.concurrency, self._plan.duration
        what = f"{callers} callers at once" + (f", for {seconds:g} s" if seconds else "")
        with self._calls("concurrent", what, seconds or callers) as tally:
            ask = self._asking("concurrent")
            crowd = Crowd(self._asker, ask, tally, callers=callers, seconds=seconds)
            crowd.run(lambda: self._progress.update(*_told(tally, of_time=seconds is not None)))

    def _hold_drills(self) -> None:
        found, asker, settings = self._found, self._asker, self._settings
        watch = self._progress.update
        with self._drill("pooling", "one connection for many calls", drills.CALLS):
            found.pooling = drills.pooling(asker, watch)
        with self._drill("retries", "each first attempt fails", drills.CALLS):
            found.retries = drills.retries(asker, settings, watch)
        with self._drill("recovery", "a server dies and comes back", STEPS):
            found.recovery = recovery(asker, settings, watch)
        if self._plan.streams:
            with self._drill("cuts", "streams break off in their middle", drills.CUTS):
                found.cuts = drills.cuts(asker, watch)
        if self._plan.chaos is not None:
            self._fail_over(self._plan.chaos)

    def _fail_over(self, chaos: Profile) -> None:
        plan, settings, tally = self._plan, self._settings, Tally()
        found = Failover(
            profile=chaos,
            seed=plan.seed,
            callers=min(plan.concurrency, MOST_CALLERS),
            max_retries=settings.MAX_RETRIES,
            threshold=settings.FAILURE_THRESHOLD,
        )

        def watch(act: Act) -> None:
            done, note = _told(tally, of_time=True)
            self._progress.update(done, f"{act}, {note}")

        what = f"{found.callers} callers, 3 endpoints, {chaos} chaos"
        with self._drill("failover", what, plan.chaos_seconds):
            try:
                failover(self._asker, plan, found, tally, watch)
            finally:
                if found.acts:
                    self._found.failover = found
                    self._found.calls["failover"] = tally.figures()

    def _asking(self, part: CallPart) -> Callable[[int], Coroutine[Any, Any, Answer]]:
        def ask(number: int) -> Coroutine[Any, Any, Answer]:
            # Each its own words, so that nothing between here and the model answers from a cache.
            question = f"Reliability test, {part} call {number}: reply with OK."
            return self._asker.ask(self._client, question, max_tokens=_MOST_TOKENS)

        return ask

    @contextmanager
    def _calls(self, part: CallPart, what: str, total: float) -> Iterator[Tally]:
        """Give what counts the calls of a part; the sum is kept, however the block ends."""
        tally = Tally()
        with self._part(part, what, total):
            try:
                yield tally
            finally:
                self._found.calls[part] = tally.figures()

    @contextmanager
    def _drill(self, part: Part, what: str, total: float) -> Iterator[None]:
        with self._part(part, what, total):
            try:
                yield
            except OSError as error:
                self._found.trouble[part] = f"no drill on 127.0.0.1: {error.strerror or error}"

    @contextmanager
    def _part(self, part: Part, what: str, total: float) -> Iterator[None]:
        self._at = part
        self._progress.begin(part, what, total)
        try:
            yield
        finally:
            self._progress.end()


def _told(tally: Tally, *, of_time: bool = False) -> tuple[float, str]:
    """Return how far the calls are, in calls or in seconds, and the words for it."""
    answered, failed = tally.progress()
    done = tally.elapsed() if of_time else answered + failed
    return done, f"{answered} answered" + (f", {failed} failed" if failed else "")
