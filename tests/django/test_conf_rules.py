"""What each setting may hold, written in Python and in the environment."""

import ast
import math
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import trustme
from django.core.exceptions import ImproperlyConfigured

from ollama_bridge import conf
from ollama_bridge.conf import Settings

SECONDS = [
    "TIMEOUT",
    "CONNECT_TIMEOUT",
    "CHUNK_TIMEOUT",
    "RETRY_INITIAL_DELAY",
    "RETRY_MAX_DELAY",
    "RETRY_DELAY",
    "OPEN_SECONDS",
    "RECOVERY_TIMEOUT",
    "COOLDOWN_SECONDS",
    "HEALTH_CACHE_SECONDS",
    "SSE_COMMIT_AFTER",
]
MAY_BE_ZERO = {
    "RETRY_INITIAL_DELAY",
    "RETRY_MAX_DELAY",
    "RETRY_DELAY",
    "HEALTH_CACHE_SECONDS",
    "MAX_RETRIES",
    "RETRIES_BEFORE_FAILOVER",
    "MAX_HISTORY",
}
MAY_BE_NONE = [
    "FIRST_TOKEN_TIMEOUT",
    "MAX_CHUNKS",
    "MAX_CONCURRENCY",
    "MAX_CALLS_PER_USER",
    "QUOTA_LIMIT",
]
WHOLE = [each.name for each in fields(Settings) if each.type is int]
TEXTS = [
    "BASE_URL",
    "MODEL",
    "SYSTEM_PROMPT",
    "API_KEY",
    "PROXY",
    "THROTTLE_RATE",
    "CLOUD_MODEL",
    "CLOUD_ENDPOINT",
]
LISTS = [
    "RETRY_STATUSES",
    "PERMISSION_CLASSES",
    "CLIENT_MAY_SET",
    "CLIENT_OPTIONS",
    "ALLOWED_MODELS",
]


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [each for each in os.environ if each.startswith("OLLAMA_")]:
        monkeypatch.delenv(variable)


def kept(name: str, value: object) -> Any:
    """Return what the setting makes of the value."""
    return getattr(Settings.build({name: value}), name)


def refused(name: str, value: object) -> conf.Problem:
    """Return the one problem that the value has."""
    (problem,) = conf.problems({name: value})
    assert problem.name == name
    assert problem.kind == "invalid"
    assert problem.message.startswith(name)
    assert problem.hint.startswith(("Type ", "Copy ", "Remove "))
    return problem


class Environment:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch

    def kept(self, name: str, text: str) -> Any:
        self.monkeypatch.setenv(f"OLLAMA_{name}", text)
        return getattr(Settings.build(), name)

    def refused(self, name: str, text: str) -> conf.Problem:
        self.monkeypatch.setenv(f"OLLAMA_{name}", text)
        (problem,) = conf.problems()
        assert f"(OLLAMA_{name})" in problem.message
        return problem


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Environment:
    return Environment(monkeypatch)


class TestNumbers:
    def test_seconds_become_floats(self) -> None:
        assert isinstance(kept("TIMEOUT", 30), float)

    @pytest.mark.parametrize("name", [*SECONDS, "RETRY_BACKOFF_FACTOR"])
    @pytest.mark.parametrize(
        "value", [-1, True, None, "5", math.nan, math.inf, -math.inf, 10**400, 31_536_001]
    )
    def test_what_is_no_sensible_number_is_refused(self, name: str, value: object) -> None:
        refused(name, value)

    @pytest.mark.parametrize("name", [*SECONDS, *WHOLE])
    def test_zero_is_allowed_where_it_makes_sense(self, name: str) -> None:
        if name in MAY_BE_ZERO:
            assert kept(name, 0) == 0
        else:
            refused(name, 0)

    def test_waits_never_shrink(self) -> None:
        assert kept("RETRY_BACKOFF_FACTOR", 1) == 1.0
        assert "must be a number from 1" in refused("RETRY_BACKOFF_FACTOR", 0.9).message

    @pytest.mark.parametrize("share", [0.01, 1, 1.0])
    def test_a_share_is_more_than_nothing_and_at_most_all(self, share: float) -> None:
        assert kept("QUOTA_WARNING_THRESHOLD", share) == share

    @pytest.mark.parametrize("share", [0, -0.5, 1.01, 80, True, "0.8", None, math.nan])
    def test_what_is_no_share_is_refused(self, share: object) -> None:
        problem = refused("QUOTA_WARNING_THRESHOLD", share)

        assert "must be a number above 0, at most 1, not" in problem.message
        assert problem.hint == 'Type for example "QUOTA_WARNING_THRESHOLD": 0.8.'

    @pytest.mark.parametrize("name", WHOLE)
    @pytest.mark.parametrize("value", [-1, True, None, "5", 5.0, math.nan])
    def test_what_is_no_whole_number_is_refused(self, name: str, value: object) -> None:
        assert "must be a whole number from" in refused(name, value).message

    @pytest.mark.parametrize(("text", "value"), [("7", 7.0), (" 7.5 ", 7.5), ("1e1", 10.0)])
    def test_numbers_are_read_from_the_environment(
        self, environment: Environment, text: str, value: float
    ) -> None:
        assert environment.kept("TIMEOUT", text) == value

    @pytest.mark.parametrize("text", ["60s", "1,5", "nan", "inf", "1 minute", "-1", "0"])
    def test_what_is_no_number_in_the_environment_is_refused(
        self, environment: Environment, text: str
    ) -> None:
        environment.refused("TIMEOUT", text)

    def test_whole_numbers_are_read_from_the_environment(self, environment: Environment) -> None:
        assert environment.kept("MAX_RETRIES", "7") == 7
        assert "not '7.5'" in environment.refused("MAX_RETRIES", "7.5").message

    @pytest.mark.parametrize("name", MAY_BE_NONE)
    def test_a_limit_may_be_switched_off_by_none_and_by_nothing_else(
        self, environment: Environment, name: str
    ) -> None:
        assert kept(name, None) is None
        assert environment.kept(name, "none") is None
        assert environment.kept(name, "7") == 7
        for wrong in (0, -1, True, "7", math.nan):
            assert "must be a" in refused(name, wrong).message
        assert f"(OLLAMA_{name})" in environment.refused(name, "off").message


