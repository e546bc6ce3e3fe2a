// The curves of the page: a worker's last half hour, and the last minutes of each shard.

import { NONE, clock, duration, make, perMinute, say } from "./parts.js";

const WINDOWS = [120, 300, 600, 1800]; // Seconds that a worker's curves may show: all there are.
const WIDTH = 600; // In the drawing's own units, as is the height.
const HEIGHT = 100;
const KEPT = 150; // Looks of a shard's curve: five minutes,
const FEWEST = 30; // and at first one.

/** Seconds until trim that are an alarm. */
export const SOON = 4 * 3600;

/** Paths of a line and of the area below it. Points are `{ x, y }`, 0 to 1; a null y breaks both. */
function paths(points, width, height) {
  const runs = [[]];
  for (const { x, y } of points) {
    if (y == null) runs.push([]);
    else runs.at(-1).push([(x * width).toFixed(1), ((1 - y) * height).toFixed(1)]);
  }
  const drawn = runs.filter((run) => run.length > 1);
  const line = (run) => `M${run.map((p) => p.join(" ")).join("L")}`;
  const area = (run) => `${line(run)}L${run.at(-1)[0]} ${height}L${run[0][0]} ${height}Z`;
  return [drawn.map(line).join(""), drawn.map(area).join("")];
}

const TIMES = [5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 28800, 43200, 86400];
const NUMBERS = Array.from({ length: 27 }, (_, n) => [10, 20, 50][n % 3] * 10 ** Math.floor(n / 3));

/** What a drawing's height or width stands for: the first of the steps that is not below any value. */
function ceiling(values, steps) {
  const most = values.reduce((high, value) => Math.max(high, value ?? 0), 0);
  return steps.find((step) => step >= most) ?? steps.at(-1);
}

/** Increase a minute over the last half minute, point by point. */
function rate(history, field) {
  return history.map((point, index) => {
    const before = history[Math.max(0, index - 6)];
    const seconds = (Date.parse(point.at) - Date.parse(before.at)) / 1000;
    return seconds > 0 ? (Math.max(0, point[field] - before[field]) * 60) / seconds : null;
  });
}

const CURVES = [
  { head: "Lag", of: (h) => h.map((p) => p.lag_seconds), text: duration, steps: TIMES },
  {
    head: "Time to trim",
    of: (h) => h.map((p) => p.until_trim_seconds),
    text: duration,
    steps: [86400],
    alarm: SOON,
  },
  { head: "Records finished", of: (h) => rate(h, "finished_total"), text: perMinute, steps: NUMBERS },
  { head: "Mails accepted", of: (h) => rate(h, "accepted_total"), text: perMinute, steps: NUMBERS },
];

/** Puts the curves into `parent`; returns what draws a history that ends at `end`. */
export function curves(parent) {
  const figures = CURVES.map(figure);
  parent.append(...figures.map(({ node }) => node));
  return (history, end) => figures.forEach(({ draw }) => draw(history, Date.parse(end)));
}

