"""Many callers at once, and how many of their calls were answered."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from ollama_bridge import OllamaBridgeError

if TYPE_CHECKING:
    from ollama_bridge import OllamaClient


def chats(client: OllamaClient, calls: int, callers: int, **arguments: Any) -> Counter[str]:
    """Chat so often, each time with a prompt of its own; count answers and codes of errors."""

    def chat(number: int) -> str:
        prompt = f"What is water? This is question {number}."
        try:
            reply = client.chat(prompt, **arguments)
        except OllamaBridgeError as error:
            return error.code
        return "answered" if f"question {number}." in reply else "another's answer"

    with ThreadPoolExecutor(callers) as pool:
        return Counter(pool.map(chat, range(calls)))


def echo(prompt: str) -> str:
    return f"You asked: {prompt}"
