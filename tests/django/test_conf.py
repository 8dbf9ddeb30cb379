"""Where the settings come from, what is refused as a whole, and when they are read again."""

import os
import subprocess
import sys
from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest
from django.conf import LazySettings
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from ollama_bridge import conf
from ollama_bridge.conf import Settings

CANARY = "canary-5f3a"

# What the Ollama server and its command line read themselves: envconfig/config.go (AsMap and the
# variables beside it), of the current release and of earlier ones that are still in the field.
SERVER_VARIABLES = {
    "OLLAMA_AUTH",
    "OLLAMA_CONTEXT_LENGTH",
    "OLLAMA_DEBUG",
    "OLLAMA_EDITOR",
    "OLLAMA_FLASH_ATTENTION",
    "OLLAMA_GPU_OVERHEAD",
    "OLLAMA_HOME",
    "OLLAMA_HOST",
    "OLLAMA_INTEL_GPU",
    "OLLAMA_KEEP_ALIVE",
    "OLLAMA_KV_CACHE_TYPE",
    "OLLAMA_LLM_LIBRARY",
    "OLLAMA_LOAD_TIMEOUT",
    "OLLAMA_MAX_LOADED_MODELS",
    "OLLAMA_MAX_QUEUE",
    "OLLAMA_MAX_VRAM",
    "OLLAMA_MODELS",
    "OLLAMA_MULTIUSER_CACHE",
    "OLLAMA_NEW_ENGINE",
    "OLLAMA_NEW_ESTIMATES",
    "OLLAMA_NOHISTORY",
    "OLLAMA_NOPRUNE",
    "OLLAMA_NO_CLOUD",
    "OLLAMA_NUM_PARALLEL",
    "OLLAMA_ORIGINS",
    "OLLAMA_REMOTES",
    "OLLAMA_RUNNERS_DIR",
    "OLLAMA_SCHED_SPREAD",
    "OLLAMA_TMPDIR",
    "OLLAMA_VULKAN",
}


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [each for each in os.environ if each.startswith("OLLAMA_")]:
        monkeypatch.delenv(variable)


def refusal(overrides: dict[str, object] | None = None) -> str:
    with pytest.raises(ImproperlyConfigured) as caught:
        Settings.build(overrides)
    return str(caught.value)


class TestTheTable:
    def test_without_any_setting_the_defaults_hold(self) -> None:
        assert Settings.build() == Settings()

    def test_every_default_obeys_its_own_rule(self) -> None:
        defaults = {each.name: getattr(Settings(), each.name) for each in fields(Settings)}

        assert Settings.build({**defaults, "ENDPOINTS": {}, "ROUTES": {}}) == Settings()

    def test_a_value_cannot_be_changed(self) -> None:
        for each in fields(Settings):
            with pytest.raises(FrozenInstanceError):
                setattr(Settings(), each.name, None)

    def test_a_dict_that_was_handed_over_can_change_without_harm(self) -> None:
        stop = ["\n"]
        options: dict[str, object] = {"stop": stop}
        settings = Settings.build({"OPTIONS": options})

        stop.append("x")
        options["seed"] = 1

        assert settings.OPTIONS == {"stop": ["\n"]}

    def test_settings_can_be_the_key_of_a_dict(self) -> None:
        assert {Settings.build({"OPTIONS": {"seed": 1}}): "found"}[
            Settings.build({"OPTIONS": {"seed": 1}})
        ] == "found"

    def test_the_repr_holds_no_secret(self) -> None:
        settings = Settings.build(
            {
                "API_KEY": CANARY,
                "HEADERS": {"X-Key": CANARY},
                "PROXY": f"http://me:{CANARY}@127.0.0.1:3128",
                "SYSTEM_PROMPT": CANARY,
            }
        )

        assert CANARY not in repr(settings)

    def test_names_shared_with_the_server_are_few_and_mean_the_same(self) -> None:
        ours = {variable for variables in conf.VARIABLES.values() for variable in variables}

        # OLLAMA_HOST: the server's address. OLLAMA_KEEP_ALIVE: how long a model stays in memory.
        assert ours & SERVER_VARIABLES == {"OLLAMA_HOST", "OLLAMA_KEEP_ALIVE"}

    def test_of_our_own_names_only_keep_alive_is_also_a_variable_of_the_server(self) -> None:
        own = {f"OLLAMA_{each.name}" for each in fields(Settings)}

        assert own & SERVER_VARIABLES == {"OLLAMA_KEEP_ALIVE"}


