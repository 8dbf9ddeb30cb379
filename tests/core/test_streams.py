"""How a stream goes, in virtual time."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_bridge import errors
from ollama_bridge.core import exchanges
from ollama_bridge.core.actions import (
    Emit,
    FaultKind,
    Finish,
    Open,
    Read,
    Send,
    Sleep,
    TransportFault,
    Wait,
)
from ollama_bridge.core.breaker import Mode, State
from ollama_bridge.core.events import CallAnswered, CallCancelled, CallFailed
from ollama_bridge.core.retry import RetryPolicy

from .virtual import World, delta, endpoint, last, reply, stream

if TYPE_CHECKING:
    from ollama_bridge.core.actions import Action, Flow
    from ollama_bridge.core.types import ChatReply, Delta

BROKEN = reply({"error": "boom"}, status=503)
REFUSED = FaultKind.REFUSED
CALL = {"function": {"name": "f", "arguments": {}}}


def thought(text: str) -> dict[str, Any]:
    line = delta("")
    line["message"]["thinking"] = text
    return line


def tool_call() -> dict[str, Any]:
    line = delta("")
    line["message"]["tool_calls"] = [CALL]
    return line


def fail_visits(world: World, count: int = 5) -> None:
    for _ in range(count):
        with pytest.raises(errors.OllamaBridgeError) as caught:
            world.chat()
        assert not isinstance(caught.value, errors.CircuitOpen), "it was not even tried"


def failures(world: World) -> tuple[int, int]:
    """Return those of the endpoint, and of the model."""
    return world.router.facts("default").failures, world.router.facts("default/m").failures


def begun(world: World, **facts: Any) -> Flow[ChatReply]:
    """Return a stream after its first piece; the driver's next step is ``send(None)``."""
    steps = world.flow(exchanges.streamed, **facts)
    assert isinstance(next(steps), Open)
    head, line, *_ = stream(delta("Half"))
    assert isinstance(steps.send(head), Read)
    assert isinstance(steps.send(line), Emit)
    return steps


# What comes.


def test_a_stream_emits_each_piece_and_ends_with_the_whole() -> None:
    world = World()
    world.script = [stream(delta("Wa"), delta("ter"), last())]
    deltas, answer = world.stream()
    assert [piece.text for piece in deltas] == ["Wa", "ter"]
    assert answer == "Water"
    assert (answer.done_reason, answer.usage.completion_tokens) == ("stop", 2)
    assert not answer.truncated
    assert isinstance(world.actions[0], Open)
    assert isinstance(world.events[-1], CallAnswered)


def test_the_last_line_may_hold_text_too() -> None:
    world = World()
    ending = last()
    ending["message"]["content"] = "ter"
    world.script = [stream(delta("Wa"), ending)]
    deltas, answer = world.stream()
    assert ([piece.text for piece in deltas], answer) == (["Wa", "ter"], "Water")
    assert answer.done_reason == "stop"


def test_thinking_and_tool_calls_are_collected() -> None:
    world = World()
    world.script = [stream(thought("H"), thought("m"), delta("Aha"), tool_call(), last())]
    deltas, answer = world.stream()
    assert [(piece.thinking, piece.text, piece.tool_calls) for piece in deltas] == [
        ("H", "", ()),
        ("m", "", ()),
        ("", "Aha", ()),
        ("", "", (CALL,)),
    ]
    assert (answer, answer.thinking, answer.tool_calls) == ("Aha", "Hm", (CALL,))


def test_a_line_with_nothing_in_it_is_no_piece() -> None:
    world = World()
    world.script = [stream(delta(""), delta("Wa"), delta(""), delta("ter"), last())]
    deltas, _ = world.stream(max_chunks=2)
    assert [piece.text for piece in deltas] == ["Wa", "ter"]


TEXT = st.text(
    st.one_of(st.sampled_from("\n\r\u0085\u2028\0é🤖 "), st.characters(exclude_categories=["Cs"]))
)