class TestSwitches:
    @pytest.mark.parametrize("value", [0, 1, "true", None])
    def test_only_true_and_false_are_booleans(self, value: object) -> None:
        assert "must be True or False" in refused("CIRCUIT_BREAKER", value).message

    @pytest.mark.parametrize("name", ["CIRCUIT_BREAKER", "VERIFY_SSL"])
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            *[(word, True) for word in ("1", "true", "True", "YES", "on", " y ", "ok")],
            *[(word, False) for word in ("0", "false", "False", "NO", "off", " n ")],
        ],
    )
    def test_the_usual_words_are_read_from_the_environment(
        self, environment: Environment, name: str, text: str, value: object
    ) -> None:
        assert environment.kept(name, text) is value

    @pytest.mark.parametrize("name", ["CIRCUIT_BREAKER", "VERIFY_SSL"])
    @pytest.mark.parametrize("text", ["treu", "2", "none"])
    def test_a_misspelt_word_is_no_silent_false(
        self, environment: Environment, name: str, text: str
    ) -> None:
        environment.refused(name, text)


class TestVerification:
    def test_the_path_of_a_ca_file_or_folder_is_kept_as_text(self, tmp_path: Path) -> None:
        ca = tmp_path / "ca.pem"
        trustme.CA().cert_pem.write_to_path(str(ca))

        assert kept("VERIFY_SSL", ca) == str(ca)
        assert kept("VERIFY_SSL", str(ca)) == str(ca)
        assert kept("VERIFY_SSL", tmp_path) == str(tmp_path)

    def test_the_path_may_come_from_the_environment(
        self, environment: Environment, tmp_path: Path
    ) -> None:
        assert environment.kept("VERIFY_SSL", str(tmp_path)) == str(tmp_path)

    def test_a_file_without_certificates_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "ca.pem").write_text("this is no certificate")

        assert "a file with CA certificates" in refused("VERIFY_SSL", tmp_path / "ca.pem").message

    @pytest.mark.parametrize("value", ["missing.pem", "", "x" * 5000, "nul\0", 0, 1, None])
    def test_all_else_is_refused(self, value: object) -> None:
        problem = refused("VERIFY_SSL", value)

        assert "must be True, False or the path of a file with CA certificates" in problem.message


class TestChoices:
    @pytest.mark.parametrize(
        ("name", "options"),
        [("RETRY_BACKOFF", ["exponential", "fixed"]), ("RETRY_JITTER", ["full", "none"])],
    )
    def test_only_the_known_words_are_taken(
        self, environment: Environment, name: str, options: list[str]
    ) -> None:
        for option in options:
            assert kept(name, option) == option
            assert environment.kept(name, option) == option
        for wrong in ("linear", options[0].upper(), "", None, True):
            expected = f'must be "{options[0]}" or "{options[1]}"'
            assert expected in conf.problems({name: wrong})[0].message


