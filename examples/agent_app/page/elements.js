// Small things that all parts of the page use.

export const find = (id) => document.getElementById(id);

/** An element with attributes, listeners (`onclick`) and children; text is never markup. */
export function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else made.setAttribute(name, value);
  }
  made.append(...children.flat().filter((each) => each !== null && each !== undefined && each !== ""));
  return made;
}

export const money = (cents) =>
  (cents / 100).toLocaleString("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 2 });

export function size(bytes) {
  if (bytes < 1024) return `${bytes} B`;
  return bytes < 1024 * 1024 ? `${(bytes / 1024).toFixed(1)} KiB` : `${(bytes / 1048576).toFixed(1)} MiB`;
}

export const seconds = (value, digits = 1) => `${value.toFixed(digits)} s`;

export const clock = (at) => new Date(at * 1000).toLocaleTimeString("en-GB");

/** Replace what an element holds only if that changes, so that focus and selection stay. */
export function show(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

let leaving;

export function toast(text) {
  const where = find("toast");
  where.textContent = text;
  where.classList.add("up");
  clearTimeout(leaving);
  leaving = setTimeout(() => where.classList.remove("up"), 6000);
}

/** Ask the server; an error is shown, and undefined returned. */
export async function ask(method, path, body) {
  const told = await tried(method, path, body);
  if (told.error !== undefined) {
    toast(told.error);
    return undefined;
  }
  return told.value;
}

/** Ask the server; what it says, or what was wrong. */
export async function tried(method, path, body) {
  const sent = { method };
  if (body !== undefined) {
    sent.headers = { "content-type": "application/json" };
    sent.body = JSON.stringify(body);
  }
  try {
    const answer = await fetch(path, sent);
    const value = await answer.json();
    return answer.ok ? { value } : { error: value.error, status: answer.status };
  } catch {
    return { error: "The demo's server does not answer: is it still running?", status: 0 };
  }
}