@given(
    st.lists(st.tuples(TEXT, st.sampled_from(["\n", "\r\n", "\n\n", "\r\n \r\n\t\n"]))),
    st.lists(st.integers(1, 40), min_size=1),
    st.sampled_from(["", "\n", "\r\n"]),
    st.booleans(),
)
def test_pieces_come_out_whole_wherever_the_network_cuts_their_lines(
    texts: list[tuple[str, str]], cuts: list[int], end: str, escaped: bool
) -> None:
    lines = [json.dumps(delta(text), ensure_ascii=escaped) + ending for text, ending in texts]
    data = ("".join(lines) + json.dumps(last()) + end).encode()
    pieces: list[object] = []
    while data:
        size = cuts[len(pieces) % len(cuts)]
        pieces.append(data[:size])
        data = data[size:]
    world = World([endpoint(max_response_bytes=10**9)])
    world.script = [[stream()[0], *pieces, b""]]
    deltas, answer = world.stream()
    assert [piece.text for piece in deltas] == [text for text, _ in texts if text]
    assert answer == "".join(text for text, _ in texts)
    assert answer.done_reason == "stop"


def test_what_comes_behind_the_last_line_is_not_looked_at() -> None:
    world = World()
    world.script = [stream(delta("ok"), last(), b"<html>")]
    assert world.stream()[1] == "ok"
    world.script = [stream(delta("ok"), json.dumps(last()).encode() + b"\n<html>\n")]
    assert world.stream()[1] == "ok"


def test_a_last_line_without_newline_may_still_not_be_the_end() -> None:
    world = World()
    head, line, *_ = stream(delta("Half"))
    assert isinstance(line, bytes)
    world.script = [[head, line.rstrip(b"\n"), b""]]
    with pytest.raises(errors.StreamInterrupted) as caught:
        world.stream()
    assert caught.value.partial == "Half"


# Bounds of size.


@pytest.mark.parametrize(
    ("most", "text", "truncated"),
    [(1, "a", True), (2, "ab", True), (3, "abc", False), (4, "abc", False)],
)
def test_only_a_stream_that_had_more_is_truncated(most: int, text: str, truncated: bool) -> None:
    world = World()
    world.script = [stream(delta("a"), delta("b"), delta("c"), last())]
    deltas, answer = world.stream(max_chunks=most)
    assert (answer, answer.truncated) == (text, truncated)
    assert "".join(piece.text for piece in deltas) == text
    assert answer.done_reason == ("" if truncated else "stop")
    assert world.actions[-1] == Finish(0.0 if truncated else world.time.now + 0.05)
    assert failures(world) == (0, 0)
    assert isinstance(world.events[-1], CallAnswered)


def test_thinking_and_tool_calls_count_as_pieces() -> None:
    world = World()
    lines = thought("Hm"), tool_call(), delta("a"), last()
    world.script = [stream(*lines)]
    _, answer = world.stream(max_chunks=1)
    assert (answer, answer.thinking, answer.tool_calls, answer.truncated) == ("", "Hm", (), True)
    world.script = [stream(*lines)]
    _, answer = world.stream(max_chunks=2)
    assert (answer, answer.tool_calls, answer.truncated) == ("", (CALL,), True)


@pytest.mark.parametrize(
    ("most", "thinking", "text", "truncated"),
    [
        (1, "H", "", True),
        (2, "Hm", "", True),
        (3, "Hm", "", True),  # the Ö has two bytes
        (4, "Hm", "Ö", True),
        (5, "Hm", "Öl", False),
    ],
)
def test_bytes_are_those_of_text_and_thinking_and_no_character_is_cut(
    most: int, thinking: str, text: str, truncated: bool
) -> None:
    world = World()
    world.script = [stream(thought("Hm"), delta("Öl"), last())]
    deltas, answer = world.stream(max_bytes=most)
    assert (answer.thinking, answer, answer.truncated) == (thinking, text, truncated)
    assert all(piece.text or piece.thinking for piece in deltas), "no piece is empty"


def test_a_piece_that_thinks_and_speaks_is_cut_in_that_order() -> None:
    world = World()
    both = delta("Öl")
    both["message"]["thinking"] = "Hm"
    world.script = [stream(both, last())]
    _, answer = world.stream(max_bytes=4)
    assert (answer.thinking, answer, answer.truncated) == ("Hm", "Ö", True)


