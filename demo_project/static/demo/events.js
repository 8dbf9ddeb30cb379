// Server-sent events of a response: https://html.spec.whatwg.org/multipage/server-sent-events.html
// EventSource has its own reader of them, but cannot POST.

// Yields `{ type, data }` of each whole event in a stream of bytes; leaving early closes it. Where the
// connection breaks, the events end.
export async function* eventsOf(stream) {
  const reader = stream.getReader();
  const decoder = new TextDecoder();
  const parser = new EventParser();
  try {
    for (let bytes = await next(reader); bytes; bytes = await next(reader)) {
      yield* parser.feed(decoder.decode(bytes, { stream: true }));
    }
  } finally {
    reader.cancel().catch(() => {}); // it is broken, and there is nothing to close
  }
}

async function next(reader) {
  const { value } = await reader.read().catch(() => ({}));
  return value;
}

// Takes text that is cut anywhere. What is left without its blank line is no event.
export class EventParser {
  #line = "";
  #endedInReturn = false; // a line feed that comes next belongs to the same end of a line
  #type = "";
  #data = [];

  *feed(text) {
    if (text === "") {
      return;
    }
    const news = this.#endedInReturn && text.startsWith("\n") ? text.slice(1) : text;
    const lines = news.split(/\r\n|\r|\n/);
    lines[0] = this.#line + lines[0];
    this.#line = lines.pop();
    this.#endedInReturn = text.endsWith("\r");
    for (const line of lines) {
      if (line !== "") {
        this.#take(line);
      } else if (this.#data.length) {
        yield this.#event();
      } else {
        this.#type = "";
      }
    }
  }

  // A line that begins with a colon is a comment: a field without a name, which nobody knows.
  #take(line) {
    const [, name, value = ""] = line.match(/^([^:]*)(?:: ?(.*))?$/su);
    if (name === "event") {
      this.#type = value;
    } else if (name === "data") {
      this.#data.push(value);
    }
  }

  #event() {
    const event = { type: this.#type || "message", data: this.#data.join("\n") };
    this.#type = "";
    this.#data = [];
    return event;
  }
}
