"""What went wrong at the targets of a call, and where another visit is worth it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import AllEndpointsFailed, ModelNotFound
from .actions import Sleep
from .places import PAUSING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..errors import OllamaBridgeError
    from .actions import Flow
    from .trip import Trip
    from .types import Target


class Failed:
    """The last word of each target of a call that has failed there."""

    def __init__(self, trip: Trip) -> None:
        self._trip = trip
        self._errors: dict[Target, OllamaBridgeError] = {}
        self._until: dict[Target, float] = {}  # when the server wants to be asked again
        self._out: set[Target] = set()

    def __contains__(self, target: Target) -> bool:
        return target in self._errors

    def __getitem__(self, target: Target) -> OllamaBridgeError:
        return self._errors[target]

    @property
    def error(self) -> OllamaBridgeError:
        """The one error that stands for all."""
        return merged([*self._errors.values()])

    def add(self, target: Target, error: OllamaBridgeError) -> None:
        """Take note of a visit that failed."""
        self._errors[target] = error.with_traceback(None)
        # Where a status asks the whole endpoint for a pause, that is its cooldown.
        is_own = error.retry_after is not None and error.status not in PAUSING
        self._until[target] = self._trip.now() + (error.retry_after or 0.0) if is_own else 0.0

    def refuse(self, target: Target, refusal: OllamaBridgeError) -> None:
        """Take note that another visit was refused: what failed before is what there is to say."""
        self._errors[target].retry_after = refusal.retry_after
        self._out.add(target)

    def again(self, lap: int) -> Flow[Sequence[Target]]:
        """Sleep; return the targets to try once more, none where that is not worth it."""
        delays = self._delays(lap)
        if not delays:
            return ()
        soonest = min(delays, key=delays.__getitem__)
        delay = delays[soonest]
        self._trip.repeat(soonest, lap, delay, self._errors[soonest])
        while True:
            yield Sleep(delay)
            left = {target: self._pause(target) for target in delays}
            delay = min(left.values())
            if not delay:
                return [target for target, pause in left.items() if not pause]
            if self._trip.is_too_late(delay, self._trip.deadline):
                for target, pause in left.items():
                    self._errors[target].retry_after = pause
                return ()

    def _delays(self, lap: int) -> dict[Target, float]:
        """Return the seconds to wait before another visit, where one is worth it."""
        found = ((target, self._delay(target, lap)) for target in self._errors)
        return {target: delay for target, delay in found if delay is not None}

    def _delay(self, target: Target, lap: int) -> float | None:
        policy, router = target.endpoint.retry, self._trip.router
        is_last = target in self._out or lap > policy.max_retries - policy.at_once
        if is_last or not policy.repeats(self._errors[target]) or not router.can_repeat(target):
            return None
        delay = self._pause(target) or policy.delay(lap, router.uniform)
        return None if self._trip.is_too_late(delay, self._trip.deadline) else delay

    def _pause(self, target: Target) -> float:
        """Return the seconds for which the server still wants to be left alone."""
        own = self._until[target] - self._trip.now()
        return max(self._trip.router.cooldown(target.endpoint), own, 0.0)


def merged(errors: Sequence[OllamaBridgeError]) -> OllamaBridgeError:
    """Return the one error that stands for several: the last, if all are of its class."""
    *_, last = errors
    waits = [error.retry_after for error in errors if error.retry_after is not None]
    told = "; ".join(f"{error.endpoint}: {error}" for error in errors)
    if all(type(error) is type(last) for error in errors):
        last.retry_after = min(waits, default=None)
        if len(errors) > 1 and isinstance(last, ModelNotFound):  # what to pull, at each of them
            last.args = (told,)
        return last
    all_failed = AllEndpointsFailed(
        f"All endpoints failed. {told}", model=last.model, retry_after=min(waits, default=None)
    )
    all_failed.__cause__ = last
    return all_failed
