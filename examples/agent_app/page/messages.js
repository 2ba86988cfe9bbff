// One message, as it is drawn.

import { make, money } from "./elements.js";

const TOOLS = {
  search_help: "Help pages", reserve_stock: "Stock", charge_card: "Card", my_orders: "Orders",
};

function read(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** What a tool has answered, in a line. */
function outcome(name, result) {
  const found = read(result.text);
  if (name === "search_help") return source(result.details);
  if (found === null) return result.text;
  if (found.refused) return `refused: ${found.refused}`;
  if (found.charged !== undefined) return `${money(found.charged)} charged for order ${found.order_id}`;
  if (found.cancelled === false) return `order ${found.order_id} was paid before, and stays`;
  if (found.cancelled) return `order ${found.order_id} cancelled, nothing charged`;
  if (found.order_id !== undefined) return `${found.count} × ${found.product} reserved, order ${found.order_id}`;
  return Array.isArray(found) ? `${found.length} found` : result.text;
}

/** Where an answer from the help pages came from. */
function source(details) {
  const pages = Object.keys(details.evidence ?? {}).join(", ");
  if (details.source === "model") {
    const why = details.missed === "stale" ? "cached answer refused: its page was edited; " : "";
    return `${why}read ${pages}, ${details.took_ms} ms`;
  }
  const asked = details.score < 0.9999 ? `, asked as “${details.asked_as}” (${details.score})` : "";
  return `from the cache${asked}, ${details.took_ms} ms`;
}

function badge(name, result) {
  if (name !== "search_help" || result === undefined) return null;
  if (result.details.missed === "stale") return make("span", { class: "tag warn" }, "stale refused");
  return result.details.source === "model" ? make("span", { class: "tag" }, "model")
    : make("span", { class: "tag good" }, "cache");
}

function toolCard(call, result, isWaiting) {
  const said = result === undefined ? (isWaiting ? "waits for your approval" : "…") : outcome(call.name, result);
  return make("div", { class: "tool", "data-tool": call.name },
    make("span", { class: "name" }, TOOLS[call.name] ?? call.name), badge(call.name, result),
    make("span", { class: "said" }, said));
}

/** Draw messages; results of tools are drawn with the calls that asked for them. */
export function drawMessages(messages, pending) {
  const results = new Map(messages.filter((each) => each.role === "tool").map((each) => [each.id, each]));
  const drawn = [];
  for (const each of messages) {
    if (each.role === "tool") continue;
    if (each.role === "note") {
      drawn.push(make("div", { class: "note" }, make("strong", {}, "Told to the agent when it was run again"), notes(each.text)));
      continue;
    }
    if (each.text) {
      drawn.push(make("div", { class: `message ${each.role}`, "aria-busy": each.isLive ? "true" : null },
        make("span", { class: "hidden" }, each.role === "agent" ? "Agent: " : "You: "), each.text));
    }
    for (const call of each.calls ?? []) drawn.push(toolCard(call, results.get(call.id), pending.length > 0));
  }
  return drawn;
}

/** The lines of a note that say what was done already. */
function notes(text) {
  const done = [...text.matchAll(/^- (\w+) "([^"]*)"/gm)].map((each) => `${each[1]} ${each[2]}`);
  return make("p", {}, `already done, and not done again: ${done.join(", ")}`);
}
