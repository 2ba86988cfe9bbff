// How old the oldest write is that is not persisted: a line a shard, against the bound.

const SPACE = "http://www.w3.org/2000/svg";
const [HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [150, 34, 8, 10, 20];

function drawn(tag, attributes, text) {
  const made = document.createElementNS(SPACE, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

export class Chart {
  constructor(where, shards, bound, samples) {
    this.where = where;
    this.bound = bound;
    this.samples = samples;
    this.highest = bound * 1.25;
    this.lags = Array.from({ length: shards }, () => []);
    this.frame();
    new ResizeObserver(() => where.clientWidth !== this.width && this.frame()).observe(where);
  }

  /** What does not move: drawn anew when the width is another one. */
  frame() {
    const width = (this.width = Math.max(240, this.where.clientWidth));
    const svg = drawn("svg", { width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, role: "img" });
    for (const at of [0, this.bound / 2, this.bound]) {
      const [y, name] = [this.y(at), at === this.bound ? "bound" : "grid"];
      svg.append(drawn("line", { x1: LEFT, x2: width - RIGHT, y1: y, y2: y, class: name }));
      svg.append(drawn("text", { x: LEFT - 6, y: y + 4, class: "axis end" }, `${at} s`));
    }
    svg.append(
      drawn("text", { x: LEFT + 6, y: this.y(this.bound) - 5, class: "axis alarm" },
        "above this bound a shard refuses writes"),
      drawn("text", { x: LEFT, y: HEIGHT - 5, class: "axis" }, "1 min ago"),
      drawn("text", { x: width - RIGHT, y: HEIGHT - 5, class: "axis end" }, "now"),
    );
    this.lines = this.lags.map((_, shard) => drawn("polyline", { class: `line shard-${shard}` }));
    svg.append(...this.lines);
    this.svg = svg;
    this.where.replaceChildren(svg);
    this.draw();
  }

  y(lag) {
    const part = Math.min(lag, this.highest) / this.highest;
    return HEIGHT - BOTTOM - part * (HEIGHT - BOTTOM - TOP);
  }

  begin(lags) {
    this.lags = lags.map((each) => each.slice(-this.samples));
    this.draw();
  }

  add(lags) {
    lags.forEach((lag, shard) => {
      this.lags[shard].push(lag);
      if (this.lags[shard].length > this.samples) this.lags[shard].shift();
    });
    this.draw();
  }

  draw() {
    const step = (this.width - LEFT - RIGHT) / (this.samples - 1);
    this.lags.forEach((lags, shard) => {
      const first = this.width - RIGHT - (lags.length - 1) * step;
      const points = lags.map((lag, at) => `${(first + at * step).toFixed(1)},${this.y(lag).toFixed(1)}`);
      this.lines[shard].setAttribute("points", points.join(" "));
    });
    const now = this.lags.map((lags, shard) => `shard ${shard} ${(lags.at(-1) ?? 0).toFixed(1)} s`);
    this.svg.setAttribute("aria-label", `DurabilityLag now: ${now.join(", ")}; the bound is ${this.bound} s`);
  }
}