@given(st.lists(TEXT), st.integers(1, 60))
def test_a_stream_gives_as_many_bytes_as_it_may(texts: list[str], most: int) -> None:
    world = World([endpoint(max_response_bytes=10**9)])
    world.script = [stream(*map(delta, texts), last())]
    deltas, answer = world.stream(max_bytes=most)
    whole = "".join(texts)
    size = len(answer.encode())
    assert whole.startswith(answer)
    assert size <= most
    assert answer.truncated is (len(whole.encode()) > most)
    assert not answer.truncated or most - size < len(whole[len(answer)].encode())
    assert "".join(piece.text for piece in deltas) == answer


def test_nothing_more_is_read_once_a_bound_is_reached() -> None:
    world = World()
    world.script = [stream(delta("a"), delta("b"), end=FaultKind.CUT)]
    assert world.stream(max_chunks=1)[1].truncated
    assert world.pending == [FaultKind.CUT]


@pytest.mark.parametrize("bounds", [{"max_chunks": 1}, {"max_bytes": 4}])
@pytest.mark.parametrize(
    "end", [stream(end=FaultKind.SLOW), stream(end=FaultKind.CUT), stream({"error": "boom"})]
)
def test_what_breaks_once_the_caller_has_all_he_may_have_ends_the_stream_well(
    end: list[Any], bounds: dict[str, int]
) -> None:
    world = World()
    world.script = [[*stream(delta("Half"))[:2], *end[1:]]]
    deltas, answer = world.stream(**bounds)
    assert (deltas, answer, answer.truncated) == (["Half"], "Half", True)
    assert world.actions[-1] == Finish(0.0)
    assert failures(world) == (0, 0)
    assert isinstance(world.events[-1], CallAnswered)


def test_what_fits_into_the_largest_reply_comes_out_before_the_rest_is_refused() -> None:
    world = World([endpoint(max_response_bytes=1000)])
    line = json.dumps(delta("Half")).encode() + b"\n"
    world.script = [[stream()[0], line + b"x" * 2000]]
    with pytest.raises(errors.StreamInterrupted, match="larger than MAX_RESPONSE_BYTES") as caught:
        world.stream()
    assert caught.value.partial == "Half"
    ending = json.dumps(last()).encode() + b"\n"
    padding = b" " * (1000 - len(line) - len(ending))
    world.script = [[stream()[0], line + padding + ending]]
    assert world.stream()[1] == "Half", "as many bytes as there may be"
    world.script = [[stream()[0], line + padding + b"  " + ending.rstrip(b"\n"), b""]]
    with pytest.raises(errors.StreamInterrupted, match="larger than MAX_RESPONSE_BYTES"):
        world.stream()


def test_the_body_of_a_refused_stream_is_bounded() -> None:
    world = World()
    world.script = [reply(b"x" * 20_000, status=500)]
    with pytest.raises(errors.InvalidReply, match="larger than MAX_RESPONSE_BYTES"):
        world.stream()


# Bounds of time.

BEGINNINGS: list[tuple[dict[str, Any], dict[str, Any], float, str, int]] = [
    # settings, the call's: the seconds to begin, what they are called, and whether they count.
    ({}, {}, 60.0, "first_token", 1),
    ({}, {"timeout": 10.0}, 10.0, "total", 0),
    ({}, {"timeout": 100.0}, 100.0, "total", 1),
    ({}, {"first_token_timeout": 20.0}, 20.0, "first_token", 0),
    ({}, {"first_token_timeout": 90.0}, 90.0, "first_token", 1),
    ({}, {"first_token_timeout": 20.0, "timeout": 10.0}, 10.0, "total", 0),
    ({}, {"first_token_timeout": 10.0, "timeout": 10.0}, 10.0, "total", 0),
    ({}, {"first_token_timeout": 10.0, "timeout": 20.0}, 10.0, "first_token", 0),
    ({"first_token_timeout": 15.0}, {}, 15.0, "first_token", 1),
    ({"first_token_timeout": 15.0}, {"timeout": 100.0}, 15.0, "first_token", 1),
    ({"first_token_timeout": 15.0}, {"timeout": 10.0}, 10.0, "total", 0),
    ({"first_token_timeout": 15.0}, {"first_token_timeout": 30.0}, 30.0, "first_token", 1),
    ({"first_token_timeout": 15.0}, {"first_token_timeout": 5.0}, 5.0, "first_token", 0),
    ({"first_token_timeout": 90.0}, {}, 90.0, "first_token", 1),
    ({"first_token_timeout": 90.0}, {"timeout": 70.0}, 70.0, "total", 0),
    ({}, {"chunk_timeout": 1.0}, 60.0, "first_token", 1),
]


