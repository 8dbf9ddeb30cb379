"""Forks a process whose threads are inside calls, over and over; each child has to chat.

A program of its own, since the lock of what measures coverage would be held in some children.
"""

import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

from ollama_bridge import OllamaClient
from ollama_bridge.testing import FakeOllama

CHILDREN, CALLERS, SECONDS = 20, 4, 20


def child(client: OllamaClient) -> int:
    """Chat in a forked child, and return how that ended: 0 is well."""
    pid = os.fork()
    if not pid:
        signal.alarm(SECONDS)  # ends a child that hangs
        code = 1
        try:
            code = 0 if client.chat("What is ice?") and client.health_check() else 2
            client.close()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main() -> None:
    """Print how many children chatted; exit with how each ended if one did not."""
    stop = threading.Event()
    with FakeOllama() as server, OllamaClient(base_url=server.url) as client:

        def keep_calling() -> None:
            while not stop.is_set():
                client.chat("What is water?")
                client.health_check()

        with ThreadPoolExecutor(CALLERS) as pool:
            calls = [pool.submit(keep_calling) for _ in range(CALLERS)]
            server.wait_for(lambda server: len(server.chats) > CALLERS)
            try:
                ends = [child(client) for _ in range(CHILDREN)]
            finally:
                stop.set()
        for call in calls:
            call.result()
    if any(ends):
        sys.exit(f"Children ended with {ends}")
    print(f"{len(ends)} children chatted")  # noqa: T201


main()
