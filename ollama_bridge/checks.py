"""System checks: ``manage.py check`` finds what is wrong with the settings before a visitor does.

One function for each rule; none touches the network. ``manage.py check --tag ollama_bridge`` runs
them alone. E001, E002, E003 and E005 are what ``conf.Settings.build`` would raise.
"""

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Final

from django.apps import apps
from django.conf import settings
from django.core import checks
from django.utils.module_loading import import_string

from . import conf, witness
from .core.names import MAIN
from .rules import InvalidError

TAG: Final = "ollama_bridge"
ALLOW_ANY: Final = "rest_framework.permissions.AllowAny"


def register() -> None:
    for check in (
        unknown_settings,
        invalid_values,
        permission_classes,
        settings_are_a_dict,
        rest_framework_is_installed,
    ):
        checks.register(check, TAG)
    checks.register(exposed_key, TAG, checks.Tags.security)
    checks.register(unverified_certificates, TAG, checks.Tags.security)
    checks.register(open_without_throttle, TAG, checks.Tags.security, deploy=True)
    checks.register(unlimited_concurrency, TAG, deploy=True)
    checks.register(queue_without_limit, TAG)
    checks.register(sync_only_middleware, TAG, deploy=True)
    checks.register(asgi_without_aiohttp, TAG, deploy=True)
    checks.register(cache_that_is_not_there, TAG)
    checks.register(strategies, TAG)
    checks.register(endpoints_without_default, TAG)
    checks.register(settings_without_effect, TAG)
    checks.register(circuits_of_one_process, TAG, deploy=True)


def unknown_settings(**_: object) -> list[checks.CheckMessage]:
    """E001: a name that no setting has, most often a misspelt one."""
    return _errors("unknown", "E001")


def invalid_values(**_: object) -> list[checks.CheckMessage]:
    """E002: a value that breaks its rule."""
    return _errors("invalid", "E002")


def exposed_key(**_: object) -> list[checks.CheckMessage]:
    """E003: a key, or a header with one, that would travel over plain http to another machine."""
    return _errors("exposed", "E003")


def permission_classes(**_: object) -> list[checks.CheckMessage]:
    """E004: a permission class that cannot be imported, or is none."""
    return [
        checks.Error(
            f'PERMISSION_CLASSES: "{path}" {complaint}.',
            hint='Type for example ["rest_framework.permissions.IsAuthenticated"].',
            id="ollama_bridge.E004",
        )
        for path in conf.examine().values.get("PERMISSION_CLASSES", ())
        if (complaint := _complaint(path))
    ]


def settings_are_a_dict(**_: object) -> list[checks.CheckMessage]:
    """E005: ``OLLAMA_BRIDGE`` is something else than a dict."""
    return _errors("not_a_dict", "E005")


def unverified_certificates(**_: object) -> list[checks.CheckMessage]:
    """W001: certificates are not verified, so that anybody on the way can read along."""
    where = _of_endpoints(lambda each: each.get("VERIFY_SSL") is False)
    if where is None:
        return []
    return [
        checks.Warning(
            f"VERIFY_SSL is False{where}: anybody on the way can pose as the server and read the "
            "key.",
            hint='Type "VERIFY_SSL": True, or the path of your own CA file in place of True.',
            id="ollama_bridge.W001",
        )
    ]


def open_without_throttle(**_: object) -> list[checks.CheckMessage]:
    """W003: everybody may chat, as often as they like."""
    values = conf.examine().values
    permissions = values.get("PERMISSION_CLASSES", (ALLOW_ANY,))
    is_open = not permissions or ALLOW_ANY in permissions
    if not is_open or values.get("THROTTLE_RATE", "") is not None:
        return []
    return [
        checks.Warning(
            "PERMISSION_CLASSES lets everybody chat, and THROTTLE_RATE is None.",
            hint='Type "THROTTLE_RATE": "60/min", or ask for a permission.',
            id="ollama_bridge.W003",
        )
    ]


def unlimited_concurrency(**_: object) -> list[checks.CheckMessage]:
    """W005: calls queue at the server, where nobody knows how long, and time out together."""
    where = _of_endpoints(lambda each: each.get("MAX_CONCURRENCY", 0) is None)
    if where is None:
        return []
    return [
        checks.Warning(
            f"MAX_CONCURRENCY is not set{where}: calls that the server cannot answer yet wait "
            "there, unseen, until they time out.",
            hint='Type "MAX_CONCURRENCY": 1, or what the server has as OLLAMA_NUM_PARALLEL.',
            id="ollama_bridge.W005",
        )
    ]


def queue_without_limit(**_: object) -> list[checks.CheckMessage]:
    """W006: where all calls are let in, none waits."""
    where = _of_endpoints(_waits_for_nothing)
    if where is None:
        return []
    return [
        checks.Warning(
            f"MAX_WAITING has no effect without MAX_CONCURRENCY{where}.",
            hint='Type "MAX_CONCURRENCY": 1, or what the server has as OLLAMA_NUM_PARALLEL.',
            id="ollama_bridge.W006",
        )
    ]


def sync_only_middleware(**_: object) -> list[checks.CheckMessage]:
    """W007: under ASGI Django runs these in a thread, which waits for the whole call."""
    names = list(_sync_only())
    if not names:
        return []
    return [
        checks.Warning(
            "Sync-only middleware forces a thread for each waiting call under ASGI: "
            f"{', '.join(names)}.",
            hint="Replace it in MIDDLEWARE by one that is async_capable, or leave it out. Under "
            'WSGI it does no harm: type SILENCED_SYSTEM_CHECKS = ["ollama_bridge.W007"].',
            id="ollama_bridge.W007",
        )
    ]


