"""The Django app: registers its system checks, and opens nothing."""

from django.apps import AppConfig

from . import checks
from .client import ollama_client


class OllamaBridgeConfig(AppConfig):
    name = "ollama_bridge"
    verbose_name = "Ollama bridge"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from . import keeping  # noqa: PLC0415  # it needs the models, which exist from now on

        checks.register()
        ollama_client.governed_by(keeping.govern)
