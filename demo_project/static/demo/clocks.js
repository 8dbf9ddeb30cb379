// What ticks: how long a question has taken, and when one may be asked again.

import { put, say } from "./dom.js";
import { part } from "./views.js";
import { countdownTo, SAY } from "./words.js";

const BEAT = 250; // milliseconds between two looks at the clocks
const SLOW = 10; // seconds until a visitor is told why it may take long

let heart = 0;

// Looks at the clocks, and again for as long as one of them runs. `look` returns the turns and what
// is pending, as they are then.
export function beat(look) {
  const { turns, pending } = look();
  if (pending) {
    countUp(pending);
  }
  const counting = turns.filter((turn) => turn.problem && countDown(turn, pending !== null));
  if (pending || counting.length) {
    heart ||= setInterval(beat, BEAT, look);
  } else {
    clearInterval(heart);
    heart = 0;
  }
}

function countUp({ turn, began }) {
  const seconds = Math.floor((performance.now() - began) / 1000);
  const isSlow = turn.stage === "waiting" && seconds >= SLOW;
  put(part(turn, "state"), isSlow ? SAY.loading : SAY[turn.stage]);
  put(part(turn, "elapsed"), `${seconds} s`);
}

// Returns whether its time is still to come.
function countDown(turn, isBusy) {
  const { problem } = turn;
  if (problem.until && problem.until <= Date.now()) {
    problem.until = 0;
    say(SAY.now);
  }
  put(part(turn, "countdown"), problem.until ? countdownTo(problem.until) : "");
  part(turn, "remedy").ariaDisabled = String(isBusy || problem.until > 0);
  return problem.until > 0;
}