@pytest.mark.parametrize(("settings", "facts", "seconds", "phase", "counted"), BEGINNINGS, ids=str)
def test_a_stream_has_its_own_time_to_begin(
    settings: dict[str, Any], facts: dict[str, Any], seconds: float, phase: str, counted: int
) -> None:
    world = World([endpoint(**settings)])
    world.script = [FaultKind.SILENT]
    with pytest.raises(errors.Timeout, match="the model is still loading") as caught:
        world.stream(**facts)
    assert world.sent[0].until == 1000 + seconds
    assert caught.value.phase == phase
    assert failures(world) == (counted, 0)
    assert world.actions[-1] == world.sent[0], "nothing is open that could be finished"


@pytest.mark.parametrize(("settings", "facts", "seconds", "phase", "counted"), BEGINNINGS, ids=str)
def test_the_head_alone_is_no_beginning(
    settings: dict[str, Any], facts: dict[str, Any], seconds: float, phase: str, counted: int
) -> None:
    world = World([endpoint(**settings)])
    world.script = [stream(delta(""), end=FaultKind.SLOW)]
    with pytest.raises(errors.Timeout) as caught:
        world.stream(**facts)
    assert {action.until for action in world.actions if isinstance(action, Read)} == {
        1000 + seconds
    }
    assert (caught.value.phase, caught.value.partial) == (phase, "")
    assert failures(world) == (0, counted)


def test_the_first_tokens_time_is_nothing_to_a_chat() -> None:
    world = World([endpoint(first_token_timeout=5.0)])
    world.script = [FaultKind.SILENT]
    with pytest.raises(errors.Timeout) as caught:
        world.chat()
    assert (world.sent[0].until, caught.value.phase) == (1060, "total")


def test_repeats_share_the_time_to_begin() -> None:
    world = World()
    world.script = [BROKEN, REFUSED, stream(delta("ok"), last())]
    assert world.stream(first_token_timeout=20.0)[1] == "ok"
    assert {send.until for send in world.sent} == {1020}


SILENCES: list[tuple[dict[str, Any], dict[str, Any], float, str, int]] = [
    # settings, the call's: the seconds of a silence, what it is called, and whether it counts.
    ({}, {}, 30.0, "idle", 1),
    ({}, {"chunk_timeout": 5.0}, 5.0, "idle", 0),
    ({}, {"chunk_timeout": 30.0}, 30.0, "idle", 1),
    ({}, {"chunk_timeout": 50.0}, 50.0, "idle", 1),
    ({"chunk_timeout": 8.0}, {}, 8.0, "idle", 1),
    ({"chunk_timeout": 8.0}, {"chunk_timeout": 9.0}, 9.0, "idle", 1),
    ({}, {"timeout": 10.0}, 9.9, "total", 0),
    ({}, {"timeout": 1000.0}, 30.0, "idle", 1),
    ({}, {"timeout": 10.0, "chunk_timeout": 5.0}, 5.0, "idle", 0),
    ({}, {"timeout": 10.0, "chunk_timeout": 50.0}, 9.9, "total", 0),
    ({}, {"first_token_timeout": 1.0}, 30.0, "idle", 1),
]


@pytest.mark.parametrize(("settings", "facts", "seconds", "phase", "counted"), SILENCES, ids=str)
def test_a_silence_after_the_first_piece_has_its_own_time(
    settings: dict[str, Any], facts: dict[str, Any], seconds: float, phase: str, counted: int
) -> None:
    world = World([endpoint(**settings)])
    world.script = [stream(delta("Half"), end=FaultKind.SLOW)]
    with pytest.raises(errors.Timeout) as caught:
        world.stream(**facts)
    *_, silence = (action for action in world.actions if isinstance(action, Read))
    assert silence.until == pytest.approx(1000.1 + seconds)
    assert (caught.value.phase, caught.value.partial) == (phase, "Half")
    assert failures(world) == (0, counted)


