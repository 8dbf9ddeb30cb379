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


class TestACloudThatIsWritten:
    def test_takes_what_it_leaves_out_as_if_it_were_not(self) -> None:
        built = Settings.build({"ENDPOINTS": {"cloud": {"MAX_RETRIES": 1}}, "QUOTA_LIMIT": 500})

        assert built.ENDPOINTS["cloud"] == EndpointSettings(
            BASE_URL="https://ollama.com",
            API_KEY=KEY,
            MODEL="gpt-oss:120b-cloud",
            TIMEOUT=30.0,
            QUOTA_LIMIT=500,
            MAX_RETRIES=1,
        )
        assert built.ROUTES["default"].TARGETS == ("cloud", "local")

    def test_keeps_key_and_model_beside_an_address_of_the_same_server(self) -> None:
        cloud = {"BASE_URL": "https://ollama.com:443/", "TIMEOUT": 20}
        found = Settings.build({"ENDPOINTS": {"cloud": cloud}}).ENDPOINTS["cloud"]

        assert (found.API_KEY, found.MODEL, found.TIMEOUT) == (KEY, "gpt-oss:120b-cloud", 20.0)

    def test_may_have_a_model_of_its_own(self) -> None:
        found = Settings.build({"ENDPOINTS": {"cloud": {"MODEL": "glm-4.6"}}}).ENDPOINTS["cloud"]

        assert (found.API_KEY, found.MODEL) == (KEY, "glm-4.6")

    def test_takes_no_headers_of_the_other_server(self) -> None:
        written = {"HEADERS": {"X-Tenant": "school"}, "ENDPOINTS": {"cloud": {}}}

        assert Settings.build(written).ENDPOINTS["cloud"].HEADERS == {}

    @pytest.mark.parametrize(
        "url", ["https://cloud.example.com", "https://ollama.com:8443", "http://127.0.0.1:11434"]
    )
    def test_has_no_key_of_the_top_level_at_another_server(self, url: str) -> None:
        written = {"ENDPOINTS": {"cloud": {"BASE_URL": url}}}
        (problem,) = conf.problems(written)

        assert (problem.name, problem.kind) == ('ENDPOINTS["cloud"]["API_KEY"]', "invalid")
        assert problem.message == (
            'ENDPOINTS["cloud"]["BASE_URL"] is another server than CLOUD_ENDPOINT, and API_KEY, '
            "from the environment (OLLAMA_API_KEY), does not go there."
        )
        assert problem.hint == (
            'Type the key of that server, or None, as "API_KEY" in ENDPOINTS["cloud"]. If it is '
            "that of the top level, type the address as CLOUD_ENDPOINT, and no BASE_URL."
        )
        assert conf.examine(written).values["ENDPOINTS"]["cloud"]["API_KEY"] is None

    @pytest.mark.parametrize("key", ["other", None])
    def test_may_say_itself_which_key_goes_to_another_server(self, key: str | None) -> None:
        cloud = {"BASE_URL": "https://cloud.example.com", "API_KEY": key}
        found = Settings.build({"ENDPOINTS": {"cloud": cloud}}).ENDPOINTS["cloud"]

        assert key == found.API_KEY
        assert found.MODEL == "gpt-oss:120b-cloud"

    def test_does_not_send_its_key_over_plain_http_either(self) -> None:
        (problem,) = conf.problems(
            {"CLOUD_ENDPOINT": "http://cloud.example.com", "ENDPOINTS": {"cloud": {}}}
        )

        assert (problem.kind, "address for CLOUD_ENDPOINT" in problem.hint) == ("exposed", True)

    @pytest.mark.parametrize(
        ("written", "name"),
        [
            ({"BASE_URL": "cloud"}, 'ENDPOINTS["cloud"]["BASE_URL"]'),
            ({"API_KEY": 5}, 'ENDPOINTS["cloud"]["API_KEY"]'),
            ({"BASE_URL": "https://cloud.example.com", "API_KEY": 5}, "API_KEY"),
            ({"TIMEOUT": "soon"}, 'ENDPOINTS["cloud"]["TIMEOUT"]'),
        ],
    )
    def test_is_told_once_what_is_wrong_with_it(
        self, written: dict[str, object], name: str
    ) -> None:
        (problem,) = conf.problems({"ENDPOINTS": {"cloud": written}})

        assert name in problem.name

    @pytest.mark.parametrize("cloud", [{}, {"BASE_URL": "https://cloud.example.com"}])
    def test_a_wrong_address_of_the_top_level_is_told_once(self, cloud: dict[str, object]) -> None:
        (problem,) = conf.problems({"CLOUD_ENDPOINT": "x", "ENDPOINTS": {"cloud": cloud}})

        assert problem.name == "CLOUD_ENDPOINT"

    def test_is_an_endpoint_like_any_other_without_a_model_of_the_cloud(self) -> None:
        (problem,) = conf.problems({"CLOUD_MODEL": None, "ENDPOINTS": {"cloud": {}}})
        cloud = {"BASE_URL": "https://ollama.com"}
        found = Settings.build({"CLOUD_MODEL": None, "ENDPOINTS": {"cloud": cloud}})

        assert problem.message == 'ENDPOINTS["cloud"] has no BASE_URL.'
        assert found.ENDPOINTS["cloud"].API_KEY is None


def test_the_allowance_of_the_cloud_is_not_that_of_a_local_server_that_is_written() -> None:
    written = {"QUOTA_LIMIT": 500, "ENDPOINTS": {"local": {"MAX_CONCURRENCY": 2}}}

    assert Settings.build(written).ENDPOINTS["local"].QUOTA_LIMIT is None
    assert Settings.build({**written, "CLOUD_MODEL": None}).ENDPOINTS["local"].QUOTA_LIMIT == 500


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
