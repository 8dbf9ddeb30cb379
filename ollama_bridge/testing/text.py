"""What the simulator says when nobody told it what to say."""

import re
from zlib import crc32

_TOKEN = re.compile(r"\s*\w+|\s*[^\w\s]|\s+")
_QUOTED = 80

_OPENINGS = (
    "That is a good question to think about.",
    "Let us look at this one step at a time.",
    "I am glad that you asked.",
)
_MIDDLES = (
    "First say in your own words what you already know, then find one example from your own day.",
    "Split the question into two smaller ones, answer the easier one, and see what is left.",
    "Explain it to a friend in three short sentences; where you get stuck is what to read next.",
)
_CLOSINGS = (
    "When a real model is connected, this place holds its answer.",
    "Connect a real model, ask again, and compare its answer with your own.",
    "A real model would now teach you the subject itself.",
)


def friendly(prompt: str) -> str:
    """Return a plain answer of several sentences; the same prompt gets the same answer."""
    asked = " ".join(prompt.split())
    if not asked:
        return "Hello! I am the Ollama simulator. Ask me something."
    shown = asked if len(asked) <= _QUOTED else f"{asked[: _QUOTED - 1]}…"
    pick = crc32(asked.encode("utf-8", "replace"))
    return (
        f"{_OPENINGS[pick % 3]} You asked: “{shown}” "
        "This answer comes from the Ollama simulator, not from a language model. "
        f"{_MIDDLES[pick // 3 % 3]} {_CLOSINGS[pick // 9 % 3]}"
    )


def tokens(text: str) -> list[str]:
    """Split a text into words and signs; joined, they are the text again."""
    return _TOKEN.findall(text)


def count(text: str) -> int:
    """Return how many tokens a prompt has."""
    return len(text.split())