def test_a_stream_without_a_timeout_may_last_for_ever() -> None:
    world = World()
    steps = begun(world)
    for _ in range(100):
        read = steps.send(None)
        assert read == Read(world.time.now + 30)
        world.time.now += 20
        assert isinstance(steps.send(json.dumps(delta("a")).encode() + b"\n"), Emit)
    steps.close()


def test_the_time_that_the_reader_takes_is_not_idle_time() -> None:
    world = World()
    steps = begun(world)
    world.time.now += 1000
    assert steps.send(None) == Read(world.time.now + 30)
    steps.close()


def test_the_whole_ends_while_the_reader_takes_its_time() -> None:
    world = World()
    steps = begun(world, timeout=10.0)
    world.time.now += 1000
    assert steps.send(None) == Read(1010.0)
    assert steps.throw(TransportFault(FaultKind.SLOW)) == Finish(0.0)
    with pytest.raises(errors.Timeout) as caught:
        steps.send(None)
    assert caught.value.phase == "total"
    assert failures(world) == (0, 0)


# What breaks.


def test_an_error_before_the_first_piece_is_repeated_as_in_any_call() -> None:
    world = World()
    world.script = [BROKEN, [stream()[0], FaultKind.CUT]]
    world.script += [stream(delta("ok"), last())]
    _, answer = world.stream()
    assert answer == "ok"
    assert world.slept == [1.0, 2.0]


def test_a_connection_that_drops_after_a_head_is_replayed_on_a_fresh_one() -> None:
    world = World()
    world.script = [[stream()[0], FaultKind.DROPPED], stream(delta("ok"), last())]
    _, answer = world.stream()
    assert (answer, len(answer.attempts)) == ("ok", 1)
    assert [send.fresh for send in world.sent] == [False, True]
    assert [type(action) for action in world.actions[:4]] == [Open, Read, Finish, Open]


@pytest.mark.parametrize(
    ("tail", "sentence"),
    [
        ([FaultKind.CUT], "broke inside"),
        ([FaultKind.DROPPED], "closed the connection"),
        ([FaultKind.GARBLED], "not HTTP"),
        ([FaultKind.TOO_LARGE], "larger than MAX_RESPONSE_BYTES"),
        ([b""], "without saying that it is done"),
        ([b'{"error":"an error was encountered while running the model: EOF"}\n'], "crashed"),
        ([b'{"error":"boom"}\n'], "reported an error inside"),
        ([b"<html>\n"], "no reply of Ollama's"),
        ([b'{"response":"of generate"}\n'], "no reply of Ollama's"),
        ([b"x" * 20_000], "larger than MAX_RESPONSE_BYTES"),
    ],
)
def test_what_breaks_after_the_first_piece_keeps_the_text_and_is_never_repeated(
    tail: list[object], sentence: str
) -> None:
    world = World()
    world.script = [[*stream(delta("Half a sen"))[:-1], *tail]]
    with pytest.raises(errors.StreamInterrupted, match=sentence) as caught:
        world.stream()
    error = caught.value
    assert error.partial == "Half a sen"
    assert "Half" not in f"{error} {error!r} {error.args}"
    assert (error.status, error.endpoint, error.model) == (200, "default", "m")
    assert [(one.code, one.status) for one in error.attempts] == [("stream_interrupted", 200)]
    assert len(world.sent) == 1
    assert failures(world) == (0, 1)
    assert isinstance(world.events[-1], CallFailed)


def test_a_stream_that_only_thought_has_begun_too() -> None:
    world = World()
    world.script = [stream(thought("Hm"), end=FaultKind.CUT)]
    with pytest.raises(errors.StreamInterrupted) as caught:
        world.stream()
    assert caught.value.partial == ""
    assert len(world.sent) == 1


def test_an_end_without_done_before_the_first_piece_is_an_invalid_reply() -> None:
    world = World()
    world.script = [stream()]
    with pytest.raises(errors.InvalidReply, match="without saying that it is done"):
        world.stream()


