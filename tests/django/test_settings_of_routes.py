"""What ROUTES may hold, what is refused, and what serves by default."""

import inspect
from collections.abc import AsyncIterator, Sequence
from dataclasses import fields
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from ollama_bridge import conf
from ollama_bridge.conf import EndpointSettings, RouteSettings, Settings, strategy_at
from ollama_bridge.core.strategies import STRATEGIES, Candidate, Draw
from ollama_bridge.core.types import Target
from ollama_bridge.endpoints import endpoint_of
from ollama_bridge.rules import InvalidError
from ollama_bridge.tables import HEEDLESS

EXAMPLE = "Type for example: def nearest(candidates, draw): return candidates"
ENDPOINTS: dict[str, dict[str, object]] = {
    "cloud": {"BASE_URL": "https://ollama.com", "MODEL": "gpt-oss:120b", "WEIGHT": 3},
    "gpu": {"BASE_URL": "http://10.0.0.5:11434"},
}


def in_turn(candidates: Sequence[Candidate], draw: Draw) -> Sequence[Candidate]:
    """A strategy of a site's own."""
    return candidates[draw.turn :]


class ByAnObject:
    def __call__(self, candidates: Sequence[Candidate], draw: Draw) -> Sequence[Candidate]:
        return in_turn(candidates, draw)


class LaterByAnObject:
    async def __call__(self, candidates: Sequence[Candidate], draw: Draw) -> Sequence[Candidate]:
        return in_turn(candidates, draw)


in_turn_by_an_object = ByAnObject()
later_by_an_object = LaterByAnObject()


async def later(candidates: Sequence[Candidate], draw: Draw) -> Sequence[Candidate]:
    return in_turn(candidates, draw)


async def one_after_another(candidates: Sequence[Candidate], draw: Draw) -> AsyncIterator[object]:
    for found in in_turn(candidates, draw):
        yield found


def alone(candidates: Sequence[Candidate]) -> Sequence[Candidate]:
    return candidates


def with_a_third(candidates: Sequence[Candidate], draw: Draw, _third: int) -> Sequence[Candidate]:
    return in_turn(candidates, draw)


def by_keyword(candidates: Sequence[Candidate], *, draw: Draw) -> Sequence[Candidate]:
    return in_turn(candidates, draw)


class WithoutArguments:
    pass


def candidate(index: int, weight: float) -> Candidate:
    """Return one like all others but for its weight; its model is its number."""
    target = Target(endpoint_of("gpu", EndpointSettings(), ""), str(index))
    return Candidate(target, weight, 1.0, load=0, is_warm=True, price=0.0)


def with_route(**written: object) -> dict[str, object]:
    return {"ENDPOINTS": ENDPOINTS, "ROUTES": {"fast": {"TARGETS": ["gpu"], **written}}}


def fast(**written: object) -> RouteSettings:
    """Return what becomes of the route ``fast``."""
    return Settings.build(with_route(**written)).ROUTES["fast"]


def refused(**written: object) -> conf.Problem:
    """Return the one problem of the route ``fast``."""
    (problem,) = conf.problems(with_route(**written))
    assert problem.message.startswith('ROUTES["fast"]')
    return problem


