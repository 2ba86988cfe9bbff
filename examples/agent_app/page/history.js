// A conversation's checkpoints, and the way back to one of them.

import { ask, find, make } from "./elements.js";

export async function openHistory(thread, travelled) {
  const found = await ask("GET", `/api/threads/${thread}/history`);
  if (found === undefined) return;
  const dialog = find("history");
  find("checkpoints").replaceChildren(...found.map((each, at) => make(
    "li", { class: each.on_line ? "" : "aside" },
    make("span", { class: "step" }, String(each.step)),
    make("div", {}, make("p", {}, each.summary),
      make("span", { class: "sub" }, [time(each.time), each.source === "fork" ? "branched here" : "",
        each.on_line ? "" : "another branch"].filter(Boolean).join(" · "))),
    each.can_travel && at > 0 ? make("button", { class: "small", onclick: () => go(thread, each, travelled) }, "Go on from here") : null)));
  if (found.length === 0) find("checkpoints").append(make("li", { class: "empty" }, "Nothing was said yet."));
  dialog.showModal();
}

const time = (text) => (text ? new Date(text).toLocaleTimeString("en-GB") : "");

async function go(thread, checkpoint, travelled) {
  find("history").close();
  const done = await ask("POST", `/api/threads/${thread}/travel`, { checkpoint_id: checkpoint.id });
  if (done !== undefined) travelled();
}
