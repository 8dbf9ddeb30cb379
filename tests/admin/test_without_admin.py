"""The bridge in a site that has no admin."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
import django
from django.conf import settings
from django.core.management import call_command
settings.configure(
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "ollama_bridge"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
)
django.setup()
call_command("check", "--fail-level", "ERROR")
call_command("migrate", verbosity=0)
from ollama_bridge.models import EndpointState
print(EndpointState.objects.count())
print([name for name in sys.modules if name.endswith("bridge.admin") or ".contrib.admin" in name])
"""


def test_a_site_without_admin_has_the_table_and_loads_nothing_of_the_admin() -> None:
    done = subprocess.run(  # noqa: S603  # our own code
        [sys.executable, "-W", "error", "-c", CODE],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.splitlines()[-2:] == ["0", "[]"]
