"""What the reliability test shall do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Form = Literal["chat", "stream", "achat", "astream"]
"""The method of the client by which the questions are asked."""

MOST_CALLERS = 1000
A_DAY = 86_400.0
_ALL = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The arguments of the command.

    Attributes:
        requests: calls that are made one after the other.
        concurrency: callers at once; two at least, since one alone never meets another.
        duration: seconds for which the callers go on; None: each makes one call.
        min_success: percent of the calls of each part that must be answered.
        form: how the questions are asked, of the configured server and in the drills.

    Raises:
        ValueError: an argument is out of its range; the message names it and the range.
    """

    requests: int = 10
    concurrency: int = 20
    duration: float | None = None
    min_success: float = _ALL
    form: Form = "chat"

    def __post_init__(self) -> None:
        if self.requests < 1:
            raise ValueError("--requests must be at least 1.")
        if not 1 < self.concurrency <= MOST_CALLERS:
            raise ValueError(f"--concurrency must be from 2 to {MOST_CALLERS}.")
        if self.duration is not None and not 0 < self.duration <= A_DAY:
            raise ValueError(f"--duration must be more than 0 seconds, and at most {A_DAY:.0f}.")
        if not 0 < self.min_success <= _ALL:
            raise ValueError("--min-success must be more than 0 percent, and at most 100.")

    @property
    def streams(self) -> bool:
        """Whether answers come in pieces."""
        return self.form in {"stream", "astream"}
