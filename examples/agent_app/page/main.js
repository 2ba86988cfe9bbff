// Puts the parts together, and hands on what the server tells.

import { showCache, showLedger, showPages } from "./books.js";
import { Chat } from "./chat.js";
import { Cluster } from "./cluster.js";
import { ask, find, make, show } from "./elements.js";
import { Faults } from "./faults.js";
import { Timeline } from "./timeline.js";

const timeline = new Timeline();
const cluster = new Cluster(() => {
  faults?.update();
  chat?.showStatus();
});
const faults = new Faults(cluster);
const chat = new Chat(cluster);

function showAgent(agent) {
  const pill = find("agent");
  const told = agent.up ? ["Agent up", make("span", { class: "pid" }, `, process ${agent.pid}`)] : ["Agent down, starting …"];
  pill.replaceChildren(...told);
  pill.className = `pill ${agent.up ? "good" : "bad"}`;
  const replay = find("replay");
  replay.setAttribute("aria-checked", String(agent.replay));
  show(find("replay-word"), agent.replay ? "Replay on" : "Replay off");
  document.body.classList.toggle("plain", !agent.replay);
  faults.isAgentUp = agent.up;
  faults.update();
  chat.agent(agent);
}

find("replay").onclick = async () => {
  const button = find("replay");
  const on = button.getAttribute("aria-checked") !== "true";
  button.disabled = true;
  await ask("POST", "/api/replay", { on });
  button.disabled = false;
};

const dark = matchMedia("(prefers-color-scheme: dark)");

function wear(theme) {
  document.documentElement.dataset.theme = theme;
  find("theme").setAttribute("aria-label", theme === "dark" ? "Light colours" : "Dark colours");
}

wear(localStorage.getItem("theme") ?? (dark.matches ? "dark" : "light"));
find("theme").onclick = () => {
  const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  localStorage.setItem("theme", theme);
  wear(theme);
};

const events = new EventSource("/events");
const on = (name, work) => events.addEventListener(name, (event) => work(JSON.parse(event.data)));

on("state", (state) => {
  cluster.begin(state);
  timeline.begin(state.timeline);
  showLedger(state.ledger);
  showCache(state.cache);
  showPages(state.documents);
  showAgent(state.agent);
  chat.begin(state.threads);
  document.body.dataset.ready = "true";
});
on("cluster", (told) => cluster.tick(told));
on("timeline", (entry) => timeline.add(entry));
on("ledger", showLedger);
on("cache", showCache);
on("agent", showAgent);
on("token", (told) => chat.token(told));
on("message", (told) => chat.message(told));
on("run", (told) => chat.run(told));
on("refresh", ({ thread }) => chat.refresh(thread));
