// What this tab remembers, and nobody else.

import { objectIn } from "./outcomes.js";

const STORE = "class-mentor";

// Without room for everything, the newer half of the turns is remembered, or half of that.
export function remember({ draft, level, turns }) {
  for (let kept = turns; ; kept = kept.slice(Math.ceil(kept.length / 2))) {
    try {
      sessionStorage.setItem(STORE, JSON.stringify({ draft, level, turns: kept }));
      return;
    } catch {
      if (kept.length === 0) {
        return;
      }
    }
  }
}

// Returns what was given to `remember`, or whatever else is there; nothing of it is certain.
export function remembered() {
  try {
    return objectIn(sessionStorage.getItem(STORE));
  } catch {
    return {}; // the browser lets this page remember nothing
  }
}