class TestARoute:
    def test_there_is_none_without_any_setting(self) -> None:
        assert Settings().ROUTES == Settings.build().ROUTES == {}

    def test_takes_its_targets_in_their_order_by_default(self) -> None:
        assert fast(TARGETS=["cloud", "gpu"]) == RouteSettings(
            STRATEGY="failover",
            TARGETS=("cloud", "gpu"),
            WEIGHTS={"cloud": 3.0, "gpu": 1.0},
            AFFINITY=None,
        )

    def test_names_a_model_behind_the_first_slash(self) -> None:
        found = fast(TARGETS=["gpu/hf.co/user/model:q4", "cloud"])

        assert found.pairs == (("gpu", "hf.co/user/model:q4"), ("cloud", ""))

    def test_may_have_several_models_of_an_endpoint(self) -> None:
        assert len(fast(TARGETS=["gpu", "gpu/qwen3", "cloud/llama3.2"]).TARGETS) == 3

    def test_weighs_its_targets_as_it_wants(self) -> None:
        found = fast(
            TARGETS=["cloud", "gpu/qwen3", "gpu"],
            WEIGHTS={"gpu/qwen3": 9, "gpu": 0.5},
            STRATEGY="weighted",
        )

        assert found.WEIGHTS == {"cloud": 3.0, "gpu/qwen3": 9.0, "gpu": 0.5}

    @pytest.mark.parametrize("affinity", [True, False, None])
    def test_may_prefer_models_that_are_loaded(self, affinity: bool | None) -> None:
        assert fast(AFFINITY=affinity).AFFINITY is affinity

    @pytest.mark.parametrize("strategy", [*STRATEGIES, "shop.strategies.pick"])
    def test_has_a_strategy_of_the_bridge_or_of_the_site(self, strategy: str) -> None:
        assert strategy == fast(STRATEGY=strategy).STRATEGY

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("TARGETS", "gpu", "must be a list, not str"),
            ("TARGETS", [], "must hold 1 at least"),
            ("TARGETS", [5], "must hold names only, not 5"),
            ("TARGETS", ["gpu/"], "must hold names only, not 'gpu/'"),
            ("TARGETS", ["/qwen3"], "must hold names only, not '/qwen3'"),
            ("TARGETS", ["gpu/a b"], "must hold names only, not 'gpu/a b'"),
            ("WEIGHTS", 5, "must be a dict, not int"),
            ("AFFINITY", "gpu", "must be True or False, not 'gpu'"),
        ],
    )
    def test_a_wrong_value_is_told_with_its_place(
        self, name: str, value: object, message: str
    ) -> None:
        problem = refused(**{name: value})

        assert problem.name == f'ROUTES["fast"]["{name}"]'
        assert problem.message == f'ROUTES["fast"]["{name}"] {message}.'
        assert problem.hint.startswith("Type ")

    @pytest.mark.parametrize("weight", [0, -1, True, "1"])
    def test_a_weight_is_above_zero(self, weight: object) -> None:
        assert refused(WEIGHTS={"gpu": weight}).message.startswith(
            'ROUTES["fast"]["WEIGHTS"]["gpu"] must be a number above 0'
        )

    @pytest.mark.parametrize("strategy", ["fail_over", "", "a..b", 5, None, True])
    def test_an_unknown_strategy_is_answered_with_all(self, strategy: object) -> None:
        message = refused(STRATEGY=strategy).message

        assert all(f'"{each}"' in message for each in STRATEGIES)
        assert message.endswith(f"or the dotted path of a function, not {strategy!r}.")

    def test_needs_targets(self) -> None:
        (problem,) = conf.problems({"ENDPOINTS": ENDPOINTS, "ROUTES": {"fast": {}}})

        assert problem.message == 'ROUTES["fast"] has no TARGETS.'
        assert problem.hint == 'Type for example "TARGETS": ["default", "cloud", "gpu"].'

    def test_a_target_that_is_no_endpoint_is_answered_with_the_nearest(self) -> None:
        problem = refused(TARGETS=["Cluod/gpt-oss:120b"])

        assert problem.message == 'ROUTES["fast"]["TARGETS"] names "Cluod", which is no endpoint.'
        assert problem.hint == 'Type "cloud", if you mean that.'

    def test_or_with_all_that_there_are(self) -> None:
        assert refused(TARGETS=["x"]).hint == 'Type one of "default", "cloud", "gpu".'

    @pytest.mark.parametrize("twin", ["gpu", "gpu/llama3.2"])
    def test_no_target_comes_twice(self, twin: str) -> None:
        problem = refused(TARGETS=["gpu", "cloud", twin])

        assert problem.message == (
            'ROUTES["fast"]["TARGETS"] names the same model of the same endpoint twice: '
            f'"{twin}" after "gpu".'
        )
        assert problem.hint == f'Remove "{twin}".'

    def test_only_targets_have_weights(self) -> None:
        problem = refused(WEIGHTS={"gpus": 2}, STRATEGY="weighted")

        assert (
            problem.message == 'ROUTES["fast"]["WEIGHTS"] has "gpus", which is none of the TARGETS.'
        )
        assert problem.hint == 'Type "gpu", if you mean that.'

    def test_weights_of_wrong_targets_are_not_told_too(self) -> None:
        problem = refused(TARGETS=5, WEIGHTS={"gpu": 2}, STRATEGY="weighted")

        assert problem.name == 'ROUTES["fast"]["TARGETS"]'

    @pytest.mark.parametrize("written", [{}, {"STRATEGY": "round_robin"}, {"STRATEGY": "random"}])
    def test_weights_that_the_strategy_does_not_heed_are_refused(
        self, written: dict[str, object]
    ) -> None:
        problem = refused(WEIGHTS={"gpu": 2}, **written)

        assert problem.message == (
            'ROUTES["fast"]["WEIGHTS"] has no effect: the strategy '
            f'"{written.get("STRATEGY", "failover")}" does not look at weights.'
        )
        assert problem.hint == (
            'Type one of "weighted", "least_busy", "lowest_cost" as "STRATEGY", or no WEIGHTS.'
        )

    @pytest.mark.parametrize(
        "strategy", ["weighted", "least_busy", "lowest_cost", "shop.strategies.pick"]
    )
    def test_other_strategies_may_heed_them(self, strategy: str) -> None:
        assert fast(WEIGHTS={"gpu": 2}, STRATEGY=strategy).WEIGHTS == {"gpu": 2.0}

    @pytest.mark.parametrize("strategy", STRATEGIES)
    def test_those_that_heed_them_are_those_whose_order_they_change(self, strategy: str) -> None:
        def first_of(*weights: float) -> int:
            candidates = [candidate(index, weight) for index, weight in enumerate(weights)]
            draw = Draw(lambda: 0.5, 0, "")
            return int(STRATEGIES[strategy](candidates, draw)[0].target.model)

        assert (first_of(1, 9) != first_of(9, 1)) is (strategy not in HEEDLESS)

    def test_a_misspelt_name_is_answered_with_the_nearest(self) -> None:
        assert refused(TARGET=["gpu"]).hint == 'Type "TARGETS", if you mean that.'

    @pytest.mark.parametrize(
        ("name", "hint"),
        [
            ("WEIGHT", 'Type it in ENDPOINTS["gpu"], or "WEIGHTS", if you mean that.'),
            ("MODELS", 'Type it in ENDPOINTS["gpu"].'),
            ("PRICES", 'Type it in ENDPOINTS["gpu"].'),
        ],
    )
    def test_what_endpoints_alone_have_is_typed_there(self, name: str, hint: str) -> None:
        problem = refused(**{name: {}})

        assert problem.message == f'ROUTES["fast"]["{name}"] is a setting of an endpoint.'
        assert (problem.hint, problem.kind) == (hint, "unknown")

    @pytest.mark.parametrize("name", [each.name for each in fields(RouteSettings)])
    def test_what_routes_alone_have_is_no_setting_of_the_top_level(self, name: str) -> None:
        (problem,) = conf.problems({name: {}})

        assert problem.message == f"{name} is a setting of a route."
        assert (problem.hint, problem.kind) == ('Type it in ROUTES["default"].', "unknown")

    def test_the_example_of_affinity_is_one(self) -> None:
        assert refused(AFFINITY="yes").hint == 'Type for example "AFFINITY": True.'

    def test_a_setting_of_all_servers_is_one_of_the_top_level(self) -> None:
        assert "setting of the top level" in refused(TIMEOUT=5).message

    @pytest.mark.parametrize("value", [None, ["gpu"], "gpu"])
    def test_routes_are_a_dict_of_dicts(self, value: object) -> None:
        (whole,) = conf.problems({"ROUTES": value})
        (one,) = conf.problems({"ROUTES": {"fast": value}})

        assert whole.message == f"ROUTES must be a dict, not {type(value).__name__}."
        assert one.message == f'ROUTES["fast"] must be a dict, not {type(value).__name__}.'

    def test_a_wrong_name_is_told(self) -> None:
        (problem,) = conf.problems({"ROUTES": {"Fast": {"TARGETS": ["default"]}}})

        assert "lower-case letters" in problem.message
        assert "TARGETS" in problem.hint

    def test_where_no_endpoint_could_be_read_no_target_is_blamed(self) -> None:
        (problem,) = conf.problems({**with_route(), "ENDPOINTS": ["gpu"]})

        assert problem.name == "ENDPOINTS"

    def test_a_wrong_model_of_an_endpoint_is_told_once(self) -> None:
        endpoints = {"gpu": {**ENDPOINTS["gpu"], "MODEL": ""}}
        (problem,) = conf.problems({**with_route(), "ENDPOINTS": endpoints})

        assert problem.name == 'ENDPOINTS["gpu"]["MODEL"]'


