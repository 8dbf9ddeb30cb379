"""What ENDPOINTS may hold, what an endpoint takes from the top level, and what is refused."""

from dataclasses import fields
from typing import Any

import pytest
from django.conf import LazySettings
from django.core.exceptions import ImproperlyConfigured

from ollama_bridge import conf
from ollama_bridge.conf import EndpointSettings, Settings

CANARY = "canary-5f3a"
URL = "http://10.0.0.5:11434"
TWO = {"ROUTES": {"default": {"TARGETS": ["gpu", "gpu/qwen3"]}}}
OF_THE_TOP_LEVEL_ALONE = sorted(
    {each.name for each in fields(Settings)} - {each.name for each in fields(EndpointSettings)}
)


def gpu(top: dict[str, object] | None = None, /, **written: object) -> EndpointSettings:
    """Return what becomes of the endpoint ``gpu`` in these settings."""
    endpoints = {"gpu": {"BASE_URL": URL, **written}}
    return Settings.build({**(top or {}), "ENDPOINTS": endpoints}).ENDPOINTS["gpu"]


def refused(top: dict[str, object] | None = None, /, **written: object) -> conf.Problem:
    """Return the one problem of the endpoint ``gpu`` in these settings."""
    endpoints = {"gpu": {"BASE_URL": URL, **written}}
    (problem,) = conf.problems({**(top or {}), "ENDPOINTS": endpoints})
    return problem


