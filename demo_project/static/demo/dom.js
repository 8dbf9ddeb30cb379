// Small things that every part of the page needs.

export const find = (id) => document.getElementById(id);

// Leaves alone what is right already, so that nobody is read it again.
export function put(element, text) {
  if (element.textContent !== text) {
    element.textContent = text;
  }
}

// For those who cannot see the page: what the conversation leaves unsaid, but nothing that ticks.
export function say(sentence) {
  find("news").textContent = sentence;
}

export function isTouched() {
  return matchMedia("(pointer: coarse)").matches;
}
