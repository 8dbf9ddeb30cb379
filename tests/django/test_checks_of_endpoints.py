"""System checks of endpoints and routes, called as Django calls them."""

import os
from collections.abc import Sequence
from typing import Final

import pytest
from django.conf import LazySettings
from django.core.checks import CheckMessage, run_checks

from ollama_bridge import checks
from ollama_bridge.core.strategies import Candidate, Draw

GPU = {"BASE_URL": "http://10.0.0.5:11434"}


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [each for each in os.environ if each.startswith("OLLAMA_")]:
        monkeypatch.delenv(variable)


@pytest.fixture(autouse=True)
def _no_witness(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no other process be asked about the cache: that takes a second."""
    monkeypatch.setattr("ollama_bridge.witness.sees", lambda _: None)


def in_turn(candidates: Sequence[Candidate], draw: Draw) -> Sequence[Candidate]:
    """A strategy of a site's own."""
    return candidates[draw.turn :]


async def in_some_time(candidates: Sequence[Candidate], draw: Draw) -> Sequence[Candidate]:
    return in_turn(candidates, draw)


def by_itself(candidates: Sequence[Candidate]) -> Sequence[Candidate]:
    return candidates


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
        {"ROUTES": {"smart": {"TARGETS": ["default", "gpu"]}}},
        {"ROUTES": {"smart": {"TARGETS": ["gpu"]}}, "BASE_URL": "http://127.0.0.1:11434"},
    ],
)
def test_calls_that_name_no_endpoint_have_one(
    settings: LazySettings, more: dict[str, object]
) -> None:
    settings.OLLAMA_BRIDGE = {"MAX_CONCURRENCY": 1, "ENDPOINTS": {"gpu": GPU}, **more}
    assert found() == {}
    settings.OLLAMA_BRIDGE = {"MAX_CONCURRENCY": 1, "ENDPOINTS": {"gpu": GPU}}
    assert found()["W010"].hint == 'Type "ROUTES": {"default": {"TARGETS": ["gpu"]}}.'


