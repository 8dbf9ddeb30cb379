"""What it costs a call to choose among many endpoints, and to be there."""

from __future__ import annotations

from contextlib import ExitStack, closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ollama_bridge.asking import call_of
from ollama_bridge.conf import Settings
from ollama_bridge.core.deadline import Deadline
from ollama_bridge.core.strategies import STRATEGIES
from ollama_bridge.core.visit import Visit
from ollama_bridge.engine import Engine

from .. import askers, peers, refused
from ..contest import Benchmark, Contestant, Unit
from ..figures import Goal
from ..peers import invited
from ..replies import MODEL
from ..rounds import mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ollama_bridge.core.router import Router
    from ollama_bridge.core.types import Target

    Choose = Callable[[], Sequence[Target]]

_ENDPOINTS: Final = 8
_PATIENCE: Final = 60.0


@contextmanager
def _gather(calls: int) -> Iterator[Sequence[Contestant]]:
    with ExitStack() as stack:
        url = stack.enter_context(refused.port())  # where nobody is, if somebody is asked there

        def turn(strategy: str, *, key: str | None = None) -> Callable[[], float]:
            settings = Settings.build(_settings(strategy, url))
            router = stack.enter_context(closing(Engine(settings))).router
            call = call_of(settings, askers.QUESTION, sticky_key=key)
            return partial(mean, _visit(router, partial(router.targets, call)), calls)

        turns = {name: turn(name) for name in STRATEGIES}
        turns["weighted, with a key"] = turn("weighted", key="user-7")
        alone = Engine(Settings.build(_settings("failover", url))).router
        visit = _visit(alone, lambda: alone.plan.default.targets)
        yield [
            Contestant(
                key="ours",
                name="ollama_bridge, the slowest strategy",
                turn=lambda: max(turn() for turn in turns.values()),
            ),
            *(Contestant(key=name, name=f"… {name}", turn=each) for name, each in turns.items()),
            Contestant(
                key="visit", name="a visit without a choice", turn=partial(mean, visit, calls)
            ),
            invited(
                "litellm",
                "LiteLLM's Router, the choice alone",
                "litellm",
                lambda: partial(mean, _litellm(url), calls),
            ),
        ]


def _settings(strategy: str, url: str) -> Mapping[str, object]:
    endpoints = {f"gpu{number}": {"BASE_URL": url} for number in range(_ENDPOINTS)}
    route = {"STRATEGY": strategy, "TARGETS": [*endpoints]}
    return {"ENDPOINTS": endpoints, "ROUTES": {"default": route}, "CACHE": None}


def _visit(router: Router, choose: Choose) -> Callable[[], None]:
    """All that a call does around its attempts, at the first place of those it chooses.

    Every place knows its model, as after a first call.
    """
    deadline = Deadline.after(_PATIENCE, now=router.clock.monotonic(), usual=_PATIENCE)
    for target in choose():
        with Visit(router, target, deadline):
            pass

    def call() -> None:
        with Visit(router, choose()[0], deadline):
            pass

    return call


def _litellm(url: str) -> Callable[[], object]:
    """Its router over as many servers, as it is by default: it shuffles those in no cooldown."""
    litellm: Any = peers.load("litellm")
    litellm.telemetry = False
    litellm.suppress_debug_info = True
    to = {"model": f"ollama_chat/{MODEL}", "api_base": url}
    one = {"model_name": MODEL, "litellm_params": to}
    router = litellm.Router(
        model_list=[{**one, "model_info": {"id": f"{n}"}} for n in range(_ENDPOINTS)]
    )
    choose = router.get_available_deployment
    return partial(choose, model=MODEL, messages=askers.MESSAGES)


BENCHMARK: Final = Benchmark(
    name="places",
    what=(
        f"A call that does nothing, at one of {_ENDPOINTS} endpoints: the choice by a strategy, "
        "which looks at all their circuits, cooldowns and loads, and the visit as in breaker."
    ),
    unit=Unit.SECONDS,
    rounds=20,
    calls=1000,
    gather=_gather,
    peer="visit",
    goal=Goal(of="ours", limit=15e-6),
)
