// A conversation with the class mentor. This tab alone remembers it. Whatever comes from the server
// is only ever shown as text.

const STORE = "class-mentor";
const SLOW = 10; // seconds until a visitor is told why it may take long
const BEAT = 250; // milliseconds between two looks at the clocks
const IN = new Intl.RelativeTimeFormat("en");

const SAY = {
  broken: "Something went wrong on this site. Please try again later.",
  loading: "Still waiting. The model may be loading, which can take a minute.",
  now: "You can try again now.",
  offline: "You are offline. Try again once the connection is back.",
  patience: "Wait for the answer, or press Escape to stop.",
  reload: "This page is out of date. Reload it; the conversation stays.",
  silent: "The model gave an empty answer.",
  stopped: "You stopped this question.",
  throttled: "You are sending too many requests. Please wait a moment.",
  tooLong: "This is too long to send. Shorten the question, or begin a new conversation.",
  unanswered: "This question has no answer yet.",
  unreachable: "This site cannot be reached. Check your connection, then try again.",
  unreadable: "The answer of this site cannot be read. Reload the page, then try again.",
  waiting: "Thinking",
};
// For answers that do not speak for themselves, such as a proxy's page.
const OF_STATUS = { 403: SAY.reload, 413: SAY.tooLong, 429: SAY.throttled };
const MILD = new Set([SAY.stopped, SAY.unanswered]);
const OF_FIELD = { message: "Your question", class_number: "The class", history: "The history" };
const REMEDIES = {
  again: { label: "Try again", apply: askAgain },
  edit: { label: "Edit the question", apply: edit },
  reload: { label: "Reload the page", apply: () => location.reload() },
};

const find = (id) => document.getElementById(id);
const form = find("ask");
const message = find("message");
const level = find("class-number");
const conversation = find("conversation");

const levels = [...level.options].map((option) => Number(option.value));
const limits = {
  characters: message.maxLength,
  messages: Number(form.dataset.mostMessages),
  bytes: Number(form.dataset.mostBytes),
};

const views = new WeakMap(); // the element of each turn
let turns = []; // questions, each with its answer or its problem, or neither while we wait
let previous = []; // the turns that "New conversation" put away
let pending = null; // what we wait for: its turn, since when, and how to stop it
let heart = 0;

/* Asking */

async function ask(turn) {
  const { earlier, leftOut } = fitting(turn);
  const stopper = new AbortController();
  Object.assign(turn, { problem: null, leftOut });
  turns = [...turns.filter((each) => each !== turn), turn];
  pending = { turn, stopper, began: performance.now() };
  find("log").ariaLive = "polite";
  place(turn);
  refreshPage();
  reveal(turn);
  const outcome = await post(fieldsOf(turn, earlier), stopper.signal);
  if (pending?.stopper === stopper) {
    settle(outcome);
  }
}

// Sends one question and returns `{ reply }` or `{ problem }`; it never throws.
async function post(fields, signal) {
  let response;
  let text;
  try {
    response = await fetch(form.action, {
      method: "POST",
      signal,
      headers: {
        Accept: "application/json",
        "Content-Type": "application/json",
        "X-CSRFToken": form.elements.csrfmiddlewaretoken.value,
      },
      body: JSON.stringify(fields),
    });
    text = await response.text();
  } catch {
    return { problem: problemOf(navigator.onLine ? SAY.unreachable : SAY.offline) };
  }
  return outcomeOf(response.status, objectIn(text), response.headers.get("Retry-After"));
}

function settle({ reply, problem = null }) {
  const { turn, began } = pending;
  const isWatched = isInView(turn);
  pending = null;
  turn.problem = problem;
  if (reply) {
    turn.answer = reply.response;
    turn.facts = factsOf(reply, (performance.now() - began) / 1000);
  }
  refresh(turn);
  refreshPage();
  say(problem?.until ? `You can try again ${countdownTo(problem.until)}.` : "");
  if (isWatched) {
    reveal(turn);
  }
}

function turnOf(question, number) {
  return { question, level: number, answer: null, facts: "", leftOut: 0, problem: null };
}

/* What is sent */

function fieldsOf({ question, level: number }, earlier) {
  return { message: question, class_number: number, history: earlier.flatMap(messagesOf) };
}

function messagesOf({ question, answer }) {
  return [
    { role: "user", content: sendable(question) },
    { role: "assistant", content: sendable(answer) },
  ];
}

