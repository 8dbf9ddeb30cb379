"""System checks, called as Django calls them."""

import os
from typing import Any

import pytest
from django.apps import apps
from django.conf import LazySettings
from django.core import checks as django_checks
from django.core.checks import CheckMessage
from django.utils.decorators import sync_and_async_middleware, sync_only_middleware
from rest_framework.permissions import IsAdminUser, IsAuthenticated

from ollama_bridge import checks

EITHER = IsAdminUser | IsAuthenticated
ALLOW_ANY = "rest_framework.permissions.AllowAny"


class LooksLikeAPermission:
    def has_permission(self) -> bool:
        return True


class SyncOnly:
    """Middleware as it was written before there was ASGI."""


class ForBoth:
    async_capable = True


def undecorated(get_response: Any) -> Any:
    return get_response


@sync_only_middleware
def said_to_be_sync(get_response: Any) -> Any:
    return get_response


@sync_and_async_middleware
def for_both(get_response: Any) -> Any:
    return get_response


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [each for each in os.environ if each.startswith("OLLAMA_")]:
        monkeypatch.delenv(variable)


@pytest.fixture(autouse=True)
def _no_witness(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no other process be asked about the cache: that takes a second."""
    monkeypatch.setattr("ollama_bridge.witness.sees", lambda _: None)


def found(*, deploy: bool = False) -> dict[str, CheckMessage]:
    """Run the app's checks as ``manage.py check --tag ollama_bridge`` does; messages by id."""
    messages = django_checks.run_checks(tags=[checks.TAG], include_deployment_checks=deploy)
    return {str(message.id).removeprefix("ollama_bridge."): message for message in messages}


def test_the_defaults_pass_and_production_is_told_of_the_one_number_that_nobody_else_knows() -> (
    None
):
    assert found() == {}
    assert list(found(deploy=True)) == ["W005"]


def test_the_app_has_a_name_for_people() -> None:
    assert apps.get_app_config("ollama_bridge").verbose_name == "Ollama bridge"


def test_an_unknown_setting_is_an_error_with_the_nearest_name(settings: LazySettings) -> None:
    settings.OLLAMA_BRIDGE = {"MODLE": "qwen3"}

    message = found()["E001"]

    assert message.is_serious()
    assert message.msg == "MODLE is not a setting of ollama_bridge."
    assert message.hint == 'Type "MODEL", if you mean that.'


@pytest.mark.parametrize("value", [{"MODEL": ""}, {"TIMEOUT": "soon"}, {"CONNECT_TIMEOUT": 90}])
def test_an_invalid_value_is_an_error(settings: LazySettings, value: object) -> None:
    settings.OLLAMA_BRIDGE = value

    assert list(found()) == ["E002"]
    assert found()["E002"].is_serious()


def test_a_bad_variable_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "::1")

    assert "OLLAMA_HOST" in found()["E002"].msg


def test_a_key_over_plain_http_is_an_error_that_does_not_show_it(settings: LazySettings) -> None:
    settings.OLLAMA_BRIDGE = {"BASE_URL": "http://gpu:11434", "API_KEY": "canary-5f3a"}

    message = found()["E003"]

    assert message.is_serious()
    assert "canary-5f3a" not in str(message)


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("rest_framework.permissions.IsAuthentic", "cannot be imported"),
        ("no_such_module.IsAuthenticated", "cannot be imported"),
        ("rest_framework.throttling.UserRateThrottle", "is not a permission class"),
        ("rest_framework.permissions.SAFE_METHODS", "is not a permission class"),
    ],
)
def test_a_permission_class_that_is_none_is_an_error(
    settings: LazySettings, path: str, complaint: str
) -> None:
    settings.OLLAMA_BRIDGE = {"PERMISSION_CLASSES": [ALLOW_ANY, path]}

    message = found()["E004"]

    assert message.is_serious()
    assert message.msg == f'PERMISSION_CLASSES: "{path}" {complaint}.'
    assert message.hint == 'Type for example ["rest_framework.permissions.IsAuthenticated"].'


@pytest.mark.parametrize("name", ["EITHER", "LooksLikeAPermission"])
def test_a_permission_class_may_be_composed_and_need_not_inherit(
    settings: LazySettings, name: str
) -> None:
    settings.OLLAMA_BRIDGE = {"PERMISSION_CLASSES": [f"{__name__}.{name}"]}

    assert found() == {}


def test_settings_that_are_no_dict_are_an_error(settings: LazySettings) -> None:
    settings.OLLAMA_BRIDGE = ["MODEL"]

    assert list(found()) == ["E005"]
    assert found()["E005"].is_serious()


def test_unverified_certificates_are_a_warning(settings: LazySettings) -> None:
    settings.OLLAMA_BRIDGE = {"VERIFY_SSL": False}

    message = found()["W001"]

    assert not message.is_serious()
    assert "CA file" in str(message.hint)


@pytest.mark.parametrize("permissions", [[ALLOW_ANY], []])
def test_an_open_chat_without_throttle_is_a_warning_for_production_only(
    settings: LazySettings, permissions: list[str]
) -> None:
    settings.OLLAMA_BRIDGE = {"PERMISSION_CLASSES": permissions, "THROTTLE_RATE": None}

    assert found() == {}
    assert sorted(found(deploy=True)) == ["W003", "W005"]


@pytest.mark.parametrize(
    "values", [{"PERMISSION_CLASSES": [ALLOW_ANY]}, {"THROTTLE_RATE": None}, {}]
)
def test_a_throttle_or_a_permission_is_enough(
    settings: LazySettings, values: dict[str, object]
) -> None:
    settings.OLLAMA_BRIDGE = {"MAX_CONCURRENCY": 1, **values}

    assert found(deploy=True) == {}


