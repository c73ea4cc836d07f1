// The conversation on the page: turn after turn, each drawn anew only when it has changed.

import { delayOf } from "../session/timing.js";

const ENDINGS = {
  listening: "listening",
  cancelled: "interrupted",
  incomplete: "cut short",
  failed: "failed",
};
const NEAR = 80; // pixels from the end within which a reader follows along

export class LogView {
  /** `list`: the element that holds the turns. `name`: of the model. */
  constructor(list) {
    this.list = list;
    this.drawn = new Map(); // id → { turn, node }
    this.name = "Model";
  }

  render(turns) {
    const follows = this.#atEnd();
    const ids = new Set(turns.map((turn) => turn.id));
    for (const [id, { node }] of this.drawn) {
      if (ids.has(id)) continue;
      node.remove();
      this.drawn.delete(id);
    }
    turns.forEach((turn, index) => {
      const before = this.drawn.get(turn.id);
      if (before?.turn === turn) return;
      const node = before?.node ?? element("article", { className: `turn ${turn.role}` });
      node.ariaBusy = String(["listening", "in_progress"].includes(turn.status));
      node.replaceChildren(...this.#contents(turn));
      if (!before) this.list.insertBefore(node, this.list.children[index] ?? null);
      this.drawn.set(turn.id, { turn, node });
    });
    if (follows) this.list.lastElementChild?.scrollIntoView({ block: "nearest" });
  }

  /** Whether the last turn is in sight: in the list's own window, or on a telephone the page's. */
  #atEnd() {
    const last = this.list.lastElementChild;
    const end = Math.min(this.list.getBoundingClientRect().bottom, innerHeight);
    return !last || last.getBoundingClientRect().bottom <= end + NEAR;
  }

  #contents(turn) {
    const who = element("h2", { textContent: turn.role === "user" ? "You" : this.name });
    if (turn.heard !== null) who.append(" ", element("small", { textContent: "interrupted" }));
    else if (turn.status in ENDINGS) who.append(" ", element("small", { textContent: ENDINGS[turn.status] }));
    return [who, caption(turn), ...delay(turn)];
  }
}

function caption(turn) {
  const line = element("p", { className: "caption" });
  if (turn.spoken && !turn.text) {
    line.append(element("em", { textContent: turn.status === "listening" ? "…" : "spoken" }));
  } else if (turn.heard === null) {
    line.textContent = turn.text || "…";
  } else {
    const heard = turn.text.startsWith(turn.heard) ? turn.heard : "";
    line.append(heard);
    const rest = turn.text.slice(heard.length);
    if (rest) line.append(element("del", { textContent: rest, title: "not heard, and forgotten by the model" }));
  }
  return line;
}

function delay(turn) {
  const known = delayOf(turn.marks);
  if (!known) return [];
  const bar = element("div", { className: "bar", ariaHidden: "true" });
  const parts = element("ul", { className: "parts" });
  for (const { name, ms } of known.parts) {
    const share = element("span");
    share.style.flexGrow = String(Math.max(ms, 0));
    bar.append(share);
    parts.append(element("li", { textContent: `${Math.round(ms)} ms ${name}` }));
  }
  const total = element("p", { className: "delay" });
  const seconds = element("strong", { textContent: `${(known.total / 1000).toFixed(2)} s` });
  total.append("First sound ", seconds, " after the end of your turn");
  return [total, bar, parts];
}

function element(name, properties = {}) {
  return Object.assign(document.createElement(name), properties);
}
