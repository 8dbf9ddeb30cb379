"""The page of the demo."""

from typing import Any

from django.views.generic import TemplateView

from ollama_bridge import conf

from . import simulator
from .mentor.levels import CLASSES

_PERIODS = {"s": "second", "m": "minute", "h": "hour", "d": "day"}


class PageView(TemplateView):
    """A chat without messages; the conversation happens in the browser."""

    template_name = "demo/page.html"

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:  # noqa: ANN401  # as Django has it
        settings = conf.current()
        return super().get_context_data(
            classes=CLASSES,
            longest=settings.MAX_MESSAGE_CHARS,
            most_messages=settings.MAX_HISTORY,
            most_bytes=settings.MAX_BODY_BYTES,
            rate=in_words(settings.THROTTLE_RATE),
            model=settings.MODEL,
            url=settings.BASE_URL,
            simulated=simulator.is_running_at(settings.BASE_URL),
            **kwargs,
        )


def in_words(rate: str | None) -> str:
    """Return a throttle's rate as the page says it; "" where there is none."""
    if rate is None:
        return ""
    number, period = rate.split("/")
    return f"{number} questions per {_PERIODS[period[0]]}"
