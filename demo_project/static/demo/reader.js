// Reads an answer aloud through a live region while it is written: whole sentences, with pauses. The
// answer itself is no live region, or a screen reader would begin afresh at each word.

const PAUSE = 3000; // milliseconds between two announcements
const LINGER = 10000; // milliseconds until nobody finds the answer twice on the page
const SENTENCES = /^.*(?:[.!?…:;]["'”’)\]]*\s|[。！？]|\n)/su; // up to the end of the last one

export class Reader {
  #region;
  #waiting = "";
  #timer = 0;

  constructor(region) {
    this.#region = region;
  }

  begin() {
    this.stop();
    this.#region.replaceChildren();
  }

  add(text) {
    this.#waiting += text;
    if (!this.#timer) {
      this.#readSentences();
    }
  }

  // Reads what is left, which need not be a whole sentence.
  end() {
    const rest = this.#waiting;
    this.stop();
    this.#read(rest);
    this.#timer = setTimeout(() => this.#region.replaceChildren(), LINGER);
  }

  stop() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    this.#waiting = "";
  }

  #readSentences() {
    this.#timer = 0;
    const [sentences = ""] = this.#waiting.match(SENTENCES) ?? [];
    if (sentences) {
      this.#waiting = this.#waiting.slice(sentences.length);
      this.#read(sentences);
      this.#timer = setTimeout(() => this.#readSentences(), PAUSE);
    }
  }

  #read(text) {
    if (text.trim()) {
      const paragraph = document.createElement("p");
      paragraph.textContent = text;
      this.#region.append(paragraph);
    }
  }
}
