"""The Django app: registers its system checks, and opens nothing."""

from django.apps import AppConfig

from . import checks


class OllamaBridgeConfig(AppConfig):
    name = "ollama_bridge"
    verbose_name = "Ollama bridge"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        checks.register()
