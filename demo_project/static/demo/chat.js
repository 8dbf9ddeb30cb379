// One question over HTTP, and its answer while it is written.

import { eventsOf } from "./events.js";
import { objectIn, outcomeOf, problemOf } from "./outcomes.js";
import { SAY } from "./words.js";

// Sends `fields` and returns `{ reply }` or `{ problem }`, whatever becomes of the connection.
// `listener` has a function for each kind of piece, `delta` and `thinking`, which takes its text.
export async function chat(form, fields, signal, listener) {
  let response;
  try {
    response = await fetch(form.action, {
      method: "POST",
      signal,
      headers: {
        Accept: "text/event-stream",
        "Content-Type": "application/json",
        "X-CSRFToken": form.elements.csrfmiddlewaretoken.value,
      },
      body: JSON.stringify(fields),
    });
    if (!isEventStream(response)) {
      const body = objectIn(await response.text());
      return outcomeOf(response.status, body, response.headers.get("Retry-After"));
    }
  } catch {
    return { problem: problemOf(navigator.onLine ? SAY.unreachable : SAY.offline) };
  }
  return listen(response.body, listener);
}

function isEventStream({ ok, headers }) {
  return ok && /^text\/event-stream\b/.test(headers.get("Content-Type"));
}

async function listen(stream, listener) {
  for await (const { type, data } of eventsOf(stream)) {
    const body = objectIn(data);
    if (type === "done" || type === "error") {
      return outcomeOf(type === "done" ? 200 : 0, body);
    }
    listener[type]?.(String(body.text ?? ""));
  }
  return { problem: problemOf(navigator.onLine ? SAY.lost : SAY.offline) };
}