function figure({ head, of, text, steps, alarm }) {
  const now = make("span", { class: "now" });
  const note = make("span", { class: "note" });
  const high = make("span", { class: "high" });
  const line = make("path", { class: "line" });
  const area = make("path", { class: "area" });
  const limit = alarm ? [make("line", { class: "alarm", x1: 0, x2: WIDTH })] : [];
  const hair = make("line", { class: "hair", y1: 0, y2: HEIGHT, visibility: "hidden" });
  const drawing = make("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none" }, area, line, ...limit, hair);
  const from = make("span");
  const axis = make("p", { class: "axis" }, from, make("span", {}, "now"));
  // The caption says in words what the drawing shows.
  const plot = make("div", { "aria-hidden": "true" }, high, drawing, axis);
  const node = make("figure", {}, make("figcaption", {}, make("span", {}, head), now, note), plot);
  let points = [];

  // The value under the pointer; without one the last value and the worst.
  const describe = (pointer) => {
    const known = points.filter((p) => p.value != null);
    hair.setAttribute("visibility", pointer != null && known.length ? "visible" : "hidden");
    if (!known.length) {
      say(now, NONE);
      say(note, "begins a few seconds after the worker's start");
    } else if (pointer != null) {
      const nearest = known.reduce((best, p) => (Math.abs(p.x - pointer) < Math.abs(best.x - pointer) ? p : best));
      hair.setAttribute("x1", nearest.x * WIDTH);
      hair.setAttribute("x2", nearest.x * WIDTH);
      say(now, text(nearest.value));
      say(note, `at ${clock(nearest.at)} UTC`);
    } else {
      const worse = (a, b) => (alarm ? a < b : a > b);
      const worst = known.reduce((found, p) => (worse(found.value, p.value) ? found : p));
      say(now, text(known.at(-1).value));
      say(note, `${alarm ? "lowest" : "highest"} ${text(worst.value)} at ${clock(worst.at)} UTC`);
    }
  };
  let pointer = null;
  drawing.addEventListener("pointermove", ({ clientX }) => {
    const { left, width } = drawing.getBoundingClientRect();
    describe((pointer = (clientX - left) / width));
  });
  drawing.addEventListener("pointerleave", () => describe((pointer = null)));

  const draw = (history, end) => {
    const values = of(history);
    const most = ceiling(values, steps);
    const age = (time) => (end - Date.parse(time)) / 1000;
    const span = ceiling(history.slice(0, 1).map(({ at }) => age(at)), WINDOWS);
    points = history.map(({ at }, index) => ({ at, x: 1 - age(at) / span, value: values[index] }));
    points = points.filter(({ x }) => x >= 0);
    const height = (value) => (value == null ? null : value / most);
    const [upper, below] = paths(points.map(({ x, value }) => ({ x, y: height(value) })), WIDTH, HEIGHT);
    line.setAttribute("d", upper);
    area.setAttribute("d", below);
    for (const y of ["y1", "y2"]) limit[0]?.setAttribute(y, HEIGHT * (1 - alarm / most));
    say(high, text(most));
    say(from, `${duration(span)} ago`);
    describe(pointer);
  };
  return { node, draw };
}

const sparks = new WeakMap();
// Only what is on the screen is drawn, so a thousand shards cost no more.
const visible = new Set();
const watcher = new IntersectionObserver((changes) => {
  for (const { target, isIntersecting } of changes) {
    if (isIntersecting) visible.add(target);
    else visible.delete(target);
    if (isIntersecting) trace(target);
  }
});

/** A small drawing of a shard's lag, to be drawn when it is seen. */
export function spark() {
  const node = make("svg", { class: "spark", viewBox: "0 0 100 20", preserveAspectRatio: "none", "aria-hidden": "true" }, make("path"));
  watcher.observe(node);
  return node;
}

/** Shows these values in it from now on. */
export function sparkle(node, values) {
  sparks.set(node, values);
  if (visible.has(node)) trace(node);
}

function trace(node) {
  const values = sparks.get(node) ?? [];
  const most = ceiling(values, TIMES);
  const looks = Math.max(FEWEST, values.length);
  const points = values.map((value, index) => ({
    x: 1 - (values.length - 1 - index) / (looks - 1),
    y: value == null ? null : 0.05 + (0.9 * value) / most,
  }));
  node.firstChild.setAttribute("d", paths(points, 100, 20)[0]);
}

/** The values seen of each key, the last minutes of them. */
export function memory() {
  const all = new Map();
  return {
    of: (key) => all.get(key) ?? [],
    /** Takes one look: what is not in it is forgotten. */
    look(values) {
      for (const key of all.keys()) if (!values.has(key)) all.delete(key);
      for (const [key, value] of values) {
        const seen = all.get(key) ?? [];
        seen.push(value ?? null);
        if (seen.length > KEPT) seen.shift();
        all.set(key, seen);
      }
    },
  };
}