class TestTheOrder:
    def test_the_dict_wins_over_the_default(self, settings: LazySettings) -> None:
        settings.OLLAMA_BRIDGE = {"MODEL": "qwen3"}

        assert Settings.build().MODEL == "qwen3"

    def test_the_environment_wins_over_the_default(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OLLAMA_MAX_RETRIES", "7")

        assert Settings.build().MAX_RETRIES == 7

    def test_the_dict_wins_over_the_environment(
        self, settings: LazySettings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings.OLLAMA_BRIDGE = {"MODEL": "qwen3"}
        monkeypatch.setenv("OLLAMA_MODEL", "gemma3")

        assert Settings.build().MODEL == "qwen3"

    def test_overrides_win_over_the_dict(self, settings: LazySettings) -> None:
        settings.OLLAMA_BRIDGE = {"MODEL": "qwen3", "TIMEOUT": 30}

        built = Settings.build({"MODEL": "gemma3"})

        assert (built.MODEL, built.TIMEOUT) == ("gemma3", 30.0)

    def test_a_value_that_is_overridden_may_be_wrong(self, settings: LazySettings) -> None:
        settings.OLLAMA_BRIDGE = {"TIMEOUT": "soon"}

        assert Settings.build({"TIMEOUT": 30}).TIMEOUT == 30.0

    def test_none_in_the_dict_wins_over_the_environment(
        self, settings: LazySettings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings.OLLAMA_BRIDGE = {"API_KEY": None}
        monkeypatch.setenv("OLLAMA_API_KEY", CANARY)

        assert Settings.build().API_KEY is None

    @pytest.mark.parametrize("empty", ["", "  "])
    def test_an_empty_variable_counts_as_unset(
        self, monkeypatch: pytest.MonkeyPatch, empty: str
    ) -> None:
        monkeypatch.setenv("OLLAMA_TIMEOUT", empty)

        assert Settings.build().TIMEOUT == 60.0

    def test_an_alias_is_read_after_the_name_itself(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OLLAMA_DEFAULT_MODEL", "gemma3")
        with_alias = Settings.build().MODEL
        monkeypatch.setenv("OLLAMA_MODEL", "qwen3")

        assert (with_alias, Settings.build().MODEL) == ("gemma3", "qwen3")

    def test_ollama_host_is_read_after_our_own_variable(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OLLAMA_HOST", "gpu")
        with_host = Settings.build().BASE_URL
        monkeypatch.setenv("OLLAMA_BASE_URL", "https://ollama.example.com/")

        assert with_host == "http://gpu:11434"
        assert Settings.build().BASE_URL == "https://ollama.example.com"

    def test_lists_and_dicts_have_no_variable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OLLAMA_RETRY_STATUSES", "503")

        assert conf.VARIABLES["RETRY_STATUSES"] == ()
        assert Settings.build().RETRY_STATUSES == Settings().RETRY_STATUSES


class TestRefusals:
    def test_one_error_names_all_problems_with_their_remedies(self, settings: LazySettings) -> None:
        settings.OLLAMA_BRIDGE = {"TIMEOUT": -1, "MODLE": "qwen3", "POOL_MAXSIZE": "many"}

        text = refusal()

        assert "TIMEOUT must be a number above 0, at most 31536000, not -1." in text
        assert 'Type for example "TIMEOUT": 60.0.' in text
        assert 'MODLE is not a setting of ollama_bridge. Type "MODEL", if you mean that.' in text
        assert "POOL_MAXSIZE must be a whole number from 1, not 'many'." in text

    def test_the_variable_is_named_where_the_value_came_from_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OLLAMA_TIMEOUT", "60s")

        text = refusal()

        assert "TIMEOUT, from the environment (OLLAMA_TIMEOUT), must be a number" in text
        assert "Type for example OLLAMA_TIMEOUT=60.0." in text

    def test_an_example_of_text_is_shown_in_quotes(self) -> None:
        assert 'Type for example "MODEL": "llama3.2".' in refusal({"MODEL": ""})

    @pytest.mark.parametrize("key", ["timeout", "OLLAMA_TIMEOUT", "TIMEOUTS"])
    def test_an_unknown_name_is_answered_with_the_nearest(self, key: str) -> None:
        assert 'Type "TIMEOUT", if you mean that.' in refusal({key: 5})

    @pytest.mark.parametrize("key", ["COLOUR", 7])
    def test_a_name_that_is_near_to_none_is_to_be_removed(self, key: str | int) -> None:
        written: dict[Any, object] = {key: 1}

        (problem,) = conf.problems(written)

        assert (problem.name, problem.hint) == (str(key), "Remove it: it does nothing.")

    @pytest.mark.parametrize("name", ["USE_CASES", "DEFER_TTL", "AUTO_PULL"])
    def test_names_whose_row_is_not_built_are_unknown(self, name: str) -> None:
        assert [each.kind for each in conf.problems({name: None})] == ["unknown"]

    @pytest.mark.parametrize("written", [None, [], "MODEL=llama3.2"])
    def test_the_settings_must_be_a_dict(self, settings: LazySettings, written: object) -> None:
        settings.OLLAMA_BRIDGE = written

        (problem,) = conf.problems()

        assert problem.kind == "not_a_dict"
        assert problem.message == f"OLLAMA_BRIDGE must be a dict, not {type(written).__name__}."
        assert problem.hint == 'Type OLLAMA_BRIDGE = {"MODEL": "llama3.2"}.'

    @pytest.mark.parametrize(
        "overrides",
        [
            {"API_KEY": f"{CANARY}\n"},
            {"API_KEY": [CANARY]},
            {"API_KEY": CANARY, "BASE_URL": "http://gpu:11434"},
            {"BASE_URL": f"http://me:{CANARY}@gpu"},
            {"BASE_URL": f"ftp://me:{CANARY}@gpu"},
            {"BASE_URL": f"http://gpu:{CANARY}"},
            {"HEADERS": {"X-Key": f"{CANARY}\r\n"}},
            {"HEADERS": f"X-Key: {CANARY}"},
            {"PROXY": f"socks5://me:{CANARY}@proxy"},
            {"PROXY": [f"http://me:{CANARY}@proxy"]},
            {"SYSTEM_PROMPT": [CANARY]},
            {"OPTIONS": {"stop": {CANARY}}},
        ],
    )
    def test_no_message_shows_what_may_be_secret(self, overrides: dict[str, object]) -> None:
        assert CANARY not in refusal(overrides)

    @pytest.mark.parametrize("variable", ["OLLAMA_API_KEY", "OLLAMA_PROXY", "OLLAMA_BASE_URL"])
    def test_no_message_shows_a_secret_of_the_environment(
        self, monkeypatch: pytest.MonkeyPatch, variable: str
    ) -> None:
        monkeypatch.setenv(variable, f"${CANARY} \n")

        text = refusal()

        assert variable in text
        assert CANARY not in text


class TestValuesThatContradictEachOther:
    @pytest.mark.parametrize(
        ("low", "high"),
        [
            ("CONNECT_TIMEOUT", "TIMEOUT"),
            ("OPEN_SECONDS", "RECOVERY_TIMEOUT"),
            ("RETRY_INITIAL_DELAY", "RETRY_MAX_DELAY"),
        ],
    )
    def test_one_must_not_exceed_the_other(self, low: str, high: str) -> None:
        (problem,) = conf.problems({low: 3, high: 2})

        assert (problem.name, problem.kind) == (low, "invalid")
        assert problem.message == f"{low} must not exceed {high}: 3 is more than 2."
        assert problem.hint == f"Type at most 2 for {low}, or more for {high}."
        assert not conf.problems({low: 2, high: 2})

    def test_a_default_follows_a_lower_limit(self) -> None:
        built = Settings.build({"TIMEOUT": 3, "RECOVERY_TIMEOUT": 2, "RETRY_MAX_DELAY": 0})

        assert (built.CONNECT_TIMEOUT, built.OPEN_SECONDS, built.RETRY_INITIAL_DELAY) == (3, 2, 0)

    def test_a_default_is_no_reason_to_raise_a_limit(self) -> None:
        assert "CONNECT_TIMEOUT must not exceed TIMEOUT" in refusal({"CONNECT_TIMEOUT": 61})

    def test_the_variable_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OLLAMA_OPEN_SECONDS", "90")

        assert "from the environment (OLLAMA_OPEN_SECONDS), must not exceed" in refusal()

    def test_the_variable_of_an_exposed_key_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OLLAMA_HOST", "gpu")
        monkeypatch.setenv("OLLAMA_API_KEY", CANARY)

        assert "API_KEY, from the environment (OLLAMA_API_KEY), would travel" in refusal()

    def test_nothing_is_compared_with_a_value_that_is_wrong_in_itself(self) -> None:
        assert [each.name for each in conf.problems({"TIMEOUT": -1})] == ["TIMEOUT"]
        assert [each.name for each in conf.problems({"OPEN_SECONDS": -1})] == ["OPEN_SECONDS"]

    @pytest.mark.parametrize(
        "overrides",
        [
            {"BASE_URL": "http://gpu:11434"},
            {"BASE_URL": "http://0.0.0.0:11434"},
            {"BASE_URL": "http://127.0.0.1.example.com"},
            {"PROXY": "http://proxy:3128"},
        ],
    )
    def test_a_key_does_not_leave_this_machine_over_plain_http(
        self, overrides: dict[str, object]
    ) -> None:
        (problem,) = conf.problems({"API_KEY": CANARY, **overrides})

        assert (problem.name, problem.kind) == ("API_KEY", "exposed")
        assert "https://" in problem.hint

    @pytest.mark.parametrize(
        "overrides",
        [
            {},
            {"BASE_URL": "http://localhost:11434"},
            {"BASE_URL": "http://127.8.8.8"},
            {"BASE_URL": "http://[::1]:11434"},
            {"BASE_URL": "https://ollama.com"},
            {"BASE_URL": "https://ollama.com", "PROXY": "http://proxy:3128"},
            {"PROXY": "http://localhost:3128"},
            {"BASE_URL": "http://gpu:11434", "API_KEY": None},
        ],
    )
    def test_a_key_may_travel_encrypted_or_stay_here(self, overrides: dict[str, object]) -> None:
        assert not conf.problems({"API_KEY": CANARY, **overrides})


class TestTheCurrentSettings:
    def test_are_resolved_once(self) -> None:
        assert conf.current() is conf.current()

    def test_follow_override_settings(self) -> None:
        before = conf.current().MODEL
        with override_settings(OLLAMA_BRIDGE={"MODEL": "qwen3"}):
            within = conf.current().MODEL

        assert (before, within, conf.current().MODEL) == ("llama3.2", "qwen3", "llama3.2")

    def test_stay_when_another_setting_changes(self, settings: LazySettings) -> None:
        before = conf.current()

        settings.USE_TZ = False

        assert conf.current() is before

    def test_are_an_error_as_long_as_they_are_wrong(self, settings: LazySettings) -> None:
        settings.OLLAMA_BRIDGE = {"MODLE": "qwen3"}
        for _ in range(2):
            with pytest.raises(ImproperlyConfigured):
                conf.current()
        settings.OLLAMA_BRIDGE = {"MODEL": "qwen3"}

        assert conf.current().MODEL == "qwen3"


def test_importing_reads_no_setting_and_loads_no_http_library() -> None:
    code = (
        "import sys, ollama_bridge.conf as conf\n"
        "from django.conf import settings\n"
        "assert not settings.configured\n"
        "assert not {'requests', 'aiohttp', 'rest_framework'} & sys.modules.keys()\n"
        "settings.configure(OLLAMA_BRIDGE={'TIMEOUT': 30})\n"
        "print(conf.current().TIMEOUT)\n"
    )
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "", "OLLAMA_TIMEOUT": "wrong"}

    finished = subprocess.run(  # noqa: S603  # our own code
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )

    assert (finished.stdout, finished.stderr) == ("30.0\n", "")