class TestWhatServesByDefault:
    def test_the_endpoint_of_the_top_level_stays_beside_other_routes(self) -> None:
        built = Settings.build(with_route())

        assert built.names == ("fast", "default", "cloud", "gpu")

    def test_a_route_of_the_name_takes_its_place(self) -> None:
        built = Settings.build(
            {"ENDPOINTS": ENDPOINTS, "ROUTES": {"default": {"TARGETS": ["gpu"]}}}
        )

        assert list(built.ENDPOINTS) == ["cloud", "gpu"]
        assert built.names == ("default", "cloud", "gpu")

    @pytest.mark.parametrize("name", ["default", "fast"])
    def test_but_not_where_a_route_leads_there(self, name: str) -> None:
        routes = {"default": {"TARGETS": ["gpu"]}} | {name: {"TARGETS": ["default/qwen3", "gpu"]}}
        built = Settings.build({"ENDPOINTS": ENDPOINTS, "ROUTES": routes})

        assert list(built.ENDPOINTS) == ["default", "cloud", "gpu"]
        assert built.ENDPOINTS["default"] == EndpointSettings()
        assert built.names.count("default") == 1

    @pytest.mark.parametrize("name", ["default", "gpu"])
    def test_a_route_and_an_endpoint_of_one_name_are_refused(self, name: str) -> None:
        endpoints = {"default": {}, **ENDPOINTS}
        (problem,) = conf.problems(
            {"ENDPOINTS": endpoints, "ROUTES": {name: {"TARGETS": ["cloud"]}}}
        )

        assert problem.message == f'ROUTES["{name}"] has the name of an endpoint.'
        assert problem.hint == "Type another name for one of the two."