class TestTheCloud:
    """W010, where a key and a model of the cloud say what serves by default."""

    @pytest.fixture(autouse=True)
    def _two_variables(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OLLAMA_API_KEY", "key")
        monkeypatch.setenv("OLLAMA_CLOUD_MODEL", "gpt-oss:120b")

    @pytest.mark.parametrize(
        "written",
        [
            {},
            {"ENDPOINTS": {"cloud": {"TIMEOUT": 20}, "local": GPU}},
            {"ENDPOINTS": {"gpu": GPU}, "ROUTES": {"careful": {"TARGETS": ["gpu"]}}},
            {"ENDPOINTS": {"gpu": GPU}, "ROUTES": {"default": {"TARGETS": ["gpu", "cloud"]}}},
            {"ENDPOINTS": {"default": GPU}, "ROUTES": {"careful": {"TARGETS": ["cloud"]}}},
        ],
    )
    def test_needs_no_word_where_a_route_leads_everywhere(
        self, settings: LazySettings, written: dict[str, object]
    ) -> None:
        settings.OLLAMA_BRIDGE = written

        assert found() == {}

    def test_is_never_asked_where_an_endpoint_serves_by_default(
        self, settings: LazySettings
    ) -> None:
        settings.OLLAMA_BRIDGE = {"ENDPOINTS": {"default": GPU}}

        message = found()["W010"]

        assert not message.is_serious()
        assert message.msg == (
            "CLOUD_MODEL, from the environment (OLLAMA_CLOUD_MODEL), is never asked by calls that "
            "name no endpoint: no route leads to the cloud."
        )
        assert message.hint == (
            'Type another name for ENDPOINTS["default"], such as "local", so that calls go to the '
            "cloud first and then there, or remove CLOUD_MODEL."
        )
        settings.OLLAMA_BRIDGE = {"ENDPOINTS": {"local": GPU}}
        assert found() == {}

    def test_is_never_asked_where_the_default_route_leaves_it_out(
        self, settings: LazySettings
    ) -> None:
        settings.OLLAMA_BRIDGE = {"ROUTES": {"default": {"TARGETS": ["local"]}}}

        assert found()["W010"].hint == (
            'Type "cloud" in the TARGETS of ROUTES["default"], or remove CLOUD_MODEL.'
        )

    def test_hides_no_endpoint_that_no_route_leads_to(self, settings: LazySettings) -> None:
        settings.OLLAMA_BRIDGE = {
            "ENDPOINTS": {"gpu": GPU, "cpu": GPU, "old": GPU},
            "ROUTES": {"careful": {"TARGETS": ["cpu"]}},
        }

        message = found()["W010"]

        assert message.msg == "Calls that name no endpoint go to cloud and local, not to gpu, old."
        assert message.hint == (
            'Type "ROUTES": {"default": {"TARGETS": ["cloud", "local", "gpu", "old"]}}.'
        )


class TestSettingsWithoutEffect:
    """W011."""

    ONLY_GPU: Final = {
        "ENDPOINTS": {"gpu": GPU},
        "ROUTES": {"default": {"TARGETS": ["gpu"]}},
    }

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("API_KEY", "canary-5f3a"),
            ("HEADERS", {"X-Tenant": "canary-5f3a"}),
            ("BASE_URL", "http://canary-5f3a"),
        ],
    )
    def test_what_no_endpoint_takes_from_the_top_level_is_a_warning(
        self, settings: LazySettings, name: str, value: object
    ) -> None:
        settings.OLLAMA_BRIDGE = {name: value, **self.ONLY_GPU}

        message = found()["W011"]

        assert list(found()) == ["W011"]
        assert not message.is_serious()
        assert message.msg == f"{name} has no effect: no endpoint takes it from the top level."
        assert message.hint == (
            f'Type "{name}" in the endpoint that it is for, such as ENDPOINTS["gpu"], or remove it.'
        )

    def test_a_key_of_the_environment_is_named_with_its_variable(
        self, settings: LazySettings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OLLAMA_API_KEY", "canary-5f3a")
        settings.OLLAMA_BRIDGE = self.ONLY_GPU

        assert "API_KEY, from the environment (OLLAMA_API_KEY), has no" in found()["W011"].msg

    def test_an_address_of_the_environment_may_be_for_other_programs(
        self, settings: LazySettings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OLLAMA_HOST", "0.0.0.0")  # noqa: S104  # nobody listens there
        settings.OLLAMA_BRIDGE = self.ONLY_GPU

        assert found() == {}

    def test_what_an_endpoint_has_too_is_in_use(self, settings: LazySettings) -> None:
        gpu = {"BASE_URL": "https://gpu", "API_KEY": "key", "HEADERS": {"X-Tenant": "school"}}
        settings.OLLAMA_BRIDGE = {**gpu, **self.ONLY_GPU, "ENDPOINTS": {"gpu": gpu}}

        assert found() == {}

    def test_what_the_endpoint_of_the_top_level_takes_is_in_use(
        self, settings: LazySettings
    ) -> None:
        settings.OLLAMA_BRIDGE = {
            "BASE_URL": "https://gpu",
            "API_KEY": "key",
            "HEADERS": {"X-Tenant": "school"},
            "ENDPOINTS": {"gpu": GPU},
            "ROUTES": {"default": {"TARGETS": ["default", "gpu"]}},
        }

        assert found() == {}

    def test_a_key_that_makes_the_cloud_is_in_use_though_the_cloud_has_its_own(
        self, settings: LazySettings
    ) -> None:
        cloud = {"BASE_URL": "https://cloud.example.com", "API_KEY": "other"}
        settings.OLLAMA_BRIDGE = {
            "API_KEY": "key",
            "CLOUD_MODEL": "gpt-oss:120b",
            "ENDPOINTS": {"cloud": cloud},
        }

        assert found() == {}

    def test_an_address_of_the_cloud_without_its_model_is_a_warning(
        self, settings: LazySettings
    ) -> None:
        settings.OLLAMA_BRIDGE = {"CLOUD_ENDPOINT": "https://ollama.com"}

        message = found()["W011"]

        assert message.msg == "CLOUD_ENDPOINT has no effect without CLOUD_MODEL."
        assert message.hint == (
            'Type "CLOUD_MODEL": "gpt-oss:120b", with an API_KEY, or remove it.'
        )

    @pytest.mark.parametrize(
        "more",
        [
            {"CLOUD_MODEL": "gpt-oss:120b", "API_KEY": "key"},
            {"BASE_URL": "https://cloud.example.com"},
        ],
    )
    def test_it_has_one_with_its_model_or_at_an_endpoint(
        self, settings: LazySettings, more: dict[str, object]
    ) -> None:
        settings.OLLAMA_BRIDGE = {"CLOUD_ENDPOINT": "https://cloud.example.com", **more}

        assert found() == {}

    def test_where_something_is_wrong_nothing_is_said_to_have_no_effect(
        self, settings: LazySettings
    ) -> None:
        settings.OLLAMA_BRIDGE = {"API_KEY": "key", "TIMEOUT": "soon", **self.ONLY_GPU}

        assert list(found()) == ["E002"]


def test_a_header_with_credentials_over_plain_http_has_the_number_of_a_key(
    settings: LazySettings,
) -> None:
    gpu = {**GPU, "HEADERS": {"Authorization": "canary-5f3a"}}
    settings.OLLAMA_BRIDGE = {"ENDPOINTS": {"gpu": gpu}}

    assert list(found()) == ["E003"]
    assert "canary-5f3a" not in str(found()["E003"])


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
    assert message.hint == "Type for example: def nearest(candidates, draw): return candidates"


def test_a_strategy_that_nobody_can_call_is_an_error(settings: LazySettings) -> None:
    for name, complaint in (
        ("in_some_time", "is async, but nobody awaits a strategy"),
        ("by_itself", "cannot be called with two arguments, the candidates and the draw"),
    ):
        route = {"TARGETS": ["default"], "STRATEGY": f"{__name__}.{name}"}
        settings.OLLAMA_BRIDGE = {"ROUTES": {"ab": route}}

        assert found()["E007"].msg == (
            f'ROUTES["ab"]["STRATEGY"] names "{__name__}.{name}", which {complaint}.'
        )


def test_a_strategy_that_breaks_its_rule_is_told_once(settings: LazySettings) -> None:
    settings.OLLAMA_BRIDGE = {"ROUTES": {"ab": {"TARGETS": ["default"], "STRATEGY": 5}}}

    assert list(found()) == ["E002"]
