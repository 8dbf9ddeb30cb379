// A conversation with the class mentor: what the visitor does, and what follows from it.

import { chat } from "./chat.js";
import { beat } from "./clocks.js";
import { find, isTouched, put, say } from "./dom.js";
import { clean, requestOf } from "./history.js";
import { remember, remembered } from "./memory.js";
import { factsOf, isShortened, midway, problemOf } from "./outcomes.js";
import { Reader } from "./reader.js";
import { isTurn, revived, turnOf } from "./turns.js";
import * as views from "./views.js";
import { countdownTo, SAY } from "./words.js";

const form = find("ask");
const message = find("message");
const level = find("class-number");

const levels = [...level.options].map((option) => Number(option.value));
const limits = {
  characters: message.maxLength,
  messages: Number(form.dataset.mostMessages),
  bytes: Number(form.dataset.mostBytes),
};
const actions = { remedy: applyRemedy, copy };
const remedies = { again: askAgain, edit, reload: () => location.reload() };
const reader = new Reader(find("heard"));

let turns = [];
let previous = []; // the turns that "New conversation" put away
let pending = null; // what we wait for: its turn, since when, and how to stop it

/* A question and its answer */

async function ask(turn) {
  const { fields, leftOut } = requestOf(turn, turns, limits);
  const stopper = new AbortController();
  Object.assign(turn, turnOf(turn.question, turn.level), { leftOut, stage: "waiting" });
  turns = [...turns.filter((each) => each !== turn), turn];
  pending = { turn, stopper, began: performance.now() };
  find("log").ariaLive = "polite";
  reader.begin();
  views.place(turn, actions);
  refreshPage();
  views.reveal(turn);
  const unlessStopped = (act) => (what) => stopper.signal.aborted || act(turn, what);
  const listener = { delta: unlessStopped(write), thinking: unlessStopped(think) };
  const outcome = await chat(form, fields, stopper.signal, listener);
  if (!stopper.signal.aborted) {
    settle(outcome);
  }
}

function think(turn) {
  if (turn.stage === "waiting") {
    turn.stage = "thinking";
    tick();
  }
}

function write(turn, text) {
  views.following(turn, () => {
    if (turn.stage !== "writing") {
      Object.assign(turn, { stage: "writing", answer: "" });
      views.refresh(turn);
      tick();
    }
    turn.answer += text;
    views.extend(turn, text);
  });
  reader.add(text);
}

function settle({ reply, problem = null }) {
  const { turn, began } = pending;
  const wasWriting = turn.stage === "writing";
  const isWatched = views.isInView(turn);
  pending = null;
  turn.stage = "";
  if (reply) {
    const facts = factsOf(reply, (performance.now() - began) / 1000);
    const ended = isShortened(reply) ? problemOf(SAY.ended) : null;
    Object.assign(turn, { answer: reply.response, isDone: true, facts, problem: ended });
  } else {
    turn.problem = wasWriting ? midway(problem) : problem;
  }
  views.following(turn, () => views.refresh(turn));
  refreshPage();
  announce(turn, wasWriting);
  if (isWatched && !wasWriting) {
    views.reveal(turn);
  }
}

function announce({ answer, isDone, problem }, isHeard) {
  if (!isHeard && isDone) {
    reader.add(answer.trim() ? answer : SAY.silent);
  }
  reader.end();
  say(problem?.until ? `You can try again ${countdownTo(problem.until)}.` : "");
}

/* The page around it */

function refreshPage() {
  const focused = document.activeElement; // while it still has the focus
  find("welcome").hidden = turns.length > 0;
  find("anew").hidden = turns.length === 0;
  find("undo").hidden = previous.length === 0;
  find("send").hidden = pending !== null;
  find("stop").hidden = pending === null;
  if (focused?.closest("[hidden]")) {
    goHome();
  }
  hint();
  tick();
  save();
}

function tick() {
  beat(() => ({ turns, pending }));
}

function hint() {
  const left = limits.characters - message.value.length;
  const isTight = left < limits.characters / 10;
  const keys = pending ? "Esc stops" : "Enter sends, Shift + Enter starts a new line";
  put(find("hint"), isTight ? `${left} characters left` : keys);
  find("hint").classList.toggle("keys", !isTight);
}

// Focus goes to where one writes on; not under a finger, because that opens the keyboard.
function goHome() {
  const button = pending ? find("stop") : find("send");
  (isTouched() ? button : message).focus({ preventScroll: true });
}

function save() {
  remember({ draft: message.value, level: Number(level.value), turns });
}

function restore() {
  const stored = remembered();
  message.value = typeof stored.draft === "string" ? stored.draft : "";
  level.value = levels.includes(stored.level) ? stored.level : levels[0];
  show([stored.turns].flat().filter((turn) => isTurn(turn, levels)).map(revived));
}

function show(others) {
  find("log").ariaLive = "off"; // nobody wants to be read all of it
  turns = others;
  views.removeAll();
  turns.forEach((turn) => views.place(turn, actions));
  refreshPage();
  turns.slice(-1).forEach(views.reveal);
}

/* What the visitor does */

function submit() {
  const question = clean(message.value).trim();
  if (pending) {
    say(SAY.patience);
  } else if (question) {
    message.value = "";
    ask(turnOf(question, Number(level.value)));
  } else {
    message.focus();
  }
}

function applyRemedy(turn) {
  if (views.part(turn, "remedy").ariaDisabled !== "true") {
    remedies[turn.problem.remedy](turn);
  }
}

function askAgain(turn) {
  ask(turn);
  goHome(); // the button that had the focus is gone
}

function edit(turn) {
  message.value = [turn.question, message.value].filter(Boolean).join("\n");
  turns = turns.filter((each) => each !== turn);
  views.remove(turn);
  refreshPage();
  message.focus();
}

function halt() {
  if (pending) {
    pending.stopper.abort();
    reader.stop();
    settle({ problem: problemOf(SAY.stopped) });
  }
}

function beginAnew() {
  halt();
  reader.begin();
  previous = turns;
  show([]);
  scrollTo(0, 0);
  say("A new conversation.");
}

function bringBack() {
  show(previous);
  previous = [];
}

async function copy(turn) {
  const button = views.part(turn, "copy");
  const copying = navigator.clipboard.writeText(turn.answer);
  button.textContent = await copying.then(() => "Copied", () => "Not allowed");
  say(button.textContent);
  setTimeout(put, 2000, button, "Copy");
}

function onKey(event) {
  if (event.isComposing || event.keyCode === 229) {
    return; // the key belongs to an input method
  }
  if (event.key === "Enter" && !event.shiftKey && !event.altKey) {
    event.preventDefault();
    submit();
  } else if (event.key === "ArrowUp" && message.value === "" && turns.length) {
    event.preventDefault();
    message.value = turns.at(-1).question;
    hint();
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
message.addEventListener("keydown", onKey);
message.addEventListener("input", hint);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !event.isComposing) {
    halt();
  }
});
find("stop").addEventListener("click", halt);
find("anew").addEventListener("click", beginAnew);
find("undo").addEventListener("click", bringBack);
find("examples").addEventListener("click", ({ target }) => {
  if (target.matches("button")) {
    message.value = target.textContent;
    message.focus();
  }
});
addEventListener("pagehide", save);

find("fields").disabled = false;
restore();
if (!isTouched()) {
  message.focus();
}
