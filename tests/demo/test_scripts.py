"""The page's scripts, as far as they need no page. They are run by node, where there is one."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import demo_project

SCRIPTS = Path(demo_project.__file__).parent / "static" / "demo"
OLDEST = 18  # with the streams of the Web

Run = Callable[[str], Any]

EVENTS = """\
\ufeff: a comment
event: delta
data: {"text": "Wäs\u2028ser 💧"}

data:first
data: second
data
id: 7
unknown: field

event: nothing

:

event: done
data:  two spaces: and colons

data: an event without its blank line
"""
EXPECTED = [
    ["delta", '{"text": "Wäs\u2028ser 💧"}'],
    ["message", "first\nsecond\n"],
    ["done", " two spaces: and colons"],
]


@pytest.fixture(scope="session")
def node() -> str:
    """The path of node."""
    path = shutil.which("node")
    if path is None:
        pytest.skip("node is not installed; it would run the scripts")
    version = subprocess.check_output([path, "--version"], encoding="ascii")  # noqa: S603
    if int(version.lstrip("v").split(".")[0]) < OLDEST:
        pytest.skip(f"node {OLDEST} or newer would run the scripts; this is {version.strip()}")
    return path


@pytest.fixture
def run(node: str, tmp_path: Path) -> Run:
    """Return what runs a module beside the page's own, and returns what it gives to ``tell``."""
    shutil.copytree(SCRIPTS, tmp_path, dirs_exist_ok=True)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    tell = "const tell = (value) => console.log(JSON.stringify(value));\n"

    def run(script: str) -> Any:
        (tmp_path / "test.js").write_text(tell + script, encoding="utf-8")
        done = subprocess.run(  # noqa: S603  # our own script
            [node, "test.js"],
            cwd=tmp_path,
            capture_output=True,
            check=False,
            encoding="utf-8",
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


class TestEvents:
    @pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["lf", "crlf", "cr"])
    def test_are_the_same_wherever_the_bytes_are_cut(self, run: Run, end: str) -> None:
        found = run(f"""
            import {{ eventsOf }} from "./events.js";
            const bytes = new TextEncoder().encode({json.dumps(EVENTS.replace(chr(10), end))});
            async function read(pieces) {{
              const found = [];
              const stream = new ReadableStream({{
                start(controller) {{
                  pieces.forEach((piece) => controller.enqueue(piece));
                  controller.close();
                }},
              }});
              for await (const {{ type, data }} of eventsOf(stream)) {{
                found.push([type, data]);
              }}
              return JSON.stringify(found);
            }}
            const all = [await read([...bytes].map((byte) => Uint8Array.of(byte)))];
            for (let at = 0; at <= bytes.length; at++) {{
              all.push(await read([bytes.slice(0, at), bytes.slice(at)]));
            }}
            tell([...new Set(all)].map((each) => JSON.parse(each)));
        """)
        assert found == [EXPECTED]

    def test_end_where_the_connection_breaks(self, run: Run) -> None:
        found = run("""
            import { eventsOf } from "./events.js";
            const stream = new ReadableStream({
              start(controller) {
                controller.enqueue(new TextEncoder().encode("data: one\\n\\ndata: tw"));
              },
              pull(controller) {
                controller.error(new TypeError("network error"));
              },
            }, { highWaterMark: 0 });
            const found = [];
            for await (const { data } of eventsOf(stream)) {
              found.push(data);
            }
            tell(found);
        """)
        assert found == ["one"]

    def test_that_nobody_wants_any_more_close_the_connection(self, run: Run) -> None:
        found = run("""
            import { eventsOf } from "./events.js";
            let closed = false;
            const stream = new ReadableStream({
              pull: (controller) => controller.enqueue(new TextEncoder().encode("data: x\\n\\n")),
              cancel: () => { closed = true; },
            });
            for await (const { data } of eventsOf(stream)) {
              break;
            }
            tell(closed);
        """)
        assert found is True


LIMITS = "{ characters: 100, messages: 50, bytes: 10000 }"


