"""What the reliability test shall do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

Form = Literal["chat", "stream", "achat", "astream"]
"""The method of the client by which the questions are asked."""

Act = Literal["flaky", "slow", "dying", "rate-limited"]
Profile = Literal[Act, "mixed"]
"""How endpoints misbehave in the failover drill; see ``chaos``."""

ACTS: Final[tuple[Act, ...]] = ("flaky", "slow", "dying", "rate-limited")
PROFILES: Final[Mapping[Profile, tuple[Act, ...]]] = {
    **{act: (act,) for act in ACTS},
    "mixed": ACTS,
}
"""The acts of each profile."""

MOST_CALLERS = 1000
A_DAY = 86_400.0
LARGEST_SEED = 2**32 - 1
SHORTEST_ACT = 2.0
USUAL_ACT = 3.0
_ALL = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The arguments of the command.

    Attributes:
        requests: calls that are made one after the other.
        concurrency: callers at once; two at least, since one alone never meets another.
        duration: seconds for which the callers go on, None: each makes one call; and for which the
            failover drill lasts, None: a few for each kind of chaos.
        min_success: percent of the calls of each part that must be answered.
        form: how the questions are asked, of the configured server and in the drills.
        chaos: how the endpoints of the failover drill misbehave, None where it is not held.
        seed: what is left to chance there; the same seed makes the same chaos.

    Raises:
        ValueError: an argument is out of its range; the message names it and the range.
    """

    requests: int = 10
    concurrency: int = 20
    duration: float | None = None
    min_success: float = _ALL
    form: Form = "chat"
    chaos: Profile | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.requests < 1:
            raise ValueError("--requests must be at least 1.")
        if not 1 < self.concurrency <= MOST_CALLERS:
            raise ValueError(f"--concurrency must be from 2 to {MOST_CALLERS}.")
        if self.duration is not None and not 0 < self.duration <= A_DAY:
            raise ValueError(f"--duration must be more than 0 seconds, and at most {A_DAY:.0f}.")
        if not 0 < self.min_success <= _ALL:
            raise ValueError("--min-success must be more than 0 percent, and at most 100.")
        if not 0 <= self.seed <= LARGEST_SEED:
            raise ValueError(f"--seed must be from 0 to {LARGEST_SEED}.")
        shortest = SHORTEST_ACT * len(self.acts)
        if self.duration is not None and self.duration < shortest:
            raise ValueError(
                f"--duration must be at least {shortest:g} seconds with --chaos {self.chaos}."
            )

    @property
    def streams(self) -> bool:
        """Whether answers come in pieces."""
        return self.form in {"stream", "astream"}

    @property
    def acts(self) -> tuple[Act, ...]:
        """The kinds of chaos in the failover drill."""
        return () if self.chaos is None else PROFILES[self.chaos]

    @property
    def chaos_seconds(self) -> float:
        """How long the failover drill lasts, but for the calls under way at its end."""
        return USUAL_ACT * len(self.acts) if self.duration is None else self.duration