// Returns those of the latest answered turns that the API takes beside this one.
function fitting(turn) {
  const answered = turns.filter((each) => each.answer !== null);
  let earlier = answered.slice(Math.max(0, answered.length - Math.floor(limits.messages / 2)));
  while (earlier.length && bytesOf(fieldsOf(turn, earlier)) > limits.bytes) {
    earlier = earlier.slice(1);
  }
  return { earlier, leftOut: answered.length - earlier.length };
}

function bytesOf(value) {
  return new TextEncoder().encode(JSON.stringify(value)).length;
}

// The API takes no control characters, no halves of characters and no longer messages, not even
// when its own model wrote them.
function sendable(text) {
  return [...clean(text)].slice(0, limits.characters).join("");
}

function clean(text) {
  return text.replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f]|\p{Surrogate}/gu, "");
}

/* What came of it */

function outcomeOf(status, body, retryAfter) {
  if (body.success === true && typeof body.response === "string") {
    return { reply: body };
  }
  const seconds = Number(body.retry_after ?? retryAfter) || 0;
  return { problem: problemOf(sentenceOf(status, body), status, seconds, body.request_id) };
}

function problemOf(sentence, status = 0, seconds = 0, reference = "") {
  const until = seconds > 0 ? Date.now() + seconds * 1000 : 0;
  return { sentence, remedy: remedyOf(sentence, status), until, reference };
}

function sentenceOf(status, body) {
  const isOutdated = status === 403 && /^CSRF /.test(body.error);
  if (isOutdated || status === 413) {
    return OF_STATUS[status];
  }
  const complaints = Object.entries(body.fields ?? {}).map(complaintOf).join("\n");
  const other = OF_STATUS[status] ?? (status >= 500 ? SAY.broken : SAY.unreadable);
  return complaints || (typeof body.error === "string" ? body.error : other);
}

function complaintOf([path, sentences]) {
  const [field] = path.match(/^\w*/);
  return `${OF_FIELD[field] ?? path}: ${[sentences].flat().join(" ")}`;
}

function remedyOf(sentence, status) {
  if (sentence === SAY.reload || sentence === SAY.unreadable) {
    return "reload";
  }
  return status === 400 || status === 413 ? "edit" : "again";
}

function factsOf({ model, usage, done_reason: reason }, seconds) {
  const tokens = usage?.completion_tokens;
  const size = tokens && `${tokens}\u00a0${tokens === 1 ? "token" : "tokens"}`;
  const end = reason === "length" && "cut off at the limit";
  return [model, size, `${seconds.toFixed(1)}\u00a0s`, end].filter(Boolean).join(" · ");
}

/* What is shown */

function part(turn, name) {
  return views.get(turn).querySelector(`.${name}`);
}

function place(turn) {
  if (!views.has(turn)) {
    views.set(turn, find("turn").content.firstElementChild.cloneNode(true));
    part(turn, "remedy").addEventListener("click", () => applyRemedy(turn));
    part(turn, "copy").addEventListener("click", () => copy(turn));
  }
  refresh(turn);
  if (views.get(turn) !== conversation.lastElementChild) {
    conversation.append(views.get(turn));
  }
}

function refresh(turn) {
  const { question, answer, facts, problem } = turn;
  put(part(turn, "question"), question);
  put(part(turn, "caption"), captionOf(turn));
  put(part(turn, "answer"), answer?.trim() ? answer : SAY.silent);
  put(part(turn, "facts"), facts);
  put(part(turn, "sentence"), problem?.sentence ?? "");
  put(part(turn, "remedy"), problem ? REMEDIES[problem.remedy].label : "");
  put(part(turn, "reference"), problem?.reference ? `Reference: ${problem.reference}` : "");
  part(turn, "problem").classList.toggle("mild", MILD.has(problem?.sentence));
  part(turn, "copy").hidden = !navigator.clipboard; // only a secure address has it
  part(turn, "waiting").hidden = pending?.turn !== turn;
  part(turn, "problem").hidden = problem === null;
  part(turn, "reply").hidden = answer === null;
}

function captionOf({ level: number, leftOut }) {
  const oldest = leftOut === 1 ? "oldest question" : `${leftOut} oldest questions`;
  const without = leftOut ? ` · asked without the ${oldest}, which no longer fit` : "";
  return `Class\u00a0${number}${without}`;
}

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
  beat();
  save();
}

function hint() {
  const left = limits.characters - message.value.length;
  const isTight = left < limits.characters / 10;
  const keys = pending ? "Esc stops" : "Enter sends, Shift + Enter starts a new line";
  put(find("hint"), isTight ? `${left} characters left` : keys);
  find("hint").classList.toggle("keys", !isTight);
}

