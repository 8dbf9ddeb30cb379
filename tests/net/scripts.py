"""Programs that a test runs in an interpreter of its own, where every warning is an error."""

from __future__ import annotations

import subprocess
import sys
from textwrap import dedent, indent
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ollama_bridge.testing import FakeOllama

_HEAD = """
import asyncio, gc, os, sys, threading, warnings
import django
from django.conf import settings
settings.configure(INSTALLED_APPS=["ollama_bridge"], OLLAMA_BRIDGE={{"BASE_URL": {url!r}}})
django.setup()
from ollama_bridge import OllamaClient, ollama_client

def sockets():
    return [name for name in os.listdir("/proc/self/fd") if is_socket(name)]

def is_socket(name):
    try:
        return os.readlink(f"/proc/self/fd/{{name}}").startswith("socket:")
    except OSError:
        return False

def main():
{body}

main()
gc.collect()
print("end")
"""


def run_script(server: FakeOllama, body: str) -> str:
    """Run the body of a function that has a client of the server; return all that it says."""
    code = _HEAD.format(url=server.url, body=indent(dedent(body), "    "))
    done = subprocess.run(  # noqa: S603  # our own code
        [sys.executable, "-W", "error", "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout if done.returncode == 0 else f"{done.stdout}exit {done.returncode}"
