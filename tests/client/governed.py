"""An endpoint that takes note of what is done to it, for tests of what keeps its row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ollama_bridge.circuits import CooldownFacts, EndpointFacts

if TYPE_CHECKING:
    from ollama_bridge.core.events import Observer
    from ollama_bridge.core.quota import Quota

URL = "http://127.0.0.1:11434"
SERVER = "a server and an account"


class FakeGoverned:
    """One endpoint, ``default``; its circuit is it, too.

    Attributes:
        moves: what was done to circuit and cooldown.
        facts: how its cooldown is said to be.
        heard: for how long somebody waited for other processes.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.moves: list[str] = []
        self.facts = CooldownFacts(seconds=0.0, code="", generation=0)
        self.quota: Quota | None = None
        self.limits = {} if limit is None else {"default": limit}
        self.listeners: list[Observer] = []
        self.heard: list[float] = []

    def force_open(self) -> None:
        self.moves.append("forced_open")

    def disable(self) -> None:
        self.moves.append("disabled")

    def reset(self) -> None:
        self.moves.append("reset")

    def circuits(self) -> dict[str, FakeGoverned]:
        return {"default": self}

    def endpoints(self) -> dict[str, EndpointFacts]:
        return {
            "default": EndpointFacts(
                name="default",
                url=URL,
                model="llama3.2",
                cooldown=self.facts.seconds,
                cooldown_code=self.facts.code,
                quota=self.quota,
                weight=1.0,
                is_cloud=False,
                identity=SERVER,
            )
        }

    def cooldown(self, name: str) -> CooldownFacts:
        assert name == "default"
        return self.facts

    def cool_down(self, name: str, seconds: float, code: str) -> None:
        assert name == "default"
        self.moves.append(f"{code} for {seconds:.0f} s")
        self.facts = CooldownFacts(seconds=seconds, code=code, generation=self.facts.generation + 1)

    def end_cooldown(self, name: str) -> None:
        assert name == "default"
        self.moves.append("ended")
        self.facts = CooldownFacts(seconds=0.0, code="", generation=self.facts.generation + 1)

    def learn_quota(self, name: str, quota: Quota) -> None:
        assert name == "default"
        self.quota = quota

    def listen(self, listener: Observer) -> None:
        self.listeners.append(listener)

    def ignore(self, listener: Observer) -> None:
        if listener in self.listeners:
            self.listeners.remove(listener)

    def wait(self, seconds: float) -> None:
        self.heard.append(seconds)
