"""What the server refuses in a chat or generate request, in its own words."""

import re
from collections.abc import Mapping
from typing import Any

from . import schema
from .catalogue import FakeModel
from .gojson import RefusalError, check_types, type_name

_COMMON = {
    "model": (str, "string"),
    "stream": (bool, "bool"),
    "options": (dict, "map[string]interface {}"),
    "truncate": (bool, "bool"),
    "shift": (bool, "bool"),
}
_CHAT = {**_COMMON, "messages": (list, "[]api.Message"), "tools": (list, "api.Tools")}
_GENERATE = {
    **_COMMON,
    "prompt": (str, "string"),
    "suffix": (str, "string"),
    "system": (str, "string"),
    "template": (str, "string"),
    "raw": (bool, "bool"),
    "images": (list, "[]api.ImageData"),
}
_MESSAGE = {"role": (str, "string"), "content": (str, "string"), "thinking": (str, "string")}

_INTEGERS = (
    "num_ctx num_batch num_gpu main_gpu num_thread num_keep num_predict seed top_k repeat_last_n"
)
_FLOATS = "temperature top_p min_p typical_p repeat_penalty presence_penalty frequency_penalty"
_OPTIONS = {
    **dict.fromkeys(_INTEGERS.split(), ((int, float), "integer")),
    **dict.fromkeys(_FLOATS.split(), ((int, float), "float32")),
    "stop": ((list,), "array"),
    "use_mmap": ((bool,), "boolean"),
}
_LEVELS = ("high", "medium", "low", "max")
_NOT_BASE64 = re.compile(r"[^A-Za-z0-9+/=]")


def check_chat(fields: Mapping[str, Any]) -> None:
    """Refuse wrong JSON types as Go does while it decodes.

    Raises:
        RefusalError: status 400.
    """
    check_types(fields, _CHAT, "ChatRequest")
    for message in fields.get("messages") or ():
        if not isinstance(message, dict):
            kind = type_name(type(message))
            raise RefusalError(
                400,
                f"json: cannot unmarshal {kind} into Go struct field "
                "ChatRequest.messages of type api.Message",
            )
        check_types(message, _MESSAGE, "Alias")
        check_images(message.get("images") or ())


def check_generate(fields: Mapping[str, Any]) -> None:
    """Refuse wrong JSON types as Go does while it decodes.

    Raises:
        RefusalError: status 400.
    """
    check_types(fields, _GENERATE, "GenerateRequest")


def check_images(images: list[object] | tuple[()]) -> None:
    for index, image in enumerate(images):
        wrong = _NOT_BASE64.search(image) if isinstance(image, str) else None
        if wrong is not None:
            raise RefusalError(
                400,
                f"json: cannot unmarshal string into Alias.images.{index} of type api.ImageData: "
                f"illegal base64 data at input byte {wrong.start()}",
            )


def check_options(options: Mapping[str, object]) -> None:
    """Refuse wrong types of options, a 500 although the client is to blame.

    Raises:
        RefusalError: status 500.
    """
    for name, value in options.items():
        rule = _OPTIONS.get(name)
        if rule is not None and value is not None and type(value) not in rule[0]:
            raise RefusalError(500, f'option "{name}" must be of type {rule[1]}')


def check_think(value: object) -> None:
    """Refuse an unknown thinking level.

    Raises:
        RefusalError: status 400.
    """
    if value is not None and not isinstance(value, bool) and value not in _LEVELS:
        raise RefusalError(
            400,
            f'invalid think value: "{value}" '
            '(must be "high", "medium", "low", "max", true, or false)',
        )


def check_capabilities(model: FakeModel, fields: Mapping[str, Any]) -> None:
    """Refuse what the model cannot do.

    Raises:
        RefusalError: status 400.
    """
    if "completion" not in model.capabilities:
        kind = "chat" if "prompt" not in fields else "generate"
        raise RefusalError(400, f'"{fields["model"]}" does not support {kind}')
    for field, capability in (("tools", "tools"), ("suffix", "insert")):
        if fields.get(field) and capability not in model.capabilities:
            raise RefusalError(400, f"{model.registry_name} does not support {capability}")
    if fields.get("think") and "thinking" not in model.capabilities:
        raise RefusalError(400, f'"{fields["model"]}" does not support thinking')


def check_format(wish: object, *, stream: bool) -> None:
    """Refuse a format that is neither `"json"` nor a JSON schema.

    Raises:
        RefusalError: status 500.
    """
    if wish in (None, "", "json"):
        return
    if not isinstance(wish, dict):
        quoted = str(wish).replace('"', '\\"')
        text = f'invalid format: "\\"{quoted}\\""; expected "json" or a valid JSON Schema object'
        raise RefusalError(500, text, streamed=stream)
    if not schema.valid(wish, wish):
        raise RefusalError(500, "invalid JSON schema in format", streamed=stream)
