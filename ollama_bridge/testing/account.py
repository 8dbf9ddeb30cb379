"""An account of Ollama's cloud, and what `/api/balance` tells to who has its key."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from . import clock

_HOURS = 3600.0
_DAYS = 86_400.0


@dataclass(frozen=True, slots=True)
class FakeAccount:
    """What makes a `FakeOllama` the cloud: requests need the key, but for its public lists.

    `credit` is a plan with an allowance in dollars, `legacy` an older one with two in percent; for
    another shape give what stands under `included` yourself.
    """

    key: str = field(repr=False)
    included: Mapping[str, object]
    bought: float = 0.0
    """Dollars that were paid besides."""

    @classmethod
    def credit(
        cls,
        key: str,
        left: float = 45,
        of: float = 60,
        *,
        seconds: float = 20 * _DAYS,
        bought: float = 0.0,
    ) -> Self:
        """A plan that has so many dollars left of its allowance, for so many seconds more."""
        period = {"from": _in(seconds - 30 * _DAYS), "until": _in(seconds)}
        included = {"balance_usd": left, "allowance_usd": of, "period": period}
        return cls(key, included, bought)

    @classmethod
    def legacy(
        cls,
        key: str,
        session: float = 75,
        weekly: float = 40,
        *,
        seconds: float = 3 * _HOURS,
        bought: float = 0.0,
    ) -> Self:
        """A plan that has so many percent left; the session ends in so many seconds."""
        included = {
            "session": {"remaining_percent": session, "resets_at": _in(seconds)},
            "weekly": {"remaining_percent": weekly, "resets_at": _in(4 * _DAYS)},
        }
        return cls(key, included, bought)

    @property
    def balance(self) -> dict[str, object]:
        """The body of `/api/balance`."""
        return {"included": self.included, "purchased": {"balance_usd": self.bought}}

    def admits(self, headers: Mapping[str, str]) -> bool:
        return headers.get("authorization") == f"Bearer {self.key}"


def _in(seconds: float) -> str:
    return clock.stamp(time.time() + seconds)
