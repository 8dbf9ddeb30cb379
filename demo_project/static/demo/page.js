// Sends a question and shows one of three states: waiting, the answer, or what went wrong.
// What comes from the server is only ever shown as text.

const UNREACHABLE = "This site cannot be reached. Check your connection and try again.";
const BROKEN = "Something went wrong on this site. Please try again later.";

const find = (id) => document.getElementById(id);
const form = find("ask");
const message = find("message");
const classNumber = find("class-number");
const again = find("again");

let waiting = false;
let ticking = 0;

async function ask(question, number) {
  const began = performance.now();
  wait(began);
  const outcome = await post({ message: question, class_number: number });
  waiting = false;
  if (outcome.success) {
    showAnswer(question, number, outcome, (performance.now() - began) / 1000);
  } else {
    showProblem(outcome);
  }
}

async function post(fields) {
  let response;
  try {
    response = await fetch(form.action, {
      method: "POST",
      headers: {
        Accept: "application/json",
        "Content-Type": "application/json",
        "X-CSRFToken": form.elements.csrfmiddlewaretoken.value,
      },
      body: JSON.stringify(fields),
    });
  } catch {
    return { error: UNREACHABLE };
  }
  try {
    return await response.json();
  } catch {
    return { error: BROKEN };
  }
}

function wait(began) {
  waiting = true;
  show("waiting");
  say("Waiting for the answer.");
  tick(() => {
    find("elapsed").textContent = `${Math.floor((performance.now() - began) / 1000)} s`;
  });
}

function showAnswer(question, number, { response, model, usage }, seconds) {
  find("question").textContent = question;
  find("answer-text").textContent = response;
  find("facts").textContent = [
    `Class\u00a0${number}`,
    model,
    `${usage.completion_tokens}\u00a0tokens`,
    `${seconds.toFixed(1)}\u00a0s`,
  ].join(" · ");
  message.value = "";
  show("answer");
  say(`The answer: ${response}`);
}

function showProblem({ error, retry_after: seconds, request_id: reference }) {
  find("problem-text").textContent = error ?? BROKEN;
  find("reference").textContent = reference ? `Reference: ${reference}` : "";
  show("problem");
  say(`${error ?? BROKEN} ${seconds ? `You can try again in ${inWords(seconds)}.` : ""}`);
  countDown(performance.now() + (seconds ?? 0) * 1000);
}

function countDown(until) {
  tick(() => {
    const left = Math.ceil((until - performance.now()) / 1000);
    const isOver = left <= 0;
    again.setAttribute("aria-disabled", String(!isOver));
    find("countdown").textContent = isOver ? "" : `in ${left} s`;
    return !isOver;
  });
}

// Calls `step` now and then four times a second, until it returns false or something else ticks.
function tick(step) {
  clearInterval(ticking);
  if (step() !== false) {
    ticking = setInterval(() => step() === false && clearInterval(ticking), 250);
  }
}

function show(state) {
  clearInterval(ticking);
  for (const id of ["waiting", "answer", "problem"]) {
    find(id).hidden = id !== state;
  }
  find(state).scrollIntoView({ block: "nearest" });
  find("send").setAttribute("aria-disabled", String(state === "waiting"));
}

function inWords(seconds) {
  return seconds === 1 ? "1 second" : `${seconds} seconds`;
}

// For those who cannot see the page; what ticks stays out of it.
function say(sentence) {
  find("news").textContent = sentence;
}

function submit() {
  const question = message.value.trim();
  if (waiting) {
    return;
  }
  if (!question) {
    message.focus();
    return;
  }
  ask(question, Number(classNumber.value));
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});

message.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    form.requestSubmit();
  }
});

again.addEventListener("click", () => {
  if (again.getAttribute("aria-disabled") !== "true") {
    find("send").focus(); // this button is about to vanish
    form.requestSubmit();
  }
});

find("fields").disabled = false;
message.focus();
