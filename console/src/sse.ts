/** Server-sent events out of a stream of text, in whatever pieces it comes. */

export interface Message {
  event: string;
  data: string;
}

/** More than this without the end of an event is no event stream of ours (characters). */
const LONGEST = 64 * 1024 * 1024;

export class SseParser {
  #rest = "";
  #event = "";
  #data: string[] = [];

  /** The messages that are complete with this piece. */
  push(piece: string): Message[] {
    const found: Message[] = [];
    const lines = (this.#rest + piece).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop() ?? "";
    if (this.#rest.length > LONGEST) throw new Error("the stream holds no events");
    for (const line of lines) this.#take(line, found);
    return found;
  }

  #take(line: string, found: Message[]): void {
    if (line === "") {
      if (this.#data.length) found.push({ event: this.#event || "message", data: this.#data.join("\n") });
      this.#event = "";
      this.#data = [];
      return;
    }
    if (line.startsWith(":")) return;
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "event") this.#event = value;
    else if (name === "data") this.#data.push(value);
  }
}
