"""Vectors that mean nothing but are always the same for the same text."""

import math
from array import array
from collections.abc import Mapping
from hashlib import shake_128
from typing import Any

from . import text
from .catalogue import FakeModel
from .gojson import RefusalError
from .outgoing import Reply, json_reply
from .world import World


def embed(world: World, fields: Mapping[str, Any]) -> Reply:
    """Answer `/api/embed`.

    Raises:
        RefusalError: the server would refuse it.
    """
    texts = _texts(fields.get("input"))
    name = str(fields.get("model") or "")
    model = _find(world, name)
    if not texts:
        return json_reply({"model": name, "embeddings": []})
    sizes = [text.count(item) for item in texts]
    if fields.get("truncate") is False and max(sizes) > model.context_length:
        raise RefusalError(400, "the input length exceeds the context length")
    length = int(fields.get("dimensions") or model.embedding_length)
    return json_reply(
        {
            "model": name,
            "embeddings": [_unit(item, min(length, model.embedding_length)) for item in texts],
            "total_duration": 11_660_316,
            "load_duration": 873_653,
            "prompt_eval_count": sum(sizes),
        }
    )


def legacy(world: World, fields: Mapping[str, Any]) -> Reply:
    """Answer `/api/embeddings`.

    Raises:
        RefusalError: the server would refuse it.
    """
    model = _find(world, str(fields.get("model") or ""))
    prompt = str(fields.get("prompt") or "")
    return json_reply({"embedding": _unit(prompt, model.embedding_length) if prompt else []})


def _texts(given: object) -> list[str]:
    if given is None or given == "":
        return []
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not all(isinstance(item, str) for item in texts):
        raise RefusalError(400, "invalid input type")
    return texts


def _find(world: World, name: str) -> FakeModel:
    try:
        return world.find(name)
    except RefusalError as refusal:
        raise RefusalError(
            refusal.status, f'model "{name}" not found, try pulling it first'
        ) from None


def _unit(item: str, length: int) -> list[float]:
    numbers = array("h", shake_128(item.encode("utf-8", "replace")).digest(2 * length))
    norm = math.hypot(*numbers) or 1.0
    return [number / norm for number in numbers]
