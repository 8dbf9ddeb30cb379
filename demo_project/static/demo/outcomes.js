// What came of a question: `{ reply }` or `{ problem }`.

import { SAY } from "./words.js";

// For answers that do not speak for themselves, such as a proxy's page.
const OF_STATUS = { 403: SAY.reload, 413: SAY.tooLong, 429: SAY.throttled };
const OF_FIELD = { message: "Your question", class_number: "The class", history: "The history" };

// The status is 0 where it no longer tells: for an error in the middle of an answer.
export function outcomeOf(status, body, retryAfter = null) {
  if (body.success === true && typeof body.response === "string") {
    return { reply: body };
  }
  const seconds = Number(body.retry_after ?? retryAfter) || 0;
  const problem = problemOf(sentenceOf(status, body), status, seconds, body.request_id);
  return { problem: { ...problem, isCut: body.code === "stream_interrupted" } };
}

export function problemOf(sentence, status = 0, seconds = 0, reference = "") {
  const until = seconds > 0 ? Date.now() + seconds * 1000 : 0;
  return { sentence, remedy: remedyOf(sentence, status), until, reference };
}

// Says of a problem that came in the middle of an answer that there is more to it than is shown.
export function midway(problem) {
  if (problem.sentence === SAY.stopped) {
    return { ...problem, sentence: SAY.stoppedHere };
  }
  return problem.isCut ? problem : { ...problem, sentence: `${SAY.cut} ${problem.sentence}` };
}

export function isShortened({ truncated, done_reason: reason }) {
  return truncated === true || reason === "length";
}

export function factsOf({ model, usage }, seconds) {
  const tokens = usage?.completion_tokens;
  const size = tokens && `${tokens}\u00a0${tokens === 1 ? "token" : "tokens"}`;
  return [model, size, `${seconds.toFixed(1)}\u00a0s`].filter(Boolean).join(" · ");
}

export function objectIn(text) {
  try {
    return Object(JSON.parse(text));
  } catch {
    return {};
  }
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
