"""Arguments that are wrong: how the error begins, its class, and the argument."""

from __future__ import annotations

from typing import Any

CANARY = "the-canary-sings-at-dawn"

WRONG: list[tuple[str, type[Exception], dict[str, Any]]] = [
    ("message", TypeError, {"message": None}),
    ("message", TypeError, {"message": 5}),
    ("message", TypeError, {"message": CANARY.encode()}),
    ("message", TypeError, {"message": [CANARY]}),
    ("message", ValueError, {"message": ""}),
    ("message", ValueError, {"message": " \n\t"}),
    ("message", ValueError, {"message": f"{CANARY}\ud800"}),
    ("system_prompt", TypeError, {"system_prompt": 5}),
    ("system_prompt", TypeError, {"system_prompt": 0}),
    ("system_prompt", TypeError, {"system_prompt": [CANARY]}),
    ("system_prompt", ValueError, {"system_prompt": f"{CANARY}\udfff"}),
    ("history", TypeError, {"history": None}),
    ("history", TypeError, {"history": 5}),
    ("history", TypeError, {"history": CANARY}),
    ("history", TypeError, {"history": {"role": "user", "content": CANARY}}),
    ("history[0]", TypeError, {"history": [CANARY]}),
    ("history[0]", TypeError, {"history": [None]}),
    ("history[0].role", ValueError, {"history": [{"content": CANARY}]}),
    ("history[0].role", ValueError, {"history": [{"role": CANARY, "content": "x"}]}),
    ("history[0].role", ValueError, {"history": [{"role": [], "content": CANARY}]}),
    ("history[0].role", ValueError, {"history": [{"role": "tool", "content": CANARY}]}),
    ("history[0].content", TypeError, {"history": [{"role": "user"}]}),
    ("history[0].content", TypeError, {"history": [{"role": "user", "content": [CANARY]}]}),
    ("history[0].content", ValueError, {"history": [{"role": "user", "content": "\ud800"}]}),
    (
        "history[1]",
        ValueError,
        {"history": [{"role": "user", "content": "x"}, {"role": "user", "contents": CANARY}]},
    ),
    ("model", ValueError, {"model": 5}),
    ("model", ValueError, {"model": ""}),
    ("model", ValueError, {"model": "two words"}),
    ("model", ValueError, {"model": "a\nb"}),
    ("model", ValueError, {"model": "a\ud800"}),
    ("temperature", TypeError, {"temperature": "0.7"}),
    ("temperature", TypeError, {"temperature": True}),
    ("temperature", ValueError, {"temperature": -0.1}),
    ("temperature", ValueError, {"temperature": float("nan")}),
    ("temperature", ValueError, {"temperature": float("inf")}),
    ("temperature", ValueError, {"temperature": 10**400}),
    ("max_tokens", TypeError, {"max_tokens": 1.5}),
    ("max_tokens", TypeError, {"max_tokens": True}),
    ("max_tokens", TypeError, {"max_tokens": "5"}),
    ("max_tokens", ValueError, {"max_tokens": 0}),
    ("max_tokens", ValueError, {"max_tokens": -1}),
    ("options", TypeError, {"options": 5}),
    ("options", TypeError, {"options": [CANARY]}),
    ("options", TypeError, {"options": {5: CANARY}}),
    ("options", ValueError, {"options": {"stop": {CANARY}}}),
    ("options", ValueError, {"options": {"seed": float("nan")}}),
    ("options", ValueError, {"options": {"stop": [f"{CANARY}\ud800"]}}),
    ("options", ValueError, {"options": {f"{CANARY}\ud800": 1}}),
    ("max_tokens", ValueError, {"max_tokens": 5, "options": {"num_predict": 5}}),
    ("temperature", ValueError, {"temperature": 1, "options": {"temperature": 1}}),
    ("timeout", TypeError, {"timeout": "5"}),
    ("timeout", TypeError, {"timeout": True}),
    ("timeout", ValueError, {"timeout": 0}),
    ("timeout", ValueError, {"timeout": -1}),
    ("timeout", ValueError, {"timeout": float("nan")}),
    ("timeout", ValueError, {"timeout": float("inf")}),
    ("timeout", ValueError, {"timeout": 1e300}),
    ("timeout", ValueError, {"timeout": 10**400}),
    ("keep_alive", ValueError, {"keep_alive": True}),
    ("keep_alive", ValueError, {"keep_alive": "5"}),
    ("keep_alive", ValueError, {"keep_alive": "soon"}),
    ("keep_alive", ValueError, {"keep_alive": float("nan")}),
    ("keep_alive", ValueError, {"keep_alive": ["5m"]}),
    ("model", ValueError, {"model": b"llama3.2"}),
    ("model", ValueError, {"model": {"llama3.2"}}),
    ("model", ValueError, {"model": []}),
    ("model[0]", ValueError, {"model": [5]}),
    ("model[1]", ValueError, {"model": ("llama3.2", f"{CANARY} {CANARY}")}),
    ("using", ValueError, {"using": CANARY}),
    ("using", ValueError, {"using": ""}),
    ("using", ValueError, {"using": 5}),
    ("using", ValueError, {"using": ["default"]}),
    ("sticky_key", TypeError, {"sticky_key": 5}),
    ("sticky_key", TypeError, {"sticky_key": [CANARY]}),
    ("cache_scope", ValueError, {"cache_ttl": 5}),
    ("cache_scope", ValueError, {"cache_scope": CANARY}),
    *[
        ("cache_scope", kind, {"cache_ttl": 5, "cache_scope": scope})
        for kind, scope in (
            (ValueError, ""),
            (ValueError, " "),
            (TypeError, 5),
            (TypeError, [CANARY]),
        )
    ],
    *[
        ("cache_ttl", kind, {"cache_ttl": seconds, "cache_scope": CANARY})
        for kind, seconds in (
            (TypeError, CANARY),
            (TypeError, True),
            (ValueError, 0),
            (ValueError, -1),
            (ValueError, float("nan")),
            (ValueError, float("inf")),
        )
    ],
]

# The same for what only streams take: the name, the class, the value.
WRONG_OF_STREAMS: list[tuple[str, type[Exception], object]] = [
    *[
        (name, kind, value)
        for name in ("first_token_timeout", "chunk_timeout")
        for kind, value in (
            (TypeError, CANARY),
            (TypeError, True),
            (ValueError, 0),
            (ValueError, -1),
            (ValueError, float("nan")),
            (ValueError, float("inf")),
        )
    ],
    *[
        (name, ValueError, value)
        for name in ("max_chunks", "max_bytes")
        for value in (0, -1, True, 1.5, "5", CANARY)
    ],
]


def too_deep() -> dict[str, Any]:
    nested: Any = CANARY
    for _ in range(100_000):
        nested = [nested]
    return {"stop": nested}
