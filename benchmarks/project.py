"""What surrounds a call: Django as a new project has it, logs as in production, a calm environment.

Everybody is measured under it.
"""

from __future__ import annotations

import logging
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import django
from django.conf import settings

if TYPE_CHECKING:
    from collections.abc import Iterator

_OF_OTHERS: Final = ("OLLAMA_", "LITELLM_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")

WITHOUT_NETWORK: Final = ("LITELLM_LOCAL_MODEL_COST_MAP", "True")
"""The variable, and its value, without which the import of LiteLLM asks the network for prices."""


def set_up(**bridge: object) -> None:
    """Prepare this process, once, before anything is measured; ``bridge`` has its settings."""
    _forget_environment()
    _log_to_nowhere()
    if not settings.configured:
        settings.configure(
            SECRET_KEY="only-for-benchmarks",  # noqa: S106  # it protects nothing
            ROOT_URLCONF="benchmarks.urls",
            ALLOWED_HOSTS=["testserver", "127.0.0.1"],
            OLLAMA_BRIDGE=bridge,
            USE_TZ=True,
            DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
            INSTALLED_APPS=[
                "django.contrib.auth",
                "django.contrib.contenttypes",
                "django.contrib.sessions",
                "django.contrib.messages",
                "rest_framework",
                "ollama_bridge",
            ],
            MIDDLEWARE=[
                "django.middleware.security.SecurityMiddleware",
                "django.contrib.sessions.middleware.SessionMiddleware",
                "django.middleware.common.CommonMiddleware",
                "django.middleware.csrf.CsrfViewMiddleware",
                "django.contrib.auth.middleware.AuthenticationMiddleware",
                "django.contrib.messages.middleware.MessageMiddleware",
                "django.middleware.clickjacking.XFrameOptionsMiddleware",
            ],
        )
        django.setup()


def _forget_environment() -> None:
    """Forget settings and proxies: they would differ between machines and contestants."""
    for name in list(os.environ):
        if name.upper().startswith(_OF_OTHERS):
            del os.environ[name]
    name, value = WITHOUT_NETWORK
    os.environ[name] = value


def _log_to_nowhere() -> None:
    """Let lines from WARNING on be formatted and written, where nobody reads them."""
    nowhere = logging.FileHandler(os.devnull)
    nowhere.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[nowhere])


@contextmanager
def logging_at(level: int) -> Iterator[None]:
    """Set the level of the bridge's loggers for a while."""
    logger = logging.getLogger("ollama_bridge")
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)
