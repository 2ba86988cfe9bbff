// The chat: what the store has of a conversation, and what is said just now.

import { ask, find, make, money, show, tried } from "./elements.js";
import { openHistory } from "./history.js";
import { drawMessages } from "./messages.js";

const SUGGESTIONS = [
  "I'd like three desk lamps", "How many days do I have to return something?",
  "How long does delivery take?", "What did I order?",
];

const AGAIN_MS = 1000;
const EMPTY = { messages: [], pending: [], next: [], running: null };

const newId = () => `c-${Array.from(crypto.getRandomValues(new Uint8Array(4)), (each) => each.toString(16).padStart(2, "0")).join("")}`;

export class Chat {
  constructor(cluster) {
    this.cluster = cluster;
    this.threads = [];
    this.id = null;
    this.stored = EMPTY;
    this.live = [];
    this.trouble = "";
    this.isReplayed = true;
    this.running = new Map();
    this.reading = 0;
    find("new").onclick = () => this.open(newId(), true);
    find("history-open").onclick = () => openHistory(this.id, () => this.read());
    find("composer").onsubmit = (event) => this.submit(event);
    find("text").onkeydown = (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) this.submit(event);
    };
    find("text").oninput = () => this.fit();
    window.addEventListener("hashchange", () => this.follow());
    find("suggestions").replaceChildren(...SUGGESTIONS.map(
      (each) => make("button", { class: "chip", onclick: () => this.say(each) }, each)));
  }

  begin(threads) {
    this.threads = threads;
    this.running = new Map(threads.filter((each) => each.running).map((each) => [each.thread, true]));
    if (this.id === null) this.follow();
    else this.read();
    this.showThreads();
  }

  follow() {
    const [, id] = location.hash.match(/^#([a-z]-[a-z0-9-]{1,38})$/) ?? [];
    const wanted = id ?? sessionStorage.getItem("thread") ?? this.id ?? this.threads[0]?.thread ?? newId();
    if (wanted !== this.id) this.open(wanted);
  }

  open(id, isNew = false) {
    this.id = id;
    history.replaceState(null, "", `#${id}`);
    sessionStorage.setItem("thread", id);
    this.stored = EMPTY;
    this.live = [];
    this.trouble = "";
    const known = this.threads.find((each) => each.thread === id);
    this.cluster.open(known ? known.shard : null);
    this.showThreads();
    this.draw();
    if (!isNew) this.read();
    if (isNew) find("text").focus();
  }

  /** Read the conversation from the store; an outage leaves on the screen what was told. */
  async read() {
    const [id, number] = [this.id, ++this.reading];
    if (!this.threads.some((each) => each.thread === id)) return;
    const told = await tried("GET", `/api/threads/${id}`);
    if (id !== this.id || number !== this.reading) return;
    if (told.error !== undefined) {
      this.trouble = told.error;
      setTimeout(() => number === this.reading && this.read(), AGAIN_MS);
    } else {
      this.trouble = "";
      this.stored = told.value;
      const there = new Set(told.value.messages.map((each) => each.id));
      const keeps = (each) => !there.has(each.id) && (each.isSent || this.running.has(id));
      this.live = this.live.filter(keeps);
      this.cluster.open(told.value.shard);
    }
    this.draw();
  }

  submit(event) {
    event.preventDefault();
    const text = find("text").value.trim();
    if (text === "") return;
    find("text").value = "";
    this.fit();
    this.say(text);
  }

  fit() {
    const text = find("text");
    text.style.height = "auto";
    text.style.height = `${Math.min(text.scrollHeight, 140)}px`;
  }

  async say(text) {
    const id = this.id;
    const message = { id: `sent-${Date.now()}`, role: "customer", text, isSent: true };
    this.live.push(message);
    this.draw();
    const done = await ask("POST", `/api/threads/${id}/messages`, { text });
    if (done === undefined) {
      this.live = this.live.filter((each) => each !== message);
      if (id === this.id && find("text").value === "") find("text").value = text;
    } else {
      message.id = done.run;
      if (!this.threads.some((each) => each.thread === id)) await this.reload();
    }
    this.draw();
  }

  async reload() {
    const threads = await ask("GET", "/api/threads");
    if (threads === undefined) return;
    this.threads = threads;
    const known = threads.find((each) => each.thread === this.id);
    if (known && this.cluster.here === null) this.cluster.open(known.shard);
    this.showThreads();
  }

  async decide(approve) {
    this.stored = { ...this.stored, pending: [] };
    this.draw();
    if ((await ask("POST", `/api/threads/${this.id}/approval`, { approve })) === undefined) this.read();
  }

  // --- what the server tells ----------------------------------------------------------

  token({ thread, run, text }) {
    if (thread !== this.id) return;
    let last = this.live.at(-1);
    if (last?.isLive !== true) this.live.push((last = { id: `live-${run}`, role: "agent", text: "", isLive: true }));
    last.text += text;
    this.draw();
  }

  message({ thread, message }) {
    if (thread !== this.id) return;
    const isThere = (each) => each.id === message.id;
    if (message.role === "agent") this.live = this.live.filter((each) => !each.isLive);
    if (!this.stored.messages.some(isThere) && !this.live.some(isThere)) this.live.push(message);
    this.draw();
  }

  run({ thread, state, pending }) {
    const isOver = ["answered", "waiting", "failed", "left", "not_taken"].includes(state);
    if (isOver) this.running.delete(thread);
    else this.running.set(thread, true);
    if (thread === this.id) {
      if (state === "waiting") this.stored = { ...this.stored, pending };
      if (state === "again") this.live = [];
      if (isOver || state === "again") this.read();
      this.draw();
    }
    if (!this.threads.some((each) => each.thread === thread)) this.reload();
    this.showThreads();
  }

  refresh(thread) {
    if (thread === undefined || thread === this.id) this.read();
  }

  agent({ up, replay }) {
    this.isReplayed = replay;
    this.isUp = up;
    if (!up) {
      this.running.clear();
      this.live = this.live.filter((each) => !each.isLive);
      this.read();
    }
    this.showStatus();
    this.showThreads();
  }

  // --- drawing ------------------------------------------------------------------------

  showThreads() {
    const shown = this.threads.some((each) => each.thread === this.id) || this.id === null
      ? this.threads : [{ thread: this.id, title: "New conversation" }, ...this.threads];
    find("threads").replaceChildren(...shown.map((each) => make("button", {
      class: "chip", "aria-pressed": String(each.thread === this.id), onclick: () => this.open(each.thread),
    }, this.running.has(each.thread) ? make("span", { class: "busy", title: "at work" }) : null, each.title)));
  }

  draw() {
    const where = find("messages");
    const isAtEnd = where.scrollHeight - where.scrollTop - where.clientHeight < 80;
    const { messages, pending } = this.stored;
    const all = [...messages, ...this.live];
    const drawn = drawMessages(all, pending);
    if (all.length === 0) {
      drawn.push(make("div", { class: "welcome" }, make("strong", {}, "How can we help?"),
        make("p", {}, "This agent answers from the shop's help pages, takes orders, and asks before it charges a card. Its memory is the cluster on this page.")));
    }
    for (const each of pending) drawn.push(this.approval(each));
    const focused = document.activeElement?.id;
    where.replaceChildren(...drawn);
    if (focused === "approve" || focused === "decline") find(focused)?.focus();
    if (isAtEnd) where.scrollTop = where.scrollHeight;
    find("suggestions").hidden = all.length > 0;
    const shard = this.cluster.here;
    show(find("chat-shard"), shard === null ? "" : `shard ${shard}`);
    this.showStatus();
  }

  approval(asked) {
    return make("div", { class: "approval", role: "group", "aria-label": "Approval" },
      make("p", {}, "Charge ", make("strong", {}, money(asked.cents)), ` for order ${asked.order_id}, ${asked.count} × ${asked.product}?`),
      make("div", { class: "actions" },
        make("button", { class: "primary", id: "approve", onclick: () => this.decide(true) }, "Approve"),
        make("button", { id: "decline", onclick: () => this.decide(false) }, "Decline")));
  }

  showStatus() {
    const status = find("status");
    const [word, level] = this.condition();
    show(status, word);
    status.className = `status ${level}`;
  }

  condition() {
    if (this.trouble) return [`The store can't be read: ${this.trouble.split(";")[0]}. What you see was acknowledged before.`, "bad"];
    const shard = this.cluster.shards[this.cluster.here];
    const isBusy = this.running.has(this.id) || this.live.some((each) => each.isSent && each.id.startsWith("sent-"));
    if (this.isUp === false) return ["The agent's process is down; another one is starting.", "warn"];
    if (isBusy && shard?.rejecting) return [`Waiting: shard ${shard.shard} refuses writes.`, "warn"];
    if (isBusy && shard && !shard.identity) return [`Waiting: shard ${shard.shard} has no primary.`, "warn"];
    if (isBusy) return ["The agent is at work …", "busy"];
    const isCutOff = this.stored.next.length > 0 && this.stored.pending.length === 0;
    if (isCutOff && this.isReplayed) return ["This turn was cut off. It is recorded, and will be brought to its end.", "warn"];
    if (isCutOff) return ["This turn was cut off, and nobody will bring it to its end.", "bad"];
    return ["", ""];
  }
}