class TestTexts:
    @pytest.mark.parametrize("name", TEXTS)
    @pytest.mark.parametrize("value", [5, b"bytes", ["list"], True])
    def test_what_is_no_text_is_refused(self, name: str, value: object) -> None:
        refused(name, value)

    @pytest.mark.parametrize("name", ["MODEL", "API_KEY", "PROXY", "BASE_URL", "THROTTLE_RATE"])
    @pytest.mark.parametrize("value", ["", " ", "two words", "line\n", "nul\0"])
    def test_only_a_prompt_may_be_empty_or_hold_blanks(self, name: str, value: str) -> None:
        refused(name, value)
        assert kept("SYSTEM_PROMPT", value) == value

    def test_a_key_is_visible_ascii_because_headers_are(self) -> None:
        assert kept("API_KEY", "sk-1_2.3~/+=$") == "sk-1_2.3~/+=$"
        refused("API_KEY", "schlüssel")

    def test_a_value_that_begins_with_a_dollar_sign_is_taken_as_it_is(
        self, environment: Environment
    ) -> None:
        assert environment.kept("API_KEY", "$ecret") == "$ecret"
        assert environment.kept("MODEL", "$OLLAMA_MODEL") == "$OLLAMA_MODEL"

    @pytest.mark.parametrize("name", ["API_KEY", "PROXY", "KEEP_ALIVE", "THROTTLE_RATE"])
    def test_none_is_a_value_of_these_and_a_word_in_the_environment(
        self, environment: Environment, name: str
    ) -> None:
        assert kept(name, None) is None
        assert environment.kept(name, "none") is None

    @pytest.mark.parametrize("rate", ["60/min", "1/s", "5/second", "1000/days", "10/h", "2/m"])
    def test_rates_are_those_of_rest_framework(self, rate: str) -> None:
        assert kept("THROTTLE_RATE", rate) == rate

    @pytest.mark.parametrize("rate", ["60", "60/month", "0/min", "min", "-1/min", "1.5/min", "1/"])
    def test_other_rates_are_refused(self, rate: str) -> None:
        refused("THROTTLE_RATE", rate)

    @pytest.mark.parametrize("name", ["-cloud", ":cloud", ":CLOUD"])
    def test_a_model_of_the_cloud_is_more_than_its_suffix(
        self, environment: Environment, name: str
    ) -> None:
        problem = refused("CLOUD_MODEL", name)

        assert problem.message == (f"CLOUD_MODEL must have a name before the suffix, not {name!r}.")
        assert problem.hint == 'Type for example "CLOUD_MODEL": "gpt-oss:120b".'
        assert environment.refused("CLOUD_MODEL", name).hint == (
            "Type for example OLLAMA_CLOUD_MODEL=gpt-oss:120b."
        )


class TestExamples:
    @pytest.mark.parametrize("name", [each.name for each in fields(Settings)])
    def test_nobody_who_typed_a_wrong_value_is_told_to_type_none(
        self, environment: Environment, name: str
    ) -> None:
        typed = refused(name, object()).hint

        assert ": None" not in typed
        if conf.VARIABLES[name] and name not in {"MODEL", "SYSTEM_PROMPT"}:
            assert "=None" not in environment.refused(name, "two words").hint

    @pytest.mark.parametrize(
        ("name", "example"),
        [
            ("FIRST_TOKEN_TIMEOUT", "20.0"),
            ("MAX_CHUNKS", "2000"),
            ("MAX_CONCURRENCY", "4"),
            ("MAX_WAITING", "20"),
            ("QUOTA_LIMIT", "1000"),
            ("CLOUD_MODEL", '"gpt-oss:120b"'),
        ],
    )
    def test_an_example_of_what_is_none_by_default_can_be_copied(
        self, name: str, example: str
    ) -> None:
        assert refused(name, object()).hint == f'Type for example "{name}": {example}.'
        assert conf.problems({name: ast.literal_eval(example), "API_KEY": "key"}) == []


class TestKeepAlive:
    @pytest.mark.parametrize(
        "value",
        ["5m", "1h30m", "300s", "1.5h", "-1m", "0", "+5m", ".5s", "1.s", "10ms", "1us", "1µs", 0],
    )
    def test_what_the_server_takes_is_kept(self, value: str | int) -> None:
        assert kept("KEEP_ALIVE", value) == value

    @pytest.mark.parametrize("value", [-1, 300, 300.0, 2.5])
    def test_numbers_are_seconds(self, value: float) -> None:
        assert kept("KEEP_ALIVE", value) == value

    @pytest.mark.parametrize("value", ["1d", "5 m", "m", ".s", "", "for ever", "٣m", "5m\n"])
    def test_what_the_server_refuses_is_refused_here(self, value: str) -> None:
        assert "must be a duration with a unit" in refused("KEEP_ALIVE", value).message

    @pytest.mark.parametrize("value", [True, math.nan, math.inf, ["5m"]])
    def test_what_is_no_duration_at_all_is_refused(self, value: object) -> None:
        assert '"1h30m"' in refused("KEEP_ALIVE", value).hint

    @pytest.mark.parametrize("value", ["10", "-1", "1.5"])
    def test_a_number_in_quotes_lacks_its_unit(self, value: str) -> None:
        assert refused("KEEP_ALIVE", value).hint == f'Type "{value}s" for seconds.'

    @pytest.mark.parametrize(
        ("text", "value"),
        [("300", 300), ("-1", -1), ("0", 0), ("5m", "5m"), ('"5m"', "5m"), (" '300' ", 300)],
    )
    def test_in_the_environment_it_means_what_it_means_to_the_server(
        self, environment: Environment, text: str, value: object
    ) -> None:
        assert environment.kept("KEEP_ALIVE", text) == value

    def test_a_fraction_without_unit_is_none_to_the_server_either(
        self, environment: Environment
    ) -> None:
        assert environment.refused("KEEP_ALIVE", "1.5").hint == 'Type "1.5s" for seconds.'


