// What is sent with a question: the turns before it, as far as the API takes them. Answers that
// broke off or were stopped are left out, because the model never came to their end.

// Returns `{ fields, leftOut }`: what to send, and how many turns no longer fit.
export function requestOf(turn, turns, limits) {
  const done = turns.filter((each) => each.isDone && each !== turn);
  let earlier = done.slice(Math.max(0, done.length - Math.floor(limits.messages / 2)));
  let fields = fieldsOf(turn, earlier, limits);
  while (earlier.length && bytesOf(fields) > limits.bytes) {
    earlier = earlier.slice(1);
    fields = fieldsOf(turn, earlier, limits);
  }
  return { fields, leftOut: done.length - earlier.length };
}

// The API takes no control characters and no halves of characters.
export function clean(text) {
  return text.replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f]|\p{Surrogate}/gu, "");
}

function fieldsOf({ question, level }, earlier, limits) {
  const history = earlier.flatMap((each) => [
    { role: "user", content: sendable(each.question, limits) },
    { role: "assistant", content: sendable(each.answer, limits) },
  ]);
  return { message: question, class_number: level, history };
}

// Nor does it take longer messages, not even when its own model wrote them.
function sendable(text, limits) {
  return [...clean(text)].slice(0, limits.characters).join("");
}

function bytesOf(value) {
  return new TextEncoder().encode(JSON.stringify(value)).length;
}