def test_calls_without_a_limit_are_a_warning_for_production_only(settings: LazySettings) -> None:
    settings.OLLAMA_BRIDGE = {}
    assert found() == {}
    assert "OLLAMA_NUM_PARALLEL" in str(found(deploy=True)["W005"].hint)
    settings.OLLAMA_BRIDGE = {"MAX_CONCURRENCY": 4}
    assert found(deploy=True) == {}


def test_a_bounded_queue_without_a_limit_is_a_warning(settings: LazySettings) -> None:
    settings.OLLAMA_BRIDGE = {"MAX_WAITING": 5}
    assert list(found()) == ["W006"]
    settings.OLLAMA_BRIDGE = {"MAX_WAITING": 5, "MAX_CONCURRENCY": 2}
    assert found() == {}


@pytest.mark.parametrize("name", ["SyncOnly", "undecorated", "said_to_be_sync"])
def test_sync_only_middleware_is_a_warning_for_production_only(
    settings: LazySettings, name: str
) -> None:
    settings.OLLAMA_BRIDGE = {"MAX_CONCURRENCY": 1}
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, f"{__name__}.{name}", f"{__name__}.ForBoth"]

    message = found(deploy=True)["W007"]

    assert found() == {}
    assert not message.is_serious()
    assert message.msg == (
        f"Sync-only middleware forces a thread for each waiting call under ASGI: {__name__}.{name}."
    )
    assert 'SILENCED_SYSTEM_CHECKS = ["ollama_bridge.W007"]' in str(message.hint)


def test_all_sync_only_middleware_is_named_in_one_warning(settings: LazySettings) -> None:
    settings.MIDDLEWARE = [f"{__name__}.SyncOnly", f"{__name__}.undecorated"]

    assert f"{__name__}.SyncOnly, {__name__}.undecorated." in found(deploy=True)["W007"].msg


@pytest.mark.parametrize("path", [f"{__name__}.for_both", f"{__name__}.ForBoth", "no.such.thing"])
def test_middleware_that_can_both_or_is_missing_is_none_of_our_business(
    settings: LazySettings, path: str
) -> None:
    settings.OLLAMA_BRIDGE = {"MAX_CONCURRENCY": 1}
    settings.MIDDLEWARE = [path]

    assert found(deploy=True) == {}


def test_asgi_without_aiohttp_is_a_warning_for_production_only(
    settings: LazySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.OLLAMA_BRIDGE = {"MAX_CONCURRENCY": 1}
    settings.ASGI_APPLICATION = "site.asgi.application"
    assert found(deploy=True) == {}
    monkeypatch.setattr(checks, "find_spec", lambda _name: None)

    message = found(deploy=True)["W008"]

    assert found() == {}
    assert not message.is_serious()
    assert message.hint == 'Type pip install "django-ollama-bridge[async]".'


def test_wsgi_needs_no_aiohttp(settings: LazySettings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.OLLAMA_BRIDGE = {"MAX_CONCURRENCY": 1}
    monkeypatch.setattr(checks, "find_spec", lambda _name: None)

    assert found(deploy=True) == {}


def test_without_rest_framework_there_is_a_warning(settings: LazySettings) -> None:
    settings.INSTALLED_APPS = ["ollama_bridge"]

    message = found()["W004"]

    assert not message.is_serious()
    assert message.hint == 'Type "rest_framework" in INSTALLED_APPS.'


def test_one_wrong_setting_does_not_hide_another(settings: LazySettings) -> None:
    settings.OLLAMA_BRIDGE = {
        "MODLE": "qwen3",
        "TIMEOUT": -1,
        "BASE_URL": "http://gpu:11434",
        "API_KEY": "key",
        "PERMISSION_CLASSES": ["no.such"],
        "VERIFY_SSL": False,
    }

    assert set(found()) == {"E001", "E002", "E003", "E004", "W001"}


def test_what_concerns_security_is_tagged_so(settings: LazySettings) -> None:
    settings.OLLAMA_BRIDGE = {"BASE_URL": "http://gpu:11434", "API_KEY": "k", "VERIFY_SSL": False}

    messages = django_checks.run_checks(tags=[django_checks.Tags.security])

    assert {message.id for message in messages} == {"ollama_bridge.E003", "ollama_bridge.W001"}


def test_a_cache_that_does_not_exist_is_an_error_that_names_those_that_do(
    settings: LazySettings,
) -> None:
    settings.OLLAMA_BRIDGE = {"CACHE": "redis"}

    message = found()["E006"]

    assert message.msg == 'CACHE names "redis", which is not in CACHES.'
    assert message.hint == 'Type one of "default", or None to share nothing between processes.'


@pytest.mark.parametrize(("seen", "ids"), [(False, ["W009"]), (True, []), (None, [])])
def test_a_cache_that_other_processes_do_not_see_is_a_warning_for_production_only(
    settings: LazySettings, monkeypatch: pytest.MonkeyPatch, seen: bool | None, ids: list[str]
) -> None:
    settings.OLLAMA_BRIDGE = {"MAX_CONCURRENCY": 1}
    monkeypatch.setattr("ollama_bridge.witness.sees", lambda _: seen)

    assert found() == {}
    assert list(found(deploy=True)) == ids

    settings.OLLAMA_BRIDGE = {"MAX_CONCURRENCY": 1, "CACHE": None}
    assert found(deploy=True) == {}
