from __future__ import annotations

from abc import ABCMeta

import pytest

from ollama_bridge import errors
from ollama_bridge.core.outcome import Blame, blame


def of(error: errors.OllamaBridgeError, status: int | None = None) -> errors.OllamaBridgeError:
    error.status = status
    return error


def begun(error: errors.OllamaBridgeError) -> errors.OllamaBridgeError:
    error.begun = True
    return error


TABLE = [
    (errors.ConnectionFailed(), Blame.ENDPOINT),
    (errors.Timeout(phase="connect"), Blame.ENDPOINT),
    (errors.Timeout(phase="total"), Blame.ENDPOINT),
    (errors.Timeout(phase="first_token"), Blame.ENDPOINT),
    (errors.Timeout(phase="idle"), Blame.MODEL),
    (begun(errors.Timeout(phase="total")), Blame.MODEL),
    (begun(errors.ConnectionFailed()), Blame.MODEL),
    (begun(errors.InvalidReply()), Blame.MODEL),
    (of(errors.InvalidReply(), 200), Blame.MODEL),
    (of(errors.ServerFailed(), 500), Blame.MODEL),
    (of(errors.ServerFailed(), 200), Blame.MODEL),
    (of(errors.ServerFailed(), 502), Blame.ENDPOINT),
    (of(errors.ServerFailed(), 503), Blame.ENDPOINT),
    (of(errors.ServerFailed(), 504), Blame.ENDPOINT),
    (errors.StreamInterrupted(), Blame.MODEL),
    (errors.InvalidReply(), Blame.ENDPOINT),
    (errors.ModelNotFound(), Blame.ANSWERED),
    (errors.RequestRejected(), Blame.ANSWERED),
    (errors.AuthenticationFailed(), Blame.ANSWERED),
    (errors.ContextTooLong(), Blame.ANSWERED),
    (errors.RateLimited(), Blame.NOBODY),
    (errors.QuotaExhausted(), Blame.NOBODY),
    (errors.Overloaded(), Blame.NOBODY),
    (errors.CircuitOpen(), Blame.NOBODY),
    (errors.OutputInvalid(), Blame.NOBODY),
    (errors.AllEndpointsFailed(), Blame.NOBODY),
    (errors.RequestDeferred(), Blame.NOBODY),
]


@pytest.mark.parametrize(("error", "whom"), TABLE, ids=repr)
def test_each_error_is_held_against_the_right_one(
    error: errors.OllamaBridgeError, whom: Blame
) -> None:
    assert blame(error, patient=True) is whom


def test_the_table_knows_every_class_of_error() -> None:
    def leaves(cls: type[errors.OllamaBridgeError]) -> set[type[errors.OllamaBridgeError]]:
        return {cls}.union(*(leaves(sub) for sub in cls.__subclasses__()))

    known = {type(error) for error, _ in TABLE}
    public = {cls for cls in leaves(errors.OllamaBridgeError) if not cls.__name__.startswith("_")}
    assert {cls for cls in public if cls.__module__ == errors.__name__} - known == {
        errors.OllamaBridgeError
    }


def test_an_impatient_caller_cannot_blame_anybody() -> None:
    assert blame(errors.Timeout(phase="total"), patient=False) is Blame.NOBODY


def test_bug_7_a_metaclass_of_its_own_does_not_hide_an_error() -> None:
    class Odd(errors.ConnectionFailed, metaclass=ABCMeta):
        pass

    assert blame(Odd(), patient=True) is Blame.ENDPOINT