// Looks at the clocks, and again for as long as one of them runs.
function beat() {
  if (pending) {
    countUp(pending);
  }
  const counting = turns.filter((turn) => turn.problem && countDown(turn));
  if (pending || counting.length) {
    heart ||= setInterval(beat, BEAT);
  } else {
    clearInterval(heart);
    heart = 0;
  }
}

function countUp({ turn, began }) {
  const seconds = Math.floor((performance.now() - began) / 1000);
  put(part(turn, "state"), seconds < SLOW ? SAY.waiting : SAY.loading);
  put(part(turn, "elapsed"), `${seconds} s`);
}

// Returns whether its time is still to come.
function countDown(turn) {
  const { problem } = turn;
  if (problem.until && problem.until <= Date.now()) {
    problem.until = 0;
    say(SAY.now);
  }
  put(part(turn, "countdown"), problem.until ? countdownTo(problem.until) : "");
  part(turn, "remedy").ariaDisabled = String(pending !== null || problem.until > 0);
  return problem.until > 0;
}

function countdownTo(until) {
  const seconds = Math.max(1, Math.ceil((until - Date.now()) / 1000));
  const isLong = seconds >= 120;
  return IN.format(isLong ? Math.ceil(seconds / 60) : seconds, isLong ? "minute" : "second");
}

// Leaves alone what is right already, so that nobody is read it again.
function put(element, text) {
  if (element.textContent !== text) {
    element.textContent = text;
  }
}

// For those who cannot see the page: what the conversation leaves unsaid, but nothing that ticks.
function say(sentence) {
  find("news").textContent = sentence;
}

function isInView(turn) {
  const { top, bottom } = views.get(turn).getBoundingClientRect();
  return top < innerHeight && bottom > 0;
}

// Scrolls to what became of a question; the question itself may be longer than the screen.
function reveal(turn) {
  const outcome = [...views.get(turn).children].findLast((child) => !child.hidden);
  outcome.scrollIntoView({ block: "nearest" });
}

// Focus goes to where one writes on; not under a finger, because that opens the keyboard.
function goHome() {
  const button = pending ? find("stop") : find("send");
  (isTouched() ? button : message).focus({ preventScroll: true });
}

function isTouched() {
  return matchMedia("(pointer: coarse)").matches;
}

/* What this tab remembers */

// Without room for everything, the newer half is remembered, or half of that.
function save() {
  for (let kept = turns; ; kept = kept.slice(Math.ceil(kept.length / 2))) {
    try {
      const all = { draft: message.value, level: Number(level.value), turns: kept };
      sessionStorage.setItem(STORE, JSON.stringify(all));
      return;
    } catch {
      if (kept.length === 0) {
        return;
      }
    }
  }
}

function restore() {
  let stored = {};
  try {
    stored = objectIn(sessionStorage.getItem(STORE));
  } catch {
    // The browser lets this page remember nothing.
  }
  message.value = typeof stored.draft === "string" ? stored.draft : "";
  level.value = levels.includes(stored.level) ? stored.level : levels[0];
  show([stored.turns].flat().filter(isTurn).map(revived));
}

function isTurn(stored) {
  return typeof stored?.question === "string" && levels.includes(stored.level);
}

function revived({ question, level: number, answer, facts, leftOut, problem }) {
  const turn = { ...turnOf(question, number), leftOut: Number(leftOut) || 0 };
  if (typeof answer === "string") {
    return { ...turn, answer, facts: String(facts ?? "") };
  }
  const seconds = (Number(problem?.until) - Date.now()) / 1000;
  return { ...turn, problem: problemOf(SAY.unanswered, 0, seconds) };
}

function show(others) {
  find("log").ariaLive = "off"; // nobody wants to be read all of it
  turns = others;
  conversation.replaceChildren();
  turns.forEach(place);
  refreshPage();
  turns.slice(-1).forEach(reveal);
}

function objectIn(text) {
  try {
    return Object(JSON.parse(text));
  } catch {
    return {};
  }
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
  if (part(turn, "remedy").ariaDisabled !== "true") {
    REMEDIES[turn.problem.remedy].apply(turn);
  }
}

function askAgain(turn) {
  ask(turn);
  goHome(); // the button that had the focus is gone
}

function edit(turn) {
  message.value = [turn.question, message.value].filter(Boolean).join("\n");
  turns = turns.filter((each) => each !== turn);
  views.get(turn).remove();
  refreshPage();
  message.focus();
}

function halt() {
  if (pending) {
    pending.stopper.abort();
    settle({ problem: problemOf(SAY.stopped) });
  }
}

function beginAnew() {
  halt();
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
  const button = part(turn, "copy");
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