class TestHistory:
    def test_has_only_answers_that_came_to_their_end(self, run: Run) -> None:
        fields = run(f"""
            import {{ requestOf }} from "./history.js";
            import {{ turnOf }} from "./turns.js";
            const done = {{ ...turnOf("a", 1), answer: "whole", isDone: true }};
            const stopped = {{ ...turnOf("b", 1), answer: "hal" }};
            const failed = turnOf("c", 1);
            const turn = turnOf("d", 3);
            tell(requestOf(turn, [done, stopped, failed, turn], {LIMITS}));
        """)
        history = [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "whole"},
        ]
        assert fields == {
            "fields": {"message": "d", "class_number": 3, "history": history},
            "leftOut": 0,
        }

    def test_loses_the_oldest_where_not_all_of_it_fits(self, run: Run) -> None:
        kept = run("""
            import { requestOf } from "./history.js";
            import { turnOf } from "./turns.js";
            const turns = [..."abcdefgh"].map((each) => (
              { ...turnOf(each, 1), answer: "x".repeat(50), isDone: true }));
            const told = (limits) => {
              const { fields, leftOut } = requestOf(turnOf("?", 1), turns, limits);
              return [fields.history.map((each) => each.content[0]).join(""), leftOut];
            };
            tell([
              told({ characters: 100, messages: 5, bytes: 10000 }),
              told({ characters: 100, messages: 50, bytes: 500 }),
            ]);
        """)
        assert kept == [["gxhx", 6], ["exfxgxhx", 4]]

    def test_holds_what_the_api_takes(self, run: Run) -> None:
        sent = run("""
            import { requestOf } from "./history.js";
            import { turnOf } from "./turns.js";
            const odd = { ...turnOf("q", 1), answer: "a\\u0000b\\ud83d\\n💧💧💧", isDone: true };
            const limits = { characters: 5, messages: 50, bytes: 10000 };
            tell(requestOf(turnOf("?", 1), [odd], limits).fields.history[1].content);
        """)
        assert sent == "ab\n💧💧"


class TestOutcomes:
    @pytest.mark.parametrize(
        ("body", "sentence"),
        [
            (
                {"error": "It took too long.", "code": "timeout"},
                "The answer broke off here. It took too long.",
            ),
            (
                {"error": "The answer was interrupted.", "code": "stream_interrupted"},
                "The answer was interrupted.",
            ),
        ],
        ids=["timeout", "interrupted"],
    )
    def test_in_the_middle_of_an_answer_say_that_it_broke_off(
        self, run: Run, body: dict[str, str], sentence: str
    ) -> None:
        problem = run(f"""
            import {{ midway, outcomeOf }} from "./outcomes.js";
            tell(midway(outcomeOf(0, {json.dumps({"success": False, **body})}).problem));
        """)
        assert problem["sentence"] == sentence
        assert problem["remedy"] == "again"

    @pytest.mark.parametrize(
        ("reply", "shortened"),
        [
            ({"done_reason": "stop"}, False),
            ({"done_reason": "length"}, True),
            ({"done_reason": None, "truncated": True}, True),
        ],
        ids=["stop", "length", "truncated"],
    )
    def test_tell_an_answer_that_was_cut_short(
        self, run: Run, reply: dict[str, object], shortened: bool
    ) -> None:
        found = run(f"""
            import {{ isShortened }} from "./outcomes.js";
            tell(isShortened({json.dumps(reply)}));
        """)
        assert found is shortened


class TestWhatATabRemembers:
    def test_calls_an_answer_whole_only_where_it_was(self, run: Run) -> None:
        turns = run("""
            import { problemOf } from "./outcomes.js";
            import { revived, turnOf } from "./turns.js";
            import { SAY } from "./words.js";
            tell([
              { ...turnOf("a", 1), answer: "whole", isDone: true, facts: "1 s" },
              { ...turnOf("b", 1), answer: "hal", stage: "writing" },
              { ...turnOf("c", 1), stage: "waiting" },
              { ...turnOf("d", 1), answer: "hal", problem: problemOf(SAY.stoppedHere) },
            ].map(revived).map(({ answer, problem, stage }) => (
              [answer, problem?.sentence ?? "", stage])));
        """)
        stopped = "You stopped the answer here. It will not be part of later questions."
        assert turns == [
            ["whole", "", ""],
            ["hal", "The answer broke off here.", ""],
            [None, "This question has no answer yet.", ""],
            ["hal", stopped, ""],
        ]


def test_an_answer_is_read_aloud_in_whole_sentences_with_pauses(run: Run) -> None:
    pauses, heard = run("""
        import { Reader } from "./reader.js";
        let pauses = 0;
        let passed = () => {};
        globalThis.setTimeout = (act) => { passed = act; pauses += 1; return pauses; };
        globalThis.clearTimeout = () => { passed = () => {}; };
        globalThis.document = { createElement: () => ({}) };
        const heard = [];
        const reader = new Reader({
          append: ({ textContent }) => heard.push(textContent),
          replaceChildren: () => {},
        });
        for (const piece of ["Water", " is", " wet.", " So", " is", " rain.", " I", "ce", "."]) {
          reader.add(piece);
          if (piece === " I") {
            passed();
          }
        }
        const before = pauses;
        reader.end();
        tell([before, heard]);
    """)
    assert pauses == 2
    assert heard == ["Water is wet. ", "So is rain. ", "Ice."]
