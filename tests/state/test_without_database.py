"""A database cache in tests that may not use the database: nothing of it reaches a call."""

from __future__ import annotations

import logging
import threading

import pytest
from django.db import connection
from django.test import override_settings

from ollama_bridge import CircuitOpen, ConnectionFailed, ollama_client
from ollama_bridge.testing import FakeOllama

from .stores import DATABASE_CACHE

QUESTION = "What is water?"
SETTINGS = {"MAX_RETRIES": 0, "OPEN_SECONDS": 0.05, "RECOVERY_TIMEOUT": 0.05}


def test_calls_work_as_in_a_process_that_is_alone(
    fake_ollama: FakeOllama, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "ollama_bridge.state")
    with pytest.raises(RuntimeError, match="Database access not allowed"):
        connection.ensure_connection()
    with override_settings(
        CACHES={"default": DATABASE_CACHE},
        OLLAMA_BRIDGE={"BASE_URL": fake_ollama.url, **SETTINGS},
    ):
        assert ollama_client.chat(QUESTION)
        fake_ollama.refuse()
        for _ in range(5):
            with pytest.raises(ConnectionFailed):
                ollama_client.chat(QUESTION)
        with pytest.raises(CircuitOpen):
            ollama_client.chat(QUESTION)
        fake_ollama.listen()
        threading.Event().wait(0.05)
        assert ollama_client.chat(QUESTION)
        assert ollama_client.circuit_breaker.state == "closed"
        ollama_client.close()
    assert [found for found in threading.enumerate() if "state" in found.name] == []
    (told,) = (record for record in caplog.records if record.name == "ollama_bridge.state")
    assert told.getMessage().endswith("going on alone: RuntimeError")
    assert told.levelno == logging.DEBUG, "tests need no alarm"


@pytest.mark.django_db
def test_calls_work_in_a_test_whose_database_has_no_table_for_the_cache(
    fake_ollama: FakeOllama,
) -> None:
    with override_settings(
        CACHES={"default": DATABASE_CACHE},
        OLLAMA_BRIDGE={"BASE_URL": fake_ollama.url, **SETTINGS},
    ):
        for _ in range(3):
            assert ollama_client.chat(QUESTION)
        ollama_client.close()
    assert connection.in_atomic_block
    assert not connection.needs_rollback
