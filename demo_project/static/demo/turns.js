// Turns of a conversation: a question with its answer, as far as there is one.

import { problemOf } from "./outcomes.js";
import { SAY } from "./words.js";

// `stage` is what happens now: "waiting", "thinking", "writing", or "" for nothing. `isDone` says
// that the model came to the end of its answer. Where it did not, `problem` says why.
export function turnOf(question, level) {
  return {
    question,
    level,
    answer: null,
    isDone: false,
    facts: "",
    leftOut: 0,
    problem: null,
    stage: "",
  };
}

export function isTurn(stored, levels) {
  return typeof stored?.question === "string" && levels.includes(stored.level);
}

// Returns a turn as it is after its page was left: whatever was under way has ended.
export function revived({ question, level, answer, isDone, facts, leftOut, problem }) {
  const turn = { ...turnOf(question, level), leftOut: Number(leftOut) || 0 };
  if (typeof answer === "string" && isDone === true) {
    const ended = problem?.sentence === SAY.ended ? problemOf(SAY.ended) : null;
    return { ...turn, answer, isDone, facts: String(facts ?? ""), problem: ended };
  }
  const seconds = (Number(problem?.until) - Date.now()) / 1000;
  const partial = typeof answer === "string" && answer !== "" ? answer : null;
  const cut = problem?.sentence === SAY.stoppedHere ? SAY.stoppedHere : SAY.cut;
  const sentence = partial === null ? SAY.unanswered : cut;
  return { ...turn, answer: partial, problem: problemOf(sentence, 0, seconds) };
}