class TestListsAndDicts:
    @pytest.mark.parametrize("name", LISTS)
    @pytest.mark.parametrize("value", ["temperature", {"temperature": 1}, 503])
    def test_a_single_value_is_no_list(self, name: str, value: object) -> None:
        assert "must be a list" in refused(name, value).message

    def test_lists_can_no_longer_be_changed(self) -> None:
        assert kept("CLIENT_OPTIONS", ["seed", "stop"]) == ("seed", "stop")
        assert kept("RETRY_STATUSES", (503, 503, 429)) == frozenset({429, 503})
        assert kept("ALLOWED_MODELS", {"qwen3"}) == ("qwen3",)

    @pytest.mark.parametrize("name", LISTS)
    def test_lists_may_be_empty(self, name: str) -> None:
        assert len(kept(name, [])) == 0

    def test_only_models_may_be_unlimited(self) -> None:
        assert kept("ALLOWED_MODELS", None) is None
        refused("CLIENT_OPTIONS", None)

    @pytest.mark.parametrize("status", [399, 600, "503", True, 503.0, None])
    def test_statuses_report_errors(self, status: object) -> None:
        assert "numbers from 400 to 599" in refused("RETRY_STATUSES", [status]).message

    @pytest.mark.parametrize("name", sorted(set(LISTS) - {"RETRY_STATUSES"}))
    @pytest.mark.parametrize("item", ["", "two words", 5, None])
    def test_lists_of_names_hold_names_only(self, name: str, item: object) -> None:
        assert "must hold names only" in refused(name, [item]).message

    def test_a_client_may_set_only_what_is_known(self) -> None:
        known = ["model", "system_prompt", "options", "history_system"]

        assert kept("CLIENT_MAY_SET", known) == tuple(known)
        assert refused("CLIENT_MAY_SET", ["think"]).message == (
            "CLIENT_MAY_SET must not hold 'think'."
        )

    @pytest.mark.parametrize("path", ["IsAuthenticated", "a..b", "1a.b", ".a", "a-b.c"])
    def test_permission_classes_are_dotted_paths(self, path: str) -> None:
        refused("PERMISSION_CLASSES", [path])

    @pytest.mark.parametrize(
        "value", [None, [], {5: 1}, {"stop": {1}}, {"seed": math.nan}, {"x": object()}]
    )
    def test_options_are_a_dict_that_json_can_hold(self, value: object) -> None:
        refused("OPTIONS", value)

    def test_a_dict_can_no_longer_be_changed(self) -> None:
        for name in ("OPTIONS", "HEADERS"):
            with pytest.raises(TypeError):
                kept(name, {"a": "b"})["a"] = "c"

    @pytest.mark.parametrize("value", ["", "a", "a b\tc", "W/x"])
    def test_headers_are_text(self, value: str) -> None:
        assert kept("HEADERS", {"X-Tenant": value}) == {"X-Tenant": value}

    @pytest.mark.parametrize(
        "headers",
        [
            None,
            [("X-Tenant", "a")],
            {"X-Tenant": 5},
            {5: "a"},
            {"": "a"},
            {"X Tenant": "a"},
            {"X-Tenant:": "a"},
            {"X-Tenant\r\n": "a"},
            {"X-Tenant": "a\r\nX-Other: b"},
            {"X-Tenant": "a\n"},
            {"X-Tenant": " a"},
            {"X-Tenant": "ä"},
            {"content-length": "1"},
            {"Transfer-Encoding": "chunked"},
        ],
    )
    def test_what_could_break_a_request_apart_is_refused(self, headers: object) -> None:
        refused("HEADERS", headers)


def test_settings_that_are_wrong_in_several_ways_are_still_one_error() -> None:
    wrong = dict.fromkeys((each.name for each in fields(Settings)), object())

    with pytest.raises(ImproperlyConfigured) as caught:
        Settings.build(wrong)

    assert str(caught.value).count("\n- ") == len(fields(Settings))
