"""How many connections are kept, and for whom."""

from __future__ import annotations

import time
from typing import Any

from ollama_bridge.core.actions import Send
from ollama_bridge.core.protocol import VERSION
from ollama_bridge.testing import FakeOllama
from ollama_bridge.transports.blocking import Conversation
from ollama_bridge.transports.pool import BlockingTransport
from tests.core.virtual import endpoint


def ask(transport: BlockingTransport, server: FakeOllama, name: str) -> None:
    send = Send(endpoint(name, base_url=server.url), VERSION, time.monotonic() + 10)
    conversation: Any = Conversation(transport)
    assert conversation.perform(send).status == 200
    conversation.close()


def test_the_connections_of_so_many_endpoints_are_kept_and_the_oldest_give_way() -> None:
    with FakeOllama() as a, FakeOllama() as b, FakeOllama() as c:
        transport = BlockingTransport(2)
        for server, name in ((a, "a"), (b, "b"), (b, "b"), (a, "a")):
            ask(transport, server, name)
        assert (a.connections, b.connections) == (1, 1)
        ask(transport, c, "c")
        a.wait_for(lambda server: server.open_connections == 0)
        assert (b.open_connections, c.open_connections) == (1, 1)
        ask(transport, a, "a")
        assert a.connections == 2
        transport.close()
