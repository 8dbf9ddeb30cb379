"""The demo as an app, so that Django finds its command, template and static files."""

from django.apps import AppConfig


class DemoConfig(AppConfig):
    name = "demo_project"
    verbose_name = "Demo"
