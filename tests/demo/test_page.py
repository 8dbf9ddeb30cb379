"""The page at /: what it says, and that a strict policy lets it work."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from django.contrib.staticfiles import finders
from django.test import Client

from demo_project import simulator
from demo_project.page import in_words
from ollama_bridge import conf

pytestmark = pytest.mark.usefixtures("configure")

Configure = Callable[..., None]


class _Tags(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def of(self, *names: str) -> list[dict[str, str | None]]:
        return [attrs for tag, attrs in self.tags if tag in names]


def _classes(tags: _Tags) -> set[str]:
    return {name for _, each in tags.tags for name in (each.get("class") or "").split()}


def _html() -> str:
    response = Client().get("/")
    assert response.status_code == 200
    return response.content.decode()


def _static(name: str) -> str:
    path = finders.find(f"demo/{name}")
    assert isinstance(path, str)
    return Path(path).read_text(encoding="utf-8")


def _scripts() -> dict[str, str]:
    """Return the text of each module that the page loads, by name."""
    found = {"page.js": _static("page.js")}
    while missing := {name for text in found.values() for name in _imports(text)} - set(found):
        found |= {name: _static(name) for name in missing}
    return found


def _imports(script: str) -> list[str]:
    return re.findall(r'^import .+ from "\./([\w.]+)";$', script, re.MULTILINE)


def _script() -> str:
    return "\n".join(_scripts().values())


def test_a_strict_policy_comes_with_the_page_and_not_with_the_admin() -> None:
    policy = Client().get("/").headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert "unsafe" not in policy
    assert "connect-src 'self'" in policy
    for path in ("/admin/login/", "/nowhere", "/api/mentor/health/live/"):
        assert "Content-Security-Policy" not in Client().get(path).headers


def test_the_browser_itself_refuses_to_make_markup_of_text() -> None:
    policy = Client().get("/").headers["Content-Security-Policy"].split("; ")
    assert {"require-trusted-types-for 'script'", "trusted-types 'none'"} <= set(policy)


def test_nothing_in_it_is_inline_or_from_elsewhere() -> None:
    tags = _Tags(_html())
    assert tags.of("style") == []
    (script,) = tags.of("script")
    assert script == {"type": "module", "src": "/static/demo/page.js"}
    for _, attributes in tags.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        for name in ("src", "href", "action"):
            assert (attributes.get(name) or "/").startswith("/")


def test_what_it_refers_to_is_there() -> None:
    tags = _Tags(_html())
    for attributes in tags.of("script", "link", "img"):
        address = attributes.get("src") or attributes.get("href") or ""
        assert finders.find(address.removeprefix("/static/"))


def test_what_the_script_looks_for_is_in_the_page() -> None:
    tags = _Tags(_html())
    script = _script()
    ids = {attributes.get("id") for _, attributes in tags.tags}
    used = set(re.findall(r'find\("([\w-]+)"\)', script))
    assert used
    assert used <= ids
    parts = set(re.findall(r'part\(turn, "([\w-]+)"\)', script))
    assert parts
    assert parts <= _classes(tags)


def test_no_id_is_there_twice() -> None:
    ids = [attributes["id"] for _, attributes in _Tags(_html()).tags if "id" in attributes]
    assert len(set(ids)) == len(ids)


def test_scripts_and_styles_need_nothing_else() -> None:
    scripts = _scripts()
    folder = Path(str(finders.find("demo/page.js"))).parent
    assert set(scripts) == {path.name for path in folder.glob("*.js")}
    for text in (*scripts.values(), _static("page.css")):
        assert len(re.findall(r"^import\b|\bimport\(", text, re.MULTILINE)) == len(_imports(text))
        code = re.sub(r"^ *//.*$", "", text, flags=re.MULTILINE)
        for elsewhere in ("://", "'//", '"//', "`//", "@import", "url("):
            assert elsewhere not in code


def test_answers_are_shown_as_text_only() -> None:
    script = _script()
    for danger in (
        "innerHTML",
        "outerHTML",
        "insertAdjacent",
        "document.write",
        "eval(",
        "srcdoc",
        "DOMParser",
        "createContextualFragment",
        "setHTML",
    ):
        assert danger not in script


def test_only_the_tab_remembers_the_conversation_as_the_page_says() -> None:
    assert "no answer; only this tab remembers them, until you close it or begin anew" in _html()
    script = _script()
    assert "sessionStorage" in script
    for lasting in ("localStorage", "document.cookie", "indexedDB", "caches.", "history.push"):
        assert lasting not in script


def test_the_conversation_is_a_log_that_starts_silent_and_what_ticks_stays_silent() -> None:
    tags = _Tags(_html())
    (log,) = [each for each in tags.of("section") if each.get("role") == "log"]
    assert log["aria-live"] == "off"
    assert log["aria-label"]
    timers = [each for _, each in tags.tags if each.get("role") == "timer"]
    assert len(timers) == 2
    assert {each["aria-live"] for each in timers} == {"off"}


def test_an_answer_is_not_live_while_it_grows_but_read_elsewhere() -> None:
    tags = _Tags(_html())
    reply = next(each for _, each in tags.tags if each.get("class") == "reply")
    assert reply["aria-live"] == "off"
    heard = next(each for _, each in tags.tags if each.get("id") == "heard")
    assert (heard["role"], heard["aria-live"]) == ("log", "polite")
    assert heard["aria-label"]
    assert heard["class"] == "unseen"


def test_what_moves_heeds_who_wants_it_still() -> None:
    calm, lively = _static("page.css").split("@media (prefers-reduced-motion: no-preference)")
    assert "animation" not in calm
    assert "animation" in lively


def test_each_button_says_whether_it_sends_and_what_it_does() -> None:
    buttons = _Tags(_html()).of("button")
    assert [each["id"] for each in buttons if each["type"] == "submit"] == ["send"]
    assert {each["type"] for each in buttons} == {"submit", "button"}


def test_it_knows_how_much_history_the_api_takes(configure: Configure) -> None:
    configure(MAX_HISTORY=7, MAX_BODY_BYTES=12_345)
    (form,) = _Tags(_html()).of("form")
    assert form["data-most-messages"] == "7"
    assert form["data-most-bytes"] == "12345"


def test_each_control_has_its_label() -> None:
    tags = _Tags(_html())
    labelled = {attributes["for"] for attributes in tags.of("label")}
    assert labelled == {attributes["id"] for attributes in tags.of("textarea", "select")}


def test_it_offers_twelve_classes_and_the_limit_of_the_settings(configure: Configure) -> None:
    configure(MAX_MESSAGE_CHARS=123)
    tags = _Tags(_html())
    assert len(tags.of("option")) == 12
    assert tags.of("textarea")[0]["maxlength"] == "123"
    assert tags.of("form")[0]["action"] == "/api/mentor/chat/"
    assert tags.of("input")[0]["name"] == "csrfmiddlewaretoken"


def test_without_javascript_it_says_so_and_sends_nothing() -> None:
    html = _html()
    assert "<noscript>" in html
    assert "disabled" in _Tags(html).of("fieldset")[0]


def test_it_names_the_server_and_the_model(configure: Configure) -> None:
    configure(MODEL="<i>tiny</i>")
    html = _html()
    assert f"<b>{conf.current().BASE_URL}</b>" in html
    assert "<b>&lt;i&gt;tiny&lt;/i&gt;</b>" in html
    assert "simulator" not in html


def test_it_says_that_the_simulator_answers(settings: Any) -> None:
    settings.OLLAMA_BRIDGE = {}
    with simulator.standing_in("llama3.2"):
        html = _html()
    assert "from the bundled simulator, not from a language model" in html
    assert '<p class="who small simulated">Simulator</p>' in html


def test_it_says_that_it_is_open_and_how_far(configure: Configure) -> None:
    assert "open to everyone on purpose, up to 60 questions per minute" in _html()
    configure(THROTTLE_RATE=None)
    assert "open to everyone on purpose. It keeps no question" in _html()


@pytest.mark.parametrize(
    ("rate", "words"),
    [(None, ""), ("5/s", "5 questions per second"), ("9/days", "9 questions per day")],
)
def test_a_rate_is_said_in_words(rate: str | None, words: str) -> None:
    assert in_words(rate) == words
