"""The site under uvicorn, in one process: ``python -m benchmarks.site``."""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import TYPE_CHECKING

from . import children, peers, project

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


def site(upstream: str) -> AbstractContextManager[str]:
    """Run the site for as long as the block lasts, and give its URL.

    Args:
        upstream: URL of the Ollama server that it relays.

    Raises:
        CannotRunError: it did not start.
    """
    return children.server("benchmarks.site", upstream)


async def _serve(listener: socket.socket) -> None:
    from django.core.asgi import get_asgi_application  # noqa: PLC0415  # once there are settings

    uvicorn = peers.load("uvicorn")
    config = uvicorn.Config(
        get_asgi_application(), log_level="warning", access_log=False, lifespan="off"
    )
    serving = asyncio.create_task(uvicorn.Server(config).serve(sockets=[listener]))
    children.tell(listener.getsockname()[1])
    await asyncio.to_thread(children.wait_for_the_end)
    serving.cancel()


def main() -> None:
    """Serve until standard input ends."""
    children.leave_interrupts_to_the_parent()
    children.allow_many_connections()
    project.set_up(
        BASE_URL=sys.argv[1],
        PERMISSION_CLASSES=["rest_framework.permissions.AllowAny"],
        THROTTLE_RATE=None,
        MAX_CALLS_PER_USER=10_000,
    )
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        asyncio.run(_serve(listener))


if __name__ == "__main__":
    main()
