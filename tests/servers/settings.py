"""The settings of the site that tests serve; one variable of the environment holds its kind."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

VARIABLE = "TESTED_SITE"
_SITE: dict[str, Any] = json.loads(os.environ.get(VARIABLE, "{}"))

for missing in _SITE.get("without", ()):
    sys.modules[missing] = None  # type: ignore[assignment]  # as Python documents it

SECRET_KEY = "only-for-tests"
USE_TZ = True
ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF = "tests.servers.urls"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": ":memory:",
        "ATOMIC_REQUESTS": _SITE.get("atomic", False),
        **_SITE.get("database", {}),
    }
}
MIDDLEWARE = [
    "tests.servers.controls.WayOut",
    *_SITE.get("middleware", ()),
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "rest_framework",
    "ollama_bridge",
]
OLLAMA_BRIDGE = _SITE.get("bridge", {})

# What is served badly on purpose is no news; an exception, or a word of anybody else's, is.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,  # those of the server
    "filters": {
        "bugs": {
            "()": "django.utils.log.CallbackFilter",
            "callback": lambda record: record.exc_info is not None,
        }
    },
    "handlers": {
        "all": {"class": "logging.StreamHandler"},
        "bugs": {"class": "logging.StreamHandler", "filters": ["bugs"]},
    },
    "loggers": {
        "django.request": {"handlers": ["bugs"], "propagate": False},
        "ollama_bridge": {"handlers": ["bugs"], "propagate": False},
    },
    "root": {"handlers": ["all"], "level": "WARNING"},
}
