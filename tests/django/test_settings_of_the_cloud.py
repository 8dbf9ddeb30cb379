"""Two variables, a key and a model, suffice for the cloud with the own server behind it."""

import pytest
from django.conf import LazySettings

from ollama_bridge import conf
from ollama_bridge.conf import EndpointSettings, RouteSettings, Settings

KEY = "canary-5f3a"


@pytest.fixture(autouse=True)
def _two_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_API_KEY", KEY)
    monkeypatch.setenv("OLLAMA_CLOUD_MODEL", "gpt-oss:120b-cloud")


def test_they_make_two_endpoints_and_a_route() -> None:
    built = Settings.build()

    assert (list(built.ROUTES), list(built.ENDPOINTS)) == (["default"], ["cloud", "local"])
    assert built.names == ("default", "cloud", "local")
    assert built.ENDPOINTS["local"] == EndpointSettings()
    assert built.ENDPOINTS["cloud"] == EndpointSettings(
        BASE_URL="https://ollama.com", API_KEY=KEY, MODEL="gpt-oss:120b-cloud", TIMEOUT=30.0
    )
    assert built.ROUTES["default"] == RouteSettings(
        STRATEGY="failover", TARGETS=("cloud", "local"), WEIGHTS={"cloud": 1.0, "local": 1.0}
    )


def test_the_key_and_its_allowance_are_the_clouds_and_the_headers_are_not() -> None:
    built = Settings.build(
        {"HEADERS": {"X-Tenant": "school"}, "QUOTA_LIMIT": 500, "TIMEOUT": 30, "MODEL": "qwen3"}
    )
    cloud, local = built.ENDPOINTS["cloud"], built.ENDPOINTS["local"]

    assert (cloud.API_KEY, cloud.HEADERS, cloud.QUOTA_LIMIT) == (KEY, {}, 500)
    assert (local.API_KEY, local.HEADERS, local.QUOTA_LIMIT) == (
        None,
        {"X-Tenant": "school"},
        None,
    )
    assert (cloud.TIMEOUT, local.TIMEOUT, local.MODEL) == (15.0, 30.0, "qwen3")


def test_the_cloud_may_be_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_CLOUD_ENDPOINT", "https://cloud.example.com/")

    assert Settings.build().ENDPOINTS["cloud"].BASE_URL == "https://cloud.example.com"


def test_the_own_server_may_be_reached_over_plain_http() -> None:
    assert conf.problems({"BASE_URL": "http://gpu:11434"}) == []


def test_but_not_the_cloud() -> None:
    (problem,) = conf.problems({"CLOUD_ENDPOINT": "http://cloud.example.com"})

    assert (problem.name, problem.kind) == ("API_KEY", "exposed")
    assert "API_KEY, from the environment (OLLAMA_API_KEY), would travel" in problem.message
    assert "https:// address for CLOUD_ENDPOINT" in problem.hint


def test_a_wrong_address_of_the_cloud_is_told_once() -> None:
    (problem,) = conf.problems(
        {"CLOUD_ENDPOINT": "cloud.example.com", "BASE_URL": "http://gpu:11434"}
    )

    assert problem.name == "CLOUD_ENDPOINT"


def test_what_the_settings_name_themselves_stays(settings: LazySettings) -> None:
    settings.OLLAMA_BRIDGE = {
        "BASE_URL": "http://gpu:11434",
        "ENDPOINTS": {
            "cloud": {"BASE_URL": "https://proxy.example.com", "API_KEY": "other"},
            "local": {"MAX_CONCURRENCY": 2},
        },
        "ROUTES": {"default": {"STRATEGY": "weighted", "TARGETS": ["local", "cloud"]}},
    }
    built = Settings.build()

    assert built.ENDPOINTS["cloud"].API_KEY == "other"
    assert built.ENDPOINTS["local"].BASE_URL == "http://gpu:11434"
    assert built.ROUTES["default"].TARGETS == ("local", "cloud")


def test_an_endpoint_named_default_serves_in_place_of_the_route() -> None:
    built = Settings.build({"ENDPOINTS": {"default": {}}})

    assert built.ROUTES == {}
    assert list(built.ENDPOINTS) == ["cloud", "local", "default"]


def test_a_route_cannot_have_the_name_of_what_they_make() -> None:
    (problem,) = conf.problems({"ROUTES": {"local": {"TARGETS": ["cloud"]}}})

    assert problem.message == 'ROUTES["local"] has the name of an endpoint.'


def test_both_can_be_taken_back() -> None:
    for name in ("API_KEY", "CLOUD_MODEL"):
        nothing: dict[str, object] = {"API_KEY": None, "CLOUD_MODEL": None, name: None}
        assert Settings.build(nothing).names == ("default",)
    assert Settings.build({"CLOUD_MODEL": None}).ENDPOINTS["default"].API_KEY == KEY


def test_a_model_of_the_cloud_needs_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OLLAMA_API_KEY")

    (problem,) = conf.problems()

    assert problem.name == "CLOUD_MODEL"
    assert problem.message == (
        "CLOUD_MODEL, from the environment (OLLAMA_CLOUD_MODEL), needs an API_KEY."
    )
    assert "OLLAMA_API_KEY" in problem.hint
    assert "-cloud" in problem.hint


def test_a_wrong_key_is_told_once() -> None:
    assert [each.name for each in conf.problems({"API_KEY": "two words"})] == ["API_KEY"]
