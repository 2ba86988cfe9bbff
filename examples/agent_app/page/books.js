// The ledger, and what the cache has spared.

import { ask, find, make, money, toast } from "./elements.js";

const ORDERS_SHOWN = 5;

function figures(...pairs) {
  return make("dl", { class: "figures" },
    ...pairs.map(([name, value, level]) => make("div", { class: level }, make("dt", {}, name), make("dd", {}, value))));
}

const sum = (counts) => Object.values(counts).reduce((all, each) => all + each, 0);

const listed = (counts) =>
  Object.entries(counts).map(([name, count]) => `${name.replaceAll("_", " ")} ${count}`).join(", ");

export function showLedger(ledger) {
  const paid = ledger.orders.filter((each) => each.state === "paid").length;
  const isWrong = ledger.wrong.length > 0;
  const names = Object.fromEntries(ledger.stock.map((each) => [each.sku, each.name]));
  const rows = ledger.orders.slice(-ORDERS_SHOWN).reverse().map((each) => make(
    "tr", { class: each.charges > 1 ? "bad" : "" },
    make("td", {}, String(each.order_id)), make("td", {}, `${each.count} × ${names[each.sku]}`),
    make("td", { class: "end" }, money(each.cents)), make("td", {}, each.state),
    make("td", { class: "end" }, each.charges > 1 ? `${each.charges} ×` : String(each.charges))));
  const table = make("table", {},
    make("thead", {}, make("tr", {}, ...["Order", "Goods", "Price", "State", "Charges"].map(
      (name) => make("th", { scope: "col", class: name === "Price" || name === "Charges" ? "end" : "" }, name)))),
    make("tbody", {}, ...rows));
  find("ledger").replaceChildren(
    figures(["Paid orders", String(paid)], ["Charges", String(ledger.charges), ledger.charges > paid ? "bad" : ""],
      ["Charged", money(ledger.charged_cents)], ["Books", isWrong ? "wrong" : "right", isWrong ? "bad" : "good"]),
    ledger.orders.length ? make("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Latest orders" }, table)
      : make("p", { class: "sub" }, "No orders yet."),
    ...(isWrong ? ledger.wrong.map((each) => make("p", { class: "alarm" }, `${each}.`)) : []),
    make("p", { class: "sub stock" }, ledger.stock.map((each) => `${each.name} ${each.left}`).join(" · ")));
}

export function showCache(cache) {
  const hits = sum(cache.hits);
  const lookups = hits + sum(cache.misses);
  find("counts").replaceChildren(
    figures(["Hits", lookups ? `${hits} of ${lookups}` : "0"], ["Stale refused", String(cache.stale_refused)],
      ["Time saved", `${cache.saved_s.toFixed(2)} s`], ["Money saved", `$${cache.saved_money.toFixed(5)}`]),
    make("p", { class: "sub" }, [
      hits ? `hits: ${listed(cache.hits)}` : "", sum(cache.misses) ? `misses: ${listed(cache.misses)}` : "",
      cache.saved_tokens ? `${cache.saved_tokens.toLocaleString("en-US")} tokens saved, at $0.50 and $1.50 a million` : "",
    ].filter(Boolean).join(" · ") || "Nothing asked yet."));
}

export function showPages(names) {
  find("pages").replaceChildren(make("span", { class: "label" }, "Edit a page"),
    ...names.map((name) => make("button", { class: "small", onclick: () => edit(name) }, name)));
}

async function edit(name) {
  const page = await ask("GET", `/api/documents/${name}`);
  if (page === undefined) return;
  const [dialog, text, save] = [find("editor"), find("page-text"), find("page-save")];
  find("editor-title").textContent = name;
  text.value = page.text;
  save.onclick = async () => {
    save.disabled = true;
    const done = await ask("PUT", `/api/documents/${name}`, { text: text.value });
    save.disabled = false;
    if (done === undefined) return;
    toast(`${name} is version ${done.version} now`);
    dialog.close();
  };
  dialog.showModal();
  text.focus();
}
