// The buttons. What each would do depends on how the shard is now.

import { ask, find, make, show } from "./elements.js";

const BUTTONS = [
  { id: "log", group: "Log", word: "Hold the log", fault: "hold_log",
    off: ["Release the log", "release_log"], isOn: (shard) => shard.held,
    why: "What is accepted from now on is acknowledged, and not persisted" },
  { id: "kill", group: "Primary", word: "Kill", fault: "kill_primary", danger: true,
    why: "SIGKILL: what is not persisted is lost" },
  { id: "freeze", group: "Primary", word: "Freeze", fault: "freeze_primary",
    off: ["Resume", "resume"], isOn: (shard) => shard.nodes.some((node) => node.role === "frozen"),
    why: "SIGSTOP: it hangs, with its connections open" },
  { id: "reject", group: "Writes", word: "Reject writes", fault: "reject_writes",
    off: ["Accept writes", "accept_writes"], isOn: (shard) => shard.rejecting === "NOREPLICAS",
    why: "Reads go on, each write is refused" },
  { id: "agent", group: "Agent", word: "Kill", fault: "kill_agent", danger: true,
    why: "SIGKILL: its journal is gone with it" },
  { id: "both", group: "Agent", word: "Kill with primary", fault: "kill_both", danger: true,
    why: "Both at once: nobody is left who could replay" },
];

export class Faults {
  constructor(cluster) {
    this.cluster = cluster;
    this.isAgentUp = true;
    this.made = BUTTONS.map((each) => ({ ...each, button: make("button", {
      id: `fault-${each.id}`, class: each.danger ? "danger" : "", title: each.why }, each.word) }));
    for (const each of this.made) each.button.onclick = () => this.press(each);
    const groups = [...new Set(BUTTONS.map((each) => each.group))];
    find("faults").replaceChildren(...groups.map((group) => make(
      "div", { class: "group", role: "group", "aria-label": group },
      make("span", { class: "label" }, group),
      make("div", { class: "buttons" },
        ...this.made.filter((each) => each.group === group).map((each) => each.button)))));
  }

  async press(each) {
    const shard = this.cluster.chosen;
    const isOff = each.off && each.isOn(this.cluster.shards[shard]);
    each.isPressed = true;
    this.update();
    await ask("POST", `/api/faults/${isOff ? each.off[1] : each.fault}`, { shard });
    each.isPressed = false;
    this.update();
  }

  update() {
    const shard = this.cluster.shards[this.cluster.chosen];
    if (shard === undefined) return;
    const isMending = this.cluster.mending.includes(shard.shard);
    for (const each of this.made) {
      const isOff = each.off && each.isOn(shard);
      show(each.button, isOff ? each.off[0] : each.word);
      each.button.classList.toggle("on", Boolean(isOff));
      const needsPrimary = each.id !== "agent" && !isOff;
      const needsReplica = ["kill", "freeze", "both"].includes(each.id) && !isOff;
      const isAway = each.group === "Agent" && !this.isAgentUp;
      const isBroken = (needsPrimary && (isMending || !shard.identity)) || (needsReplica && !shard.whole);
      each.button.disabled = isAway || isBroken || each.isPressed === true;
    }
  }
}
