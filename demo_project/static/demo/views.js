// How turns are shown: each has an element of its own. Whatever comes from the server is only ever
// shown as text.

import { find, put } from "./dom.js";
import { MILD, SAY } from "./words.js";

const NEAR = 8; // pixels that are no distance
const LABELS = { again: "Try again", edit: "Edit the question", reload: "Reload the page" };

const conversation = find("conversation");
const views = new WeakMap();

export function part(turn, name) {
  return views.get(turn).querySelector(`.${name}`);
}

// Shows a turn as the last one. `actions` has what its buttons do: `remedy` and `copy`.
export function place(turn, actions) {
  if (!views.has(turn)) {
    views.set(turn, find("turn").content.firstElementChild.cloneNode(true));
    part(turn, "remedy").addEventListener("click", () => actions.remedy(turn));
    part(turn, "copy").addEventListener("click", () => actions.copy(turn));
  }
  refresh(turn);
  if (views.get(turn) !== conversation.lastElementChild) {
    conversation.append(views.get(turn));
  }
}

export function remove(turn) {
  views.get(turn).remove();
}

export function removeAll() {
  conversation.replaceChildren();
}

export function refresh(turn) {
  const { question, answer, facts, problem, stage } = turn;
  put(part(turn, "question"), question);
  put(part(turn, "caption"), captionOf(turn));
  put(part(turn, "answer"), answer?.trim() || stage ? (answer ?? "") : SAY.silent);
  put(part(turn, "facts"), facts);
  put(part(turn, "sentence"), problem?.sentence ?? "");
  put(part(turn, "remedy"), problem ? LABELS[problem.remedy] : "");
  put(part(turn, "reference"), problem?.reference ? `Reference: ${problem.reference}` : "");
  part(turn, "problem").classList.toggle("mild", MILD.has(problem?.sentence));
  part(turn, "copy").hidden = !navigator.clipboard; // only a secure address has it
  part(turn, "tools").hidden = stage !== "";
  part(turn, "waiting").hidden = stage === "";
  part(turn, "problem").hidden = problem === null;
  part(turn, "reply").hidden = answer === null;
}

// Shows one piece more of an answer, without a look at all that is there.
export function extend(turn, text) {
  const element = part(turn, "answer");
  if (element.firstChild) {
    element.firstChild.appendData(text);
  } else {
    element.textContent = text;
  }
}

// Makes a change that lengthens a turn. Whoever reads at its end stays there.
export function following(turn, change) {
  const isFollowed = isAtEnd(turn);
  change();
  if (isFollowed && !isAtEnd(turn)) {
    views.get(turn).scrollIntoView({ block: "end", behavior: "instant" });
  }
}

export function isInView(turn) {
  const { top, bottom } = views.get(turn).getBoundingClientRect();
  return top < innerHeight && bottom > 0;
}

// Scrolls to what became of a question; the question itself may be longer than the screen.
export function reveal(turn) {
  const outcome = [...views.get(turn).children].findLast((child) => !child.hidden);
  outcome.scrollIntoView({ block: "nearest" });
}

function isAtEnd(turn) {
  const page = document.documentElement;
  const covered = parseFloat(getComputedStyle(page).scrollPaddingBottom);
  const distance = page.scrollHeight - innerHeight - scrollY;
  const { bottom } = views.get(turn).getBoundingClientRect();
  return distance <= NEAR || bottom <= innerHeight - covered + NEAR;
}

function captionOf({ level, leftOut }) {
  const oldest = leftOut === 1 ? "oldest question" : `${leftOut} oldest questions`;
  const without = leftOut ? ` · asked without the ${oldest}, which no longer fit` : "";
  return `Class\u00a0${level}${without}`;
}
