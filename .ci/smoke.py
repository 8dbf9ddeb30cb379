"""What a user gets from the wheel: a new project, checked, that answers a chat over HTTP.

Run it in an empty folder with a Python that has the wheel installed, and nothing of the checkout.
"""

import os
import subprocess
import sys
from importlib import import_module
from importlib.metadata import distribution
from importlib.resources import files
from pathlib import Path

import django
from django.test import Client

import ollama_bridge
from ollama_bridge.testing.process import spawn

ADDITIONS = """
INSTALLED_APPS += ["rest_framework", "ollama_bridge"]
OLLAMA_BRIDGE = {"PERMISSION_CLASSES": ["rest_framework.permissions.AllowAny"]}
"""
URLS = """
from django.urls import include, path
from django.contrib import admin
urlpatterns = [
    path("api/mentor/", include("ollama_bridge.urls")),
    path("admin/", admin.site.urls),
]
"""


def what_is_installed() -> None:
    package, wheel = files("ollama_bridge"), distribution("django-ollama-bridge")
    names = {str(each) for each in wheel.files or ()}
    strangers = {name.split("/")[0] for name in names if "dist-info" not in name}
    assert str(package).startswith(sys.prefix), f"imported from {package}"
    assert wheel.version == ollama_bridge.__version__, wheel.version
    assert package.joinpath("py.typed").is_file()
    assert any(name.endswith("licenses/LICENSE") for name in names), "no licence"
    assert strangers == {"ollama_bridge"}, strangers


def new_project() -> None:
    _python("-m", "django", "startproject", "scratch", ".")
    with Path("scratch/settings.py").open("a") as settings:
        settings.write(ADDITIONS)
    Path("scratch/urls.py").write_text(URLS)
    _python("manage.py", "check", "--fail-level", "WARNING")
    _python("manage.py", "migrate", "--verbosity", "0")
    for command in ("ollama_simulator", "ollama_health", "ollama_reliability_test"):
        _python("manage.py", command, "--help", quiet=True)


def a_chat() -> None:
    sys.path.insert(0, str(Path.cwd()))
    os.environ["DJANGO_SETTINGS_MODULE"] = "scratch.settings"
    with spawn(answer="A liquid.") as ollama:
        os.environ["OLLAMA_BASE_URL"] = ollama.url
        django.setup()
        client = Client(SERVER_NAME="localhost")
        chat = client.post(
            "/api/mentor/chat/", {"message": "What is water?"}, content_type="application/json"
        )
        stream = client.post(
            "/api/mentor/chat/",
            {"message": "What is water?", "stream": True},
            content_type="application/json",
        )
        events = b"".join(stream.streaming_content).decode()
        health = client.get("/api/mentor/health/")
    assert (chat.status_code, chat.json()["response"]) == (200, "A liquid."), chat.content
    assert events.startswith("event: delta\n"), events
    assert "event: done\n" in events, events
    assert (health.status_code, health.json()["status"]) == (200, "healthy"), health.content
    print(chat.json())


def the_admin_page() -> None:
    user = import_module("django.contrib.auth").get_user_model()
    client = Client(SERVER_NAME="localhost")
    client.force_login(user.objects.create_superuser("ada"))
    page = client.get("/admin/ollama_bridge/endpointstate/")
    assert "this process" in page.content.decode()
    assert files("ollama_bridge").joinpath("static/ollama_bridge/admin.css").is_file()


def _python(*arguments: str, quiet: bool = False) -> None:
    output = subprocess.DEVNULL if quiet else None
    subprocess.run([sys.executable, *arguments], check=True, stdout=output)


if __name__ == "__main__":
    what_is_installed()
    new_project()
    a_chat()
    the_admin_page()
    print("The wheel works.")