def asgi_without_aiohttp(**_: object) -> list[checks.CheckMessage]:
    """W008: without aiohttp no call can wait on the event loop."""
    if not getattr(settings, "ASGI_APPLICATION", None) or find_spec("aiohttp") is not None:
        return []
    return [
        checks.Warning(
            "ASGI_APPLICATION is set, but aiohttp is not installed: each waiting call takes a "
            "thread.",
            hint='Type pip install "django-ollama-bridge[async]".',
            id="ollama_bridge.W008",
        )
    ]


def rest_framework_is_installed(**_: object) -> list[checks.CheckMessage]:
    """W004: without its app, the pages of Django REST framework find no templates."""
    if apps.is_installed("rest_framework"):
        return []
    return [
        checks.Warning(
            "Django REST framework is not in INSTALLED_APPS, so the HTTP API may not work.",
            hint='Type "rest_framework" in INSTALLED_APPS.',
            id="ollama_bridge.W004",
        )
    ]


def cache_that_is_not_there(**_: object) -> list[checks.CheckMessage]:
    """E006: ``CACHE`` is none of ``CACHES``."""
    alias = conf.examine().values.get("CACHE")
    if alias is None or alias in settings.CACHES:
        return []
    known = ", ".join(f'"{each}"' for each in sorted(settings.CACHES))
    return [
        checks.Error(
            f'CACHE names "{alias}", which is not in CACHES.',
            hint=f"Type one of {known}, or None to share nothing between processes.",
            id="ollama_bridge.E006",
        )
    ]


def strategies(**_: object) -> list[checks.CheckMessage]:
    """E007: a route's strategy of your own cannot be imported, or cannot be called as one."""
    return list(_bad_strategies())


def endpoints_without_default(**_: object) -> list[checks.CheckMessage]:
    """W010: there are endpoints, or a cloud, that calls which name none never come to."""
    return _warnings("bypassed", "W010")


def settings_without_effect(**_: object) -> list[checks.CheckMessage]:
    """W011: the top level says something that no endpoint takes from it."""
    return _warnings("idle", "W011")


def circuits_of_one_process(**_: object) -> list[checks.CheckMessage]:
    """W009: a dead server is found out, and probed, by each process for itself."""
    alias = conf.examine().values.get("CACHE")
    if alias not in settings.CACHES or witness.sees(alias) is not False:
        return []
    return [
        checks.Warning(
            f'CACHES["{alias}"] is not shared between processes: each has circuits of its own.',
            hint=(
                "With several workers, use Redis, Memcached or a database there. With one process "
                'type SILENCED_SYSTEM_CHECKS = ["ollama_bridge.W009"].'
            ),
            id="ollama_bridge.W009",
        )
    ]


def _errors(kind: str, code: str) -> list[checks.CheckMessage]:
    return [
        checks.Error(problem.message, hint=problem.hint, id=f"ollama_bridge.{code}")
        for problem in conf.problems()
        if problem.kind == kind
    ]


def _warnings(kind: str, code: str) -> list[checks.CheckMessage]:
    return [
        checks.Warning(warning.message, hint=warning.hint, id=f"ollama_bridge.{code}")
        for warning in conf.examine().warnings
        if warning.kind == kind
    ]


def _of_endpoints(matches: Callable[[Mapping[str, object]], bool]) -> str | None:
    """Return the end of a sentence that names the endpoints which match; None if there are none."""
    endpoints = conf.examine().values["ENDPOINTS"]
    names = [name for name, each in endpoints.items() if matches(each)]
    if not names:
        return None
    if list(endpoints) == [MAIN]:
        return ""
    return f" for the endpoint{'s' if len(names) > 1 else ''} {', '.join(names)}"


def _waits_for_nothing(endpoint: Mapping[str, object]) -> bool:
    is_unlimited = endpoint.get("MAX_CONCURRENCY", 0) is None
    return is_unlimited and endpoint.get("MAX_WAITING") is not None


def _bad_strategies() -> Iterator[checks.CheckMessage]:
    for name, route in conf.examine().values["ROUTES"].items():
        try:
            conf.strategy_at(route.get("STRATEGY", "failover"))
        except InvalidError as error:
            message = f'ROUTES["{name}"]["STRATEGY"] {error.message}.'
            yield checks.Error(message, hint=error.hint, id="ollama_bridge.E007")


def _sync_only() -> Iterator[str]:
    """Give the middleware that cannot run on an event loop; Django itself tells of missing ones."""
    for path in settings.MIDDLEWARE:
        try:
            found = import_string(path)
        except ImportError:
            continue
        if not getattr(found, "async_capable", False):
            yield path


def _complaint(path: str) -> str:
    """Say what is wrong with the permission class at the path; "" if nothing is."""
    try:
        found = import_string(path)
    except ImportError:
        return "cannot be imported"
    # Composed ones, such as IsAdminUser | ReadOnly, are operands. They are imported here, because
    # Django loads this module before the apps are ready.
    operand = import_module("rest_framework.permissions").OperandHolder
    is_class = isinstance(found, type) and hasattr(found, "has_permission")
    return "" if is_class or isinstance(found, operand) else "is not a permission class"
