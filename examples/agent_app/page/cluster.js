// The shards as they are now; one of them is the one that buttons break.

import { Chart } from "./chart.js";
import { find, make, seconds, show, size } from "./elements.js";

const ORDER = ["primary", "replica", "frozen", "down"];

export class Cluster {
  constructor(changed) {
    this.changed = changed;
    this.cards = [];
    this.shards = [];
    this.mending = [];
    this.chosen = 0;
    this.isChosenByHand = false;
    this.here = null;
  }

  begin(state) {
    const samples = Math.round(60 / state.look_s);
    this.chart = new Chart(find("chart"), state.cluster.shards.length, state.lag_bound_s, samples);
    this.chart.begin(state.lags);
    if (this.cards.length === 0) {
      this.cards = state.cluster.shards.map((each) => this.card(each.shard));
      find("shards").replaceChildren(...this.cards.map((each) => each.whole));
    }
    this.update(state.cluster);
  }

  /** The shard of the conversation that is open: that is broken, unless another one was chosen. */
  open(shard) {
    this.here = shard;
    this.isChosenByHand = false;
    if (shard !== null) this.chosen = shard;
    this.showChosen();
  }

  choose(shard) {
    this.chosen = shard;
    this.isChosenByHand = true;
    this.showChosen();
  }

  showChosen() {
    this.cards.forEach((card, shard) => {
      card.whole.setAttribute("aria-checked", String(shard === this.chosen));
      card.whole.tabIndex = shard === this.chosen ? 0 : -1;
      card.here.hidden = shard !== this.here;
    });
    show(find("target"), `on shard ${this.chosen}${this.chosen === this.here ? ", where this conversation lives" : ""}`);
    this.changed();
  }

  card(shard) {
    const part = {
      here: make("li", { class: "tag here", hidden: true }, "this chat"),
      state: make("span", { class: "state" }),
      nodes: make("ul", { class: "nodes" }),
      lag: make("dd"), journal: make("dd"), watermark: make("dd"),
    };
    part.whole = make(
      "div", { class: `shard shard-${shard}`, role: "radio", "aria-checked": "false", tabindex: "-1",
        onclick: () => this.choose(shard), onkeydown: (event) => this.key(event, shard) },
      make("div", { class: "row" }, make("span", { class: "mark", "aria-hidden": "true" }),
        make("strong", {}, `Shard ${shard}`), part.state),
      part.nodes,
      make("dl", {},
        make("div", {}, make("dt", {}, "lag"), part.lag),
        make("div", { title: "What the agent holds of it that is not known to be durable" }, make("dt", {}, "journal"), part.journal),
        make("div", { title: "How long ago the last write was acknowledged that is known to be durable" }, make("dt", {}, "watermark"), part.watermark)),
    );
    return part;
  }

  key(event, shard) {
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (event.key === " " || event.key === "Enter") this.choose(shard);
    else if (by !== undefined) {
      const next = (shard + by + this.cards.length) % this.cards.length;
      this.choose(next);
      this.cards[next].whole.focus();
    } else return;
    event.preventDefault();
  }

  tick(cluster) {
    this.chart?.add(cluster.shards.map((each) => each.lag_s));
    this.update(cluster);
  }

  update(cluster) {
    this.shards = cluster.shards;
    this.mending = cluster.mending;
    for (const each of cluster.shards) this.fill(this.cards[each.shard], each);
    const bytes = cluster.journal_bytes;
    show(find("journal"), bytes ? `journal ${size(bytes)}, ${cluster.journal_entries} entries` : "");
    this.changed();
  }

  fill(card, shard) {
    const [word, level] = condition(shard);
    show(card.state, word);
    card.state.className = `state ${level}`;
    const sorted = shard.nodes.toSorted((one, other) => ORDER.indexOf(one.role) - ORDER.indexOf(other.role));
    const nodes = sorted.map((node) => `${node.port} ${node.role}`);
    if (card.told !== nodes.join()) {
      card.told = nodes.join();
      card.nodes.replaceChildren(...sorted.map((node) => make(
        "li", { class: node.role }, make("span", { class: "dot", "aria-hidden": "true" }),
        node.role, make("span", { class: "port" }, `:${node.port}`))), card.here);
    }
    show(card.lag, seconds(shard.lag_s));
    show(card.journal, shard.journal_bytes === undefined ? "–" : size(shard.journal_bytes));
    const age = shard.watermark_age_s;
    show(card.watermark, age === undefined || age === null ? "–" : seconds(age));
  }
}

function condition(shard) {
  if (!shard.identity) return ["no primary", "bad"];
  if (shard.rejecting) return ["refuses writes", "bad"];
  if (shard.held) return ["log held", "warn"];
  if (shard.nodes.some((node) => node.role === "frozen")) return ["node frozen", "warn"];
  if (!shard.whole) return ["no replica", "warn"];
  return ["in order", "good"];
}
