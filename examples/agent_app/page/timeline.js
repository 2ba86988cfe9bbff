// What happened, the newest first; before that, what to try.

import { clock, find, make } from "./elements.js";

const TRY = [
  "Ask something, then ask it in other words: the cache answers.",
  "Order three desk lamps, and wait for the approval card.",
  "Hold the log: what is accepted now is not persisted.",
  "Approve, see the order paid, and kill the primary.",
  "Now turn replay off, and do the same again.",
];

const WORDS = { good: "Good", warn: "Note", bad: "Bad" };

export class Timeline {
  constructor() {
    this.list = find("entries");
    this.numbers = new Set();
  }

  begin(entries) {
    this.numbers.clear();
    this.list.replaceChildren();
    if (entries.length === 0) {
      this.list.append(make("li", { class: "guide" }, make("strong", {}, "Nothing yet. Try this:"),
        make("ol", {}, ...TRY.map((each) => make("li", {}, each)))));
    }
    entries.forEach((entry) => this.add(entry));
  }

  add(entry) {
    if (this.numbers.has(entry.number)) return;
    this.numbers.add(entry.number);
    this.list.querySelector(".guide")?.remove();
    const level = WORDS[entry.level] === undefined ? null : make("span", { class: "hidden" }, `${WORDS[entry.level]}: `);
    this.list.prepend(make("li", { class: `entry ${entry.level}`, "data-kind": entry.kind },
      make("span", { class: "dot", "aria-hidden": "true" }),
      make("time", {}, clock(entry.at)),
      make("strong", {}, level, entry.title),
      make("p", {}, entry.text)));
  }
}
