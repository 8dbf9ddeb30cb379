"""What ``chat/`` takes. A subclass of ``ChatView`` may use a subclass of ``ChatSerializer``."""

from __future__ import annotations

from typing import Any, ClassVar

from rest_framework import serializers

from .fields import History, Model, Refused, Role, Streamed, SystemPrompt, Text
from .options import Options

_NOT_YET = "This is not available in this version. Leave it out."
_OF_THE_SITE = "This is for the site to decide. Leave it out."


class Turn(serializers.Serializer[Any]):
    """One message of the history; an answer may have been empty."""

    default_error_messages: ClassVar[dict[str, Any]] = {
        "invalid": 'This must be an object. Send {{"role": "user", "content": "…"}}.',
        "null": 'This must be an object, not null. Send {{"role": "user", "content": "…"}}.',
    }

    role = Role()
    content = Text(blank=True)
    images = Refused(_NOT_YET)
    tool_calls = Refused(_NOT_YET)


class ChatSerializer(serializers.Serializer[Any]):
    """A question, with what may come with it. Unknown fields are ignored."""

    message = Text()
    history = History(child=Turn(), required=False)
    stream = Streamed(required=False)
    model = Model(required=False)
    system_prompt = SystemPrompt(required=False, blank=True)
    options = Options(required=False)
    temperature = Refused(
        'This is an option of the model. Send it as {"options": {"temperature": 0.7}}.'
    )
    max_tokens = Refused(
        'This is an option of the model. Send it as {"options": {"num_predict": 200}}.'
    )
    keep_alive = Refused(_OF_THE_SITE)
    timeout = Refused(_OF_THE_SITE)
    using = Refused(_OF_THE_SITE)
    sticky_key = Refused(_OF_THE_SITE)
    cache_ttl = Refused(_OF_THE_SITE)
    cache_scope = Refused(_OF_THE_SITE)
    use_case = Refused(_NOT_YET)
    on_unavailable = Refused(_NOT_YET)
    think = Refused(_NOT_YET)
    format = Refused(_NOT_YET)
    tools = Refused(_NOT_YET)
    images = Refused(_NOT_YET)
    strict_context = Refused(_NOT_YET)
