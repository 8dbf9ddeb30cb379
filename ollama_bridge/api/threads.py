"""Threads and database connections that a request should not hold while it waits for a model."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec

from asgiref.sync import AsyncToSync, SyncToAsync
from django.db import connections


def can_do_without() -> bool:
    """Tell whether calls can wait on the event loop: that needs aiohttp."""
    return find_spec("aiohttp") is not None


def hang_up() -> bool:
    """Close this thread's database connections, but for those in a transaction, as in tests.

    Return whether there was none of these.
    """
    found = connections.all(initialized_only=True)
    for connection in found:
        if not connection.in_atomic_block:
            connection.close()
    return not any(connection.in_atomic_block for connection in found)


async def release() -> None:
    """End the thread that Django keeps for this request under ASGI, until it is needed again.

    asgiref makes one for each request, for whatever is sync in it: Django's own middleware, say. It
    is kept, idle and with its database connection, until the response has been sent, so that each
    waiting call would cost a thread. If it is needed again, asgiref makes a new one.

    With the thread a transaction would be lost that middleware has begun in it and means to end in
    it: then it is kept.
    """
    if getattr(AsyncToSync.executors, "current", None) is not None:
        return  # under sync-only middleware, whose thread waits for us
    context = SyncToAsync.thread_sensitive_context.get(None)
    if context is None:  # not under Django's ASGI handler: in its test client, say
        return
    executor = SyncToAsync.context_to_thread_executor.get(context)
    if executor is None:
        return
    if await asyncio.get_running_loop().run_in_executor(executor, hang_up):
        SyncToAsync.context_to_thread_executor.pop(context, None)
        executor.shutdown(wait=False)
