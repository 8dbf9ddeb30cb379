"""System checks of endpoints and routes, called as Django calls them."""

from collections.abc import Sequence

import pytest
from django.conf import LazySettings
from django.core.checks import CheckMessage, run_checks

from ollama_bridge import checks
from ollama_bridge.core.strategies import Candidate, Draw

GPU = {"BASE_URL": "http://10.0.0.5:11434"}


@pytest.fixture(autouse=True)
def _no_witness(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no other process be asked about the cache: that takes a second."""
    monkeypatch.setattr("ollama_bridge.witness.sees", lambda _: None)


def in_turn(candidates: Sequence[Candidate], draw: Draw) -> Sequence[Candidate]:
    """A strategy of a site's own."""
    return candidates[draw.turn :]


def found(*, deploy: bool = False) -> dict[str, CheckMessage]:
    """Run the app's checks; messages by id."""
    messages = run_checks(tags=[checks.TAG], include_deployment_checks=deploy)
    return {str(message.id).removeprefix("ollama_bridge."): message for message in messages}


def test_what_concerns_single_endpoints_names_them(settings: LazySettings) -> None:
    settings.OLLAMA_BRIDGE = {
        "MAX_CONCURRENCY": 1,
        "ENDPOINTS": {
            "gpu": {**GPU, "VERIFY_SSL": False},
            "cpu": {**GPU, "VERIFY_SSL": False, "MAX_CONCURRENCY": None, "MAX_WAITING": 5},
        },
    }

    messages = {name: message.msg for name, message in found(deploy=True).items()}

    assert messages == {
        "W001": "VERIFY_SSL is False for the endpoints gpu, cpu: anybody on the way can pose as "
        "the server and read the key.",
        "W005": "MAX_CONCURRENCY is not set for the endpoint cpu: calls that the server cannot "
        "answer yet wait there, unseen, until they time out.",
        "W006": "MAX_WAITING has no effect without MAX_CONCURRENCY for the endpoint cpu.",
        "W010": "Calls that name no endpoint go to BASE_URL, not to gpu, cpu.",
    }


@pytest.mark.parametrize(
    "more",
    [
        {"ROUTES": {"default": {"TARGETS": ["gpu"]}}},
        {"ENDPOINTS": {"gpu": GPU, "default": GPU}},
        {"ENDPOINTS": {}},
    ],
)
def test_calls_that_name_no_endpoint_have_one(
    settings: LazySettings, more: dict[str, object]
) -> None:
    settings.OLLAMA_BRIDGE = {"MAX_CONCURRENCY": 1, "ENDPOINTS": {"gpu": GPU}, **more}
    assert found() == {}
    settings.OLLAMA_BRIDGE = {"MAX_CONCURRENCY": 1, "ENDPOINTS": {"gpu": GPU}}
    assert found()["W010"].hint == 'Type "ROUTES": {"default": {"TARGETS": ["gpu"]}}.'


def test_the_server_of_the_top_level_is_not_blamed_for_what_no_endpoint_takes_from_it(
    settings: LazySettings,
) -> None:
    settings.OLLAMA_BRIDGE = {
        "VERIFY_SSL": False,
        "ENDPOINTS": {"default": {"VERIFY_SSL": True, "MAX_CONCURRENCY": 1}},
    }

    assert found(deploy=True) == {}


def test_a_wrong_value_is_not_blamed_for_what_it_might_be(settings: LazySettings) -> None:
    settings.OLLAMA_BRIDGE = {"MAX_CONCURRENCY": "many", "MAX_WAITING": 5, "VERIFY_SSL": "no"}

    assert list(found(deploy=True)) == ["E002"]


def test_what_is_wrong_with_an_endpoint_has_the_same_numbers(settings: LazySettings) -> None:
    for written, number in (
        ({"TIMEOUTS": 5}, "E001"),
        ({"CACHE": "default"}, "E001"),
        ({"TIMEOUT": "soon"}, "E002"),
        ({"API_KEY": "key"}, "E003"),
    ):
        settings.OLLAMA_BRIDGE = {"ENDPOINTS": {"gpu": {**GPU, **written}}}

        assert list(found()) == [number]
        assert 'ENDPOINTS["gpu"]' in found()[number].msg


def test_a_strategy_of_the_site_is_imported_by_the_check(settings: LazySettings) -> None:
    route = {"TARGETS": ["default"]}
    settings.OLLAMA_BRIDGE = {
        "ROUTES": {"a": {**route, "STRATEGY": f"{__name__}.in_turn"}, "b": route}
    }
    assert found() == {}
    settings.OLLAMA_BRIDGE = {"ROUTES": {"ab": {**route, "STRATEGY": f"{__name__}.GPU"}}}

    message = found()["E007"]

    assert message.is_serious()
    assert message.msg == (
        f'ROUTES["ab"]["STRATEGY"] names "{__name__}.GPU", which is no function.'
    )
    assert message.hint == 'Type "failover", or the dotted path of a function.'


def test_a_strategy_that_breaks_its_rule_is_told_once(settings: LazySettings) -> None:
    settings.OLLAMA_BRIDGE = {"ROUTES": {"ab": {"TARGETS": ["default"], "STRATEGY": 5}}}

    assert list(found()) == ["E002"]