class Watching(World):
    """Sees, of each ``Finish``, how long it may take, and how many slots are taken then."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.finished: list[tuple[float, int]] = []

    def perform(self, action: Action) -> Any:
        if isinstance(action, Finish):
            place = self.router.place(self.router.default.endpoint)
            self.finished.append((action.until, place.model("m").limiter.in_flight))
        return super().perform(action)


FAILING: list[object] = [
    reply({"error": "x"}, status=400),
    [stream()[0], FaultKind.SLOW],
    [stream()[0], b"<html>\n"],
    stream(),
    stream(delta("a"), end=FaultKind.CUT),
    stream(delta("a"), end=FaultKind.SLOW),
    stream(delta("a"), {"error": "boom"}),
    stream(delta("a")),
    stream(delta("a"), b"x" * 20_000),
]


@pytest.mark.parametrize("step", FAILING, ids=range(len(FAILING)))
def test_what_failed_is_closed_at_once_and_before_its_slot_goes_to_others(step: Any) -> None:
    world = Watching([endpoint(retry=RetryPolicy(max_retries=0))])
    world.script = [step]
    with pytest.raises(errors.OllamaBridgeError):
        world.stream()
    assert world.finished == [(0.0, 1)]
    assert world.router.place(world.router.default.endpoint).model("m").limiter.in_flight == 0


def test_the_end_of_a_good_stream_has_a_moment_to_come_and_keeps_the_connection() -> None:
    world = Watching()
    world.script = [stream(delta("a"), last())]
    world.stream()
    assert world.finished == [(world.time.now + 0.05, 1)]


def test_a_truncated_stream_is_closed_at_once() -> None:
    world = Watching()
    world.script = [stream(delta("a"), delta("b"), last())]
    world.stream(max_chunks=1)
    assert world.finished == [(0.0, 1)]


def test_a_stream_that_failed_is_closed_before_it_is_repeated_elsewhere() -> None:
    once = RetryPolicy(max_retries=0)
    world = World([endpoint("a", retry=once), endpoint("b", retry=once)])
    world.script = [BROKEN, stream(delta("ok"), last())]
    assert world.stream()[1].endpoint == "b"
    assert [type(action) for action in world.actions[:5]] == [Open, Read, Read, Finish, Open]


def test_a_stream_that_has_begun_is_not_taken_elsewhere() -> None:
    world = World([endpoint("a"), endpoint("b")])
    world.script = [stream(delta("Half"), end=FaultKind.CUT)]
    with pytest.raises(errors.OllamaBridgeError) as caught:
        world.stream()
    assert [send.endpoint.name for send in world.sent] == ["a"]
    assert getattr(caught.value, "partial", "") == "Half"


# The circuit.


def test_a_probing_stream_decides_at_its_first_good_line() -> None:
    world = World()
    world.default = REFUSED
    fail_visits(world)
    world.time.now += 5
    steps = world.flow(exchanges.streamed)
    next(steps)
    head, piece, *_ = stream(delta("a"))
    steps.send(head)
    assert world.router.facts("default").state is State.HALF_OPEN
    steps.send(piece)
    assert world.router.facts("default").state is State.CLOSED
    assert steps.throw(TransportFault(FaultKind.CUT)) == Finish(0.0)
    with pytest.raises(errors.StreamInterrupted):
        steps.send(None)
    assert failures(world) == (0, 1), "the rest has an outcome of its own"


def test_a_probe_whose_first_line_is_bad_opens_the_circuit_again() -> None:
    world = World()
    world.default = reply({"error": "boom"}, status=500)
    fail_visits(world)
    world.time.now += 5
    world.script = [stream({"error": "boom"})]
    with pytest.raises(errors.ServerFailed):
        world.stream()
    assert world.router.facts("default/m").state is State.OPEN


def go_on_while_the_circuit_is_open(world: World, steps: Flow[ChatReply]) -> ChatReply:
    """Give a stream that has its head one piece and its end."""
    _, piece, ending, *_ = stream(delta("Good"), last())
    assert isinstance(steps.send(piece), Emit)
    assert isinstance(steps.send(None), Read)
    assert isinstance(steps.send(ending), Finish)
    with pytest.raises(StopIteration) as end:
        steps.send(None)
    answer: ChatReply = end.value.value
    return answer


def test_a_good_stream_goes_on_although_others_have_opened_the_circuit() -> None:
    world = World()
    steps = world.flow(exchanges.streamed)
    next(steps)
    steps.send(stream()[0])
    world.default = REFUSED
    fail_visits(world)
    generation = world.router.facts("default").generation
    assert go_on_while_the_circuit_is_open(world, steps) == "Good"
    facts = world.router.facts("default")
    assert (facts.state, facts.generation) == (State.OPEN, generation), "and counts for nothing"


def test_a_stream_that_breaks_after_others_have_opened_the_circuit_counts_for_nothing() -> None:
    world = World()
    steps = world.flow(exchanges.streamed)
    next(steps)
    head, piece, *_ = stream(delta("Half"))
    steps.send(head)
    world.default = REFUSED
    fail_visits(world)
    assert isinstance(steps.send(piece), Emit)
    before = world.router.facts("default"), world.router.facts("default/m")
    assert steps.throw(TransportFault(FaultKind.CUT)) == Finish(0.0)
    with pytest.raises(errors.StreamInterrupted):
        steps.send(None)
    assert (world.router.facts("default"), world.router.facts("default/m")) == before


def test_a_stream_that_has_begun_is_not_ended_by_an_operator() -> None:
    world = World()
    steps = world.flow(exchanges.streamed)
    next(steps)
    steps.send(stream()[0])
    world.router.set_mode("default", Mode.FORCED_OPEN)
    assert go_on_while_the_circuit_is_open(world, steps) == "Good"
    assert world.router.facts("default").mode is Mode.FORCED_OPEN


# Leaving.


def left(world: World, steps: Flow[ChatReply]) -> CallCancelled:
    """Leave a call, and return what was told of it."""
    world.time.now += 2
    steps.close()
    place = world.router.place(world.router.default.endpoint)
    limiter = place.model("m").limiter
    assert (limiter.in_flight, limiter.waiting) == (0, 0)
    assert failures(world) == (0, 0)
    *_, event = world.events
    assert isinstance(event, CallCancelled)
    return event


def test_who_leaves_in_the_middle_is_told_apart_from_who_fails() -> None:
    world = World()
    event = left(world, begun(world))
    assert event == CallCancelled(seconds=2.0, endpoint="default", model="m", request_id="r")
    assert [type(event).__name__ for event in world.events] == ["CallStarted", "CallCancelled"]


def test_who_leaves_before_the_head_comes_is_neutral() -> None:
    world = World()
    steps = world.flow(exchanges.streamed)
    assert isinstance(next(steps), Open)
    left(world, steps)


def test_who_leaves_while_it_sleeps_is_neutral() -> None:
    world = World()
    steps = world.flow(exchanges.streamed, model="m")
    next(steps)
    assert isinstance(steps.throw(TransportFault(FaultKind.REFUSED)), Sleep)
    left(world, steps)


def test_who_leaves_while_it_waits_for_a_slot_has_sent_nothing() -> None:
    world = World([endpoint(max_concurrency=1)])
    first, second = world.flow(exchanges.whole), world.flow(exchanges.streamed)
    assert isinstance(next(first), Send)
    assert isinstance(next(second), Wait)
    second.close()
    assert [type(event).__name__ for event in world.events] == ["CallStarted", "CallCancelled"]
    with pytest.raises(StopIteration):
        first.send(reply())


def test_a_stream_that_nobody_ever_began_is_no_call() -> None:
    world = World()
    world.flow(exchanges.streamed).close()
    assert world.events == []


def test_a_prober_that_leaves_gives_its_lease_back() -> None:
    world = World()
    world.default = REFUSED
    fail_visits(world)
    world.time.now += 5
    steps = world.flow(exchanges.streamed)
    next(steps)
    with pytest.raises(errors.CircuitOpen):
        world.chat()
    steps.close()
    world.script = [stream(delta("ok"), last())]
    assert world.stream()[1] == "ok"
    assert world.router.facts("default").state is State.CLOSED


def test_nothing_that_travels_shows_what_is_said() -> None:
    world = World()
    world.script = [stream(thought("canary"), delta("canary"), last())]
    deltas: list[Delta] = world.stream()[0]
    assert len(deltas) == 2
    assert "canary" not in repr([*world.actions, *world.events, *deltas])
