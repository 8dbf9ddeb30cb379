"""A chat that teaches at the level of a class: the bridge's view with one field more."""

from collections.abc import Mapping
from typing import Any

from rest_framework import serializers
from rest_framework.permissions import AllowAny

from ollama_bridge.api.serializers import ChatSerializer
from ollama_bridge.api.views import ChatView

from .levels import CLASSES, prompt_for

_WRONG = f"This must be a whole number from {CLASSES[0]} to {CLASSES[-1]}. Correct it."


class MentorSerializer(ChatSerializer):
    """A question, and the class that asks it."""

    class_number = serializers.IntegerField(
        min_value=CLASSES[0],
        max_value=CLASSES[-1],
        default=CLASSES[0],
        error_messages=dict.fromkeys(
            ("invalid", "min_value", "max_value", "null", "max_string_length"), _WRONG
        ),
    )


class MentorView(ChatView):
    """Open to everyone on purpose, so that the demo needs no accounts; calls are still throttled.

    On a site of your own leave ``permission_classes`` out: then ``PERMISSION_CLASSES`` holds, which
    asks for a login.
    """

    permission_classes = (AllowAny,)
    serializer_class = MentorSerializer

    def get_system_prompt(self, data: Mapping[str, Any]) -> str:
        return prompt_for(data["class_number"])