class TestTheEndpointOfTheTopLevel:
    def test_is_there_without_any_setting(self) -> None:
        built = Settings.build()

        assert built.ENDPOINTS["default"] == Settings().ENDPOINTS["default"] == EndpointSettings()
        assert built.names == Settings().names == ("default",)

    def test_has_what_the_top_level_says_from_wherever(
        self, settings: LazySettings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings.OLLAMA_BRIDGE = {"MODEL": "qwen3", "HEADERS": {"X-Tenant": "school"}}
        monkeypatch.setenv("OLLAMA_HOST", "https://gpu")
        monkeypatch.setenv("OLLAMA_API_KEY", "key")

        found = Settings.build({"TIMEOUT": 3}).ENDPOINTS["default"]

        assert found == EndpointSettings(
            BASE_URL="https://gpu:443",
            MODEL="qwen3",
            API_KEY="key",
            HEADERS={"X-Tenant": "school"},
            TIMEOUT=3.0,
            CONNECT_TIMEOUT=3.0,
        )

    def test_is_the_first_beside_others(self) -> None:
        built = Settings.build({"ENDPOINTS": {"gpu": {"BASE_URL": URL}}})

        assert built.names == ("default", "gpu")
        assert built.ENDPOINTS["default"] == EndpointSettings()

    def test_gives_way_to_one_of_its_name(self) -> None:
        built = Settings.build({"MODEL": "qwen3", "ENDPOINTS": {"default": {"BASE_URL": URL}}})

        assert built.names == ("default",)
        assert built.ENDPOINTS["default"] == EndpointSettings(BASE_URL=URL, MODEL="qwen3")


class TestWhatAnEndpointTakesFromTheTopLevel:
    def test_it_takes_what_it_leaves_out(self) -> None:
        found = gpu({"MODEL": "qwen3", "TIMEOUT": 30, "MAX_RETRIES": 5}, TIMEOUT=90)

        assert (found.MODEL, found.TIMEOUT, found.MAX_RETRIES) == ("qwen3", 90.0, 5)

    def test_it_takes_values_of_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OLLAMA_DEFAULT_MODEL", "qwen3")
        monkeypatch.setenv("OLLAMA_MAX_RETRIES", "7")

        assert (gpu().MODEL, gpu().MAX_RETRIES) == ("qwen3", 7)
        assert (gpu(MODEL="gemma3").MODEL, gpu(MAX_RETRIES=1).MAX_RETRIES) == ("gemma3", 1)

    def test_it_may_switch_off_what_the_top_level_limits(self) -> None:
        top: dict[str, object] = {"MAX_CONCURRENCY": 4, "FIRST_TOKEN_TIMEOUT": 20}
        found = gpu(top, MAX_CONCURRENCY=None)

        assert (found.MAX_CONCURRENCY, found.FIRST_TOKEN_TIMEOUT) == (None, 20.0)

    def test_it_takes_no_key_no_headers_and_no_address(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OLLAMA_API_KEY", CANARY)
        monkeypatch.setenv("OLLAMA_BASE_URL", "https://ollama.example.com")

        found = gpu({"HEADERS": {"X-Key": CANARY}})

        assert (found.BASE_URL, found.API_KEY, found.HEADERS) == (URL, None, {})

    @pytest.mark.parametrize("name", ["default", "local"])
    def test_these_two_mean_the_server_of_the_top_level(
        self, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        monkeypatch.setenv("OLLAMA_HOST", "gpu")

        found = Settings.build({"ENDPOINTS": {name: {"MAX_CONCURRENCY": 2}}}).ENDPOINTS[name]

        assert (found.BASE_URL, found.MAX_CONCURRENCY) == ("http://gpu:11434", 2)
        assert conf.problems({"ENDPOINTS": {name: {"BASE_URL": URL}}}) == []

    @pytest.mark.parametrize(
        ("name", "example"), [("gpu", "http://10.0.0.5:11434"), ("cloud", "https://ollama.com")]
    )
    def test_any_other_needs_an_address(self, name: str, example: str) -> None:
        (problem,) = conf.problems({"ENDPOINTS": {name: {}}})

        assert problem.message == f'ENDPOINTS["{name}"] has no BASE_URL.'
        assert problem.hint == f'Type for example "BASE_URL": "{example}".'

    def test_a_wrong_value_of_the_top_level_is_told_once(self) -> None:
        top: dict[str, object] = {"TIMEOUT": "soon", "BASE_URL": "gpu", "MODEL": ""}
        endpoints = {"local": {"CONNECT_TIMEOUT": 70}, "gpu": {"BASE_URL": URL}}

        found = conf.problems({**top, "ENDPOINTS": endpoints})

        assert sorted(each.name for each in found) == ["BASE_URL", "MODEL", "TIMEOUT"]


class TestValuesOfAnEndpoint:
    def test_its_own_settings_have_defaults(self) -> None:
        assert (gpu().WEIGHT, gpu().MODELS, gpu().PRICES) == (1.0, {}, {})

    def test_weights_names_and_prices_are_kept(self) -> None:
        prices = {"gpt-oss:120b": {"prompt": 1, "completion": 0}}
        found = gpu(WEIGHT=0.5, MODELS={"llama3.2": "llama3.2:70b"}, PRICES=prices)

        assert found.WEIGHT == 0.5
        assert found.MODELS == {"llama3.2": "llama3.2:70b"}
        assert found.PRICES == {"gpt-oss:120b": {"prompt": 1.0, "completion": 0.0}}

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            (
                "TIMEOUT",
                "soon",
                "[\"TIMEOUT\"] must be a number above 0, at most 31536000, not 'soon'",
            ),
            ("API_KEY", 5, '["API_KEY"] must be text, not int'),
            ("BASE_URL", "gpu", '["BASE_URL"] must begin with http:// or https://'),
            ("WEIGHT", 0, '["WEIGHT"] must be a number above 0, at most 31536000, not 0'),
            ("WEIGHT", True, '["WEIGHT"] must be a number above 0, at most 31536000, not True'),
            ("QUOTA_LIMIT", 0, '["QUOTA_LIMIT"] must be a whole number from 1, not 0'),
            ("MODELS", ["a"], '["MODELS"] must be a dict, not list'),
            (
                "MODELS",
                {"": "a"},
                "[\"MODELS\"] has a key that must be a name without spaces, not ''",
            ),
            ("MODELS", {"a": 5}, '["MODELS"]["a"] must be a name without spaces, not 5'),
            ("PRICES", 1.5, '["PRICES"] must be a dict, not float'),
            ("PRICES", {"a": 1.5}, '["PRICES"]["a"] must be a dict, not float'),
            ("PRICES", {"a": {"prompt": 1}}, '["PRICES"]["a"] must have "prompt" and "completion"'),
            (
                "PRICES",
                {"a": {"prompt": 1, "completion": -1}},
                '["PRICES"]["a"]["completion"] must be a number from 0, at most 31536000, not -1',
            ),
            (
                "PRICES",
                {"a": {"input": 1}},
                '["PRICES"]["a"] has a key that must be "prompt" or "completion", not \'input\'',
            ),
        ],
    )
    def test_a_wrong_one_is_told_with_its_place(
        self, name: str, value: object, message: str
    ) -> None:
        problem = refused(**{name: value})

        assert problem.name == f'ENDPOINTS["gpu"]["{name}"]'
        assert problem.message == f'ENDPOINTS["gpu"]{message}.'
        assert problem.hint.startswith("Type ")

    def test_prices_have_an_example_to_copy(self) -> None:
        hint = 'Type for example {"prompt": 0.5, "completion": 1.5}.'

        assert refused(PRICES={"a": {}}).hint == refused(PRICES={"a": {"prompt": "x"}}).hint == hint

    def test_they_can_no_longer_be_changed(self) -> None:
        models = {"a": "b"}
        built = Settings.build({"ENDPOINTS": {"gpu": {"BASE_URL": URL, "MODELS": models}}})
        models["c"] = "d"

        assert built.ENDPOINTS["gpu"].MODELS == {"a": "b"}
        frozen: Any
        for frozen in (built.ENDPOINTS, built.ROUTES, built.ENDPOINTS["gpu"].MODELS):
            with pytest.raises(TypeError):
                frozen["a"] = "c"


class TestNames:
    @pytest.mark.parametrize("name", ["gpu", "gpu-2", "my_gpu", "7"])
    def test_letters_digits_and_dashes_make_a_name(self, name: str) -> None:
        assert name in Settings.build({"ENDPOINTS": {name: {"BASE_URL": URL}}}).names

    @pytest.mark.parametrize("name", ["", "GPU", "a/b", "a b", "gpü", "gpu\n", 7, None])
    def test_all_else_is_refused(self, name: object) -> None:
        (problem,) = conf.problems({"ENDPOINTS": {name: {"BASE_URL": URL}}})

        assert problem.message == (
            'ENDPOINTS has a key that must be a name of lower-case letters, digits, "_" and "-", '
            f"not {name!r}."
        )
        assert problem.hint == 'Type for example {"gpu": {"BASE_URL": "http://10.0.0.5:11434"}}.'

    @pytest.mark.parametrize(("value", "type_"), [(None, "NoneType"), ([], "list"), ("x", "str")])
    def test_endpoints_are_a_dict_of_dicts(self, value: object, type_: str) -> None:
        (whole,) = conf.problems({"ENDPOINTS": value})
        (one,) = conf.problems({"ENDPOINTS": {"gpu": value}})

        assert whole.message == f"ENDPOINTS must be a dict, not {type_}."
        assert one.message == f'ENDPOINTS["gpu"] must be a dict, not {type_}.'
        assert one.hint == 'Type for example {"BASE_URL": "http://10.0.0.5:11434"}.'

    @pytest.mark.parametrize("name", OF_THE_TOP_LEVEL_ALONE)
    def test_what_the_process_has_once_is_no_setting_of_an_endpoint(self, name: str) -> None:
        problem = refused(**{name: None})

        assert problem.kind == "unknown"
        assert problem.message == f'ENDPOINTS["gpu"]["{name}"] is a setting of the top level.'
        assert problem.hint == f'Type "{name}" in the dict above it, or remove it.'

    @pytest.mark.parametrize("key", ["timeout", "OLLAMA_TIMEOUT", "TIMEOUTS"])
    def test_a_misspelt_one_is_answered_with_the_nearest(self, key: str) -> None:
        problem = refused(**{key: 5})

        assert problem.kind == "unknown"
        assert problem.message == f'ENDPOINTS["gpu"]["{key}"] is not a setting of ollama_bridge.'
        assert problem.hint == 'Type "TIMEOUT", if you mean that.'

    @pytest.mark.parametrize("name", ["WEIGHT", "MODELS", "PRICES"])
    def test_what_endpoints_alone_have_is_unknown_at_the_top(self, name: str) -> None:
        (problem,) = conf.problems({name: {}})

        assert problem.message == f"{name} is a setting of an endpoint."
        assert problem.hint.startswith('Type it in ENDPOINTS["gpu"]')
        assert problem.kind == "unknown"

    def test_models_are_perhaps_the_model(self) -> None:
        (problem,) = conf.problems({"MODELS": {}})

        assert problem.hint == 'Type it in ENDPOINTS["gpu"], or "MODEL", if you mean that.'

    @pytest.mark.parametrize("name", ["STRATEGY", "TARGETS", "AFFINITY"])
    def test_what_routes_alone_have_is_typed_there(self, name: str) -> None:
        problem = refused(**{name: None})

        assert problem.message == f'ENDPOINTS["gpu"]["{name}"] is a setting of a route.'
        assert problem.hint == 'Type it in ROUTES["default"].'


class TestValuesThatContradictEachOther:
    def test_one_must_not_exceed_the_other(self) -> None:
        problem = refused(CONNECT_TIMEOUT=9, TIMEOUT=8)

        assert problem.name == 'ENDPOINTS["gpu"]["CONNECT_TIMEOUT"]'
        assert problem.message == (
            'ENDPOINTS["gpu"]["CONNECT_TIMEOUT"] must not exceed TIMEOUT: 9 is more than 8.'
        )
        assert problem.hint == "Type at most 8 for CONNECT_TIMEOUT, or more for TIMEOUT."

    def test_nor_that_of_the_top_level(self) -> None:
        assert "9 is more than 8" in refused({"RETRY_MAX_DELAY": 8}, RETRY_INITIAL_DELAY=9).message

    @pytest.mark.parametrize("top", [{}, {"CONNECT_TIMEOUT": 9}])
    def test_what_it_did_not_say_itself_follows_a_lower_limit(self, top: dict[str, object]) -> None:
        assert gpu(top, TIMEOUT=3).CONNECT_TIMEOUT == 3.0

    def test_a_limit_of_the_top_level_lowers_no_default_of_an_endpoint_with_more_time(self) -> None:
        assert gpu({"TIMEOUT": 3}).CONNECT_TIMEOUT == 3.0
        assert gpu({"TIMEOUT": 3}, TIMEOUT=90).CONNECT_TIMEOUT == 5.0

    def test_a_contradiction_of_the_top_level_is_told_once(self) -> None:
        (problem,) = conf.problems(
            {"OPEN_SECONDS": 9, "RECOVERY_TIMEOUT": 8, "ENDPOINTS": {"gpu": {"BASE_URL": URL}}}
        )

        assert problem.name == "OPEN_SECONDS"


class TestKeys:
    @pytest.mark.parametrize(
        "written",
        [{"BASE_URL": "http://gpu"}, {"BASE_URL": "http://127.0.0.1", "PROXY": "http://proxy"}],
    )
    def test_a_key_does_not_leave_this_machine_over_plain_http(
        self, written: dict[str, object]
    ) -> None:
        problem = refused(API_KEY=CANARY, **written)

        assert (problem.name, problem.kind) == ('ENDPOINTS["gpu"]["API_KEY"]', "exposed")
        assert problem.message == (
            'ENDPOINTS["gpu"]["API_KEY"] would travel over plain http to another machine.'
        )
        assert "https:// address for BASE_URL" in problem.hint

    def test_the_way_may_be_that_of_the_top_level(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OLLAMA_HOST", "gpu")
        (problem,) = conf.problems({"ENDPOINTS": {"local": {"API_KEY": CANARY}}})

        assert problem.name == 'ENDPOINTS["local"]["API_KEY"]'

    def test_a_key_of_the_top_level_may_stay_where_no_endpoint_has_it(self) -> None:
        top = {"API_KEY": CANARY, "BASE_URL": "http://gpu"}

        assert conf.problems({**top, "ENDPOINTS": {"default": {"BASE_URL": URL}}}) == []
        assert [each.name for each in conf.problems(top)] == ["API_KEY"]

    @pytest.mark.parametrize(
        "header", ["Authorization", "authorization", "Proxy-Authorization", "X-API-Key", "COOKIE"]
    )
    @pytest.mark.parametrize(
        "written",
        [{"BASE_URL": "http://gpu"}, {"BASE_URL": "http://127.0.0.1", "PROXY": "http://proxy"}],
    )
    def test_nor_does_a_header_with_credentials(
        self, header: str, written: dict[str, object]
    ) -> None:
        problem = refused(HEADERS={"X-Tenant": "school", header: CANARY}, **written)

        assert (problem.name, problem.kind) == ('ENDPOINTS["gpu"]["HEADERS"]', "exposed")
        assert problem.message == (
            f'ENDPOINTS["gpu"]["HEADERS"]["{header}"] would travel over plain http to another '
            "machine."
        )
        assert problem.hint == (
            "Type an https:// address for BASE_URL, or use a tunnel on 127.0.0.1, or no "
            f'HEADERS["{header}"].'
        )

    def test_each_of_them_is_told(self) -> None:
        headers = {"Cookie": CANARY, "X-API-Key": CANARY}
        found = conf.problems({"BASE_URL": URL, "API_KEY": CANARY, "HEADERS": headers})

        assert [each.message.partition(" ")[0] for each in found] == [
            "API_KEY",
            'HEADERS["Cookie"]',
            'HEADERS["X-API-Key"]',
        ]

    @pytest.mark.parametrize(
        "written",
        [
            {"BASE_URL": "http://127.0.0.1:11434"},
            {"BASE_URL": "http://localhost", "PROXY": "http://[::1]:3128"},
            {"BASE_URL": "https://gpu"},
            {"BASE_URL": "https://gpu", "PROXY": "http://proxy"},
        ],
    )
    def test_it_may_travel_encrypted_or_stay_here(self, written: dict[str, object]) -> None:
        headers = {"Authorization": f"Basic {CANARY}"}

        assert headers == gpu(HEADERS=headers, **written).HEADERS

    def test_other_headers_may_go_anywhere(self) -> None:
        assert gpu(HEADERS={"X-Tenant": "school"}).HEADERS == {"X-Tenant": "school"}

    def test_no_secret_is_in_a_repr(self) -> None:
        secrets = {
            "API_KEY": CANARY,
            "HEADERS": {"X-Key": CANARY},
            "PROXY": f"http://me:{CANARY}@127.0.0.1:3128",
        }
        top = {**secrets, "CLOUD_MODEL": "gpt-oss:120b"}
        overrides = {**top, "ENDPOINTS": {"gpu": {"BASE_URL": "https://gpu", **secrets}}}

        built = Settings.build(overrides)

        assert built.ENDPOINTS["gpu"].API_KEY == built.ENDPOINTS["cloud"].API_KEY == CANARY
        assert CANARY not in repr(built)
        assert CANARY not in repr(conf.examine(overrides))

    @pytest.mark.parametrize(
        "written",
        [
            {"API_KEY": f"{CANARY}\n"},
            {"API_KEY": CANARY, "BASE_URL": "http://gpu:11434"},
            {"BASE_URL": f"http://me:{CANARY}@gpu"},
            {"HEADERS": {"X-Key": f"{CANARY}\r\n"}},
            {"HEADERS": {"Authorization": f"Bearer {CANARY}"}},
            {"PROXY": f"socks5://me:{CANARY}@proxy"},
        ],
    )
    def test_no_message_shows_what_may_be_secret(self, written: dict[str, object]) -> None:
        with pytest.raises(ImproperlyConfigured) as caught:
            gpu(**written)

        assert 'ENDPOINTS["gpu"]' in str(caught.value)
        assert CANARY not in str(caught.value)
