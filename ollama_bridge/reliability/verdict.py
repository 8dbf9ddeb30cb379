"""What the test comes to, in words and as an exit code."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .evidence import Part

CLAIMS: Final[Mapping[Part, str]] = {
    "pooling": "connection pooling",
    "retries": "retry logic",
    "recovery": "circuit breaker pattern",
    "concurrent": "concurrent request handling",
    "cuts": "mid-stream error handling",
    "failover": "endpoint failover",
}
"""What a part proves by passing."""

State = Literal["passed", "failed", "not run", "interrupted"]


class Code(IntEnum):
    """Exit codes of the command."""

    PASSED = 0
    FAILED = 1
    WRONG_ARGUMENTS = 2
    NO_SERVER = 3
    INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Sentence:
    """Something that was found, and whether it is as it should be."""

    good: bool
    text: str


@dataclass(frozen=True, slots=True)
class Result:
    """What a part came to.

    Attributes:
        void: why it came to nothing.
        shown: what exactly it proves by passing, where there is more to say than its claim.
    """

    part: Part
    sentences: tuple[Sentence, ...]
    void: Literal["not run", "interrupted"] | None = None
    shown: str = ""

    @property
    def state(self) -> State:
        if self.void is not None:
            return self.void
        return "passed" if all(each.good for each in self.sentences) else "failed"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What all parts came to, in the order in which they ran."""

    results: tuple[Result, ...]
    code: Code

    @property
    def passed(self) -> bool:
        return self.code is Code.PASSED

    @property
    def proven(self) -> tuple[str, ...]:
        """The claims that were proven."""
        return tuple(CLAIMS[each.part] for each in self._proofs)

    @property
    def shown(self) -> tuple[str, ...]:
        """The same, each with what exactly was shown."""
        return tuple(
            f"{CLAIMS[each.part]}: {each.shown}" if each.shown else CLAIMS[each.part]
            for each in self._proofs
        )

    @property
    def _proofs(self) -> Sequence[Result]:
        passed = {each.part: each for each in self.results if each.state == "passed"}
        return [passed[part] for part in CLAIMS if part in passed]