class TestStrategiesOfASite:
    def test_names_and_paths_become_functions(self) -> None:
        routes = {"a": {"TARGETS": ["default"]}, "b": with_path(f"{__name__}.in_turn")}

        found = Settings.build({"ROUTES": routes}).strategies()

        assert list(found) == ["a", "b"]
        assert found["a"] is STRATEGIES["failover"]
        assert found["b"].__name__ == "in_turn"

    def test_nothing_is_imported_before(self) -> None:
        built = Settings.build({"ROUTES": {"a": with_path("no.such.thing")}})

        assert built.names == ("a", "default")

    def test_what_cannot_be_used_is_one_error_that_says_what_to_type(self) -> None:
        paths = ["no_such_module.pick", f"{__name__}.missing", f"{__name__}.ENDPOINTS"]
        built = Settings.build({"ROUTES": {f"r{i}": with_path(p) for i, p in enumerate(paths)}})

        with pytest.raises(ImproperlyConfigured) as caught:
            built.strategies()

        text = str(caught.value)
        for i, path in enumerate(paths):
            assert f'ROUTES["r{i}"]["STRATEGY"] names "{path}", which' in text
        assert "which cannot be imported: No module named 'no_such_module'. Type" in text
        assert f'ENDPOINTS", which is no function. {EXAMPLE}' in text

    @pytest.mark.parametrize("name", ["in_turn", "in_turn_by_an_object"])
    def test_whatever_takes_two_arguments_may_be_one(self, name: str) -> None:
        assert callable(strategy_at(f"{__name__}.{name}"))

    def test_what_does_not_tell_its_arguments_is_tried(self) -> None:
        with pytest.raises(ValueError, match="no signature found"):
            inspect.signature(max)
        assert strategy_at("builtins.max").__name__ == "max"

    @pytest.mark.parametrize("name", ["later", "one_after_another", "later_by_an_object"])
    def test_an_async_function_is_none(self, name: str) -> None:
        with pytest.raises(InvalidError) as caught:
            strategy_at(f"{__name__}.{name}")

        assert caught.value.message.endswith(
            f'{name}", which is async, but nobody awaits a strategy'
        )
        assert caught.value.hint == EXAMPLE

    @pytest.mark.parametrize("name", ["alone", "with_a_third", "by_keyword", "WithoutArguments"])
    def test_nor_is_what_cannot_be_called_with_candidates_and_draw(self, name: str) -> None:
        with pytest.raises(InvalidError) as caught:
            strategy_at(f"{__name__}.{name}")

        assert "cannot be called with two arguments, the candidates and the" in str(caught.value)
        assert caught.value.hint == EXAMPLE


def with_path(path: str) -> dict[str, object]:
    return {"STRATEGY": path, "TARGETS": ["default"]}


def test_a_strategy_whose_module_is_broken_says_how(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "broken_strategies.py").write_text("raise KeyError('REGION')", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InvalidError, match="cannot be imported: KeyError: 'REGION'"):
        strategy_at("broken_strategies.nearest")
