// What the page itself says.

const IN = new Intl.RelativeTimeFormat("en");

export const SAY = {
  broken: "Something went wrong on this site. Please try again later.",
  cut: "The answer broke off here.",
  ended: "The answer ends here because it reached its limit.",
  loading: "Still waiting. The model may be loading, which can take a minute.",
  lost: "The connection to this site was lost.",
  now: "You can try again now.",
  offline: "You are offline. Try again once the connection is back.",
  patience: "Wait for the answer, or press Escape to stop.",
  reload: "This page is out of date. Reload it; the conversation stays.",
  silent: "The model gave an empty answer.",
  stopped: "You stopped this question.",
  stoppedHere: "You stopped the answer here. It will not be part of later questions.",
  thinking: "The model is thinking",
  throttled: "You are sending too many requests. Please wait a moment.",
  tooLong: "This is too long to send. Shorten the question, or begin a new conversation.",
  unanswered: "This question has no answer yet.",
  unreachable: "This site cannot be reached. Check your connection, then try again.",
  unreadable: "The answer of this site cannot be read. Reload the page, then try again.",
  waiting: "Thinking",
  writing: "Writing",
};

// What needs no alarm, because the visitor wanted it or lost nothing.
export const MILD = new Set([SAY.ended, SAY.stopped, SAY.stoppedHere, SAY.unanswered]);

export function countdownTo(until) {
  const seconds = Math.max(1, Math.ceil((until - Date.now()) / 1000));
  const isLong = seconds >= 120;
  return IN.format(isLong ? Math.ceil(seconds / 60) : seconds, isLong ? "minute" : "second");
}
