// Words, numbers and elements of the page. Data enters the document as text only, never as markup.

export const NONE = "–";

const grouped = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export const count = (n) => (n == null ? NONE : grouped.format(n));

/** `3.2 s`, `1 min 15 s`, `23 h 5 min`. */
export function duration(seconds) {
  if (seconds == null) return NONE;
  if (seconds < 9.95) return `${Math.round(seconds * 10) / 10} s`;
  if (seconds < 59.5) return `${Math.round(seconds)} s`;
  const [unit, sixtieth, small] = seconds < 3570 ? ["min", 1, "s"] : ["h", 60, "min"];
  const parts = Math.round(seconds / sixtieth);
  const rest = parts % 60 ? ` ${parts % 60} ${small}` : "";
  return `${Math.floor(parts / 60)} ${unit}${rest}`;
}

export function bytes(n) {
  if (n < 1024) return `${n} B`;
  const power = n < 1024 ** 2 ? 1 : n < 1024 ** 3 ? 2 : 3;
  return `${Math.round((n / 1024 ** power) * 10) / 10} ${["KiB", "MiB", "GiB"][power - 1]}`;
}

export const perMinute = (n) => (n == null ? NONE : `${n < 10 ? Math.round(n * 10) / 10 : count(n)} /min`);

/** The clock of a time in UTC, and the time in full. */
export const clock = (time) => time.slice(11, 19);
export const moment = (time) => (time == null ? NONE : `${time.slice(0, 10)} ${clock(time)} UTC`);

/** The sum of numbers; not known (null) where none of them is. */
export function total(numbers) {
  const known = numbers.filter((n) => n != null);
  return known.length ? known.reduce((all, n) => all + n, 0) : null;
}

export const plural = (n, one, many) => `${count(n)} ${n === 1 ? one : many}`;

const SVG = "http://www.w3.org/2000/svg";
const DRAWN = ["svg", "path", "line"];

export function make(tag, attributes = {}, ...children) {
  const node = DRAWN.includes(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** Writes only what changed: nothing is read aloud or laid out again in vain. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

const kept = new WeakMap();

/** Makes the children of `parent` those of `items`, in their order. A known key keeps its node. */
export function keep(parent, items, key, create, update) {
  if (!kept.has(parent)) kept.set(parent, new Map());
  const nodes = kept.get(parent);
  const wanted = new Set(items.map(key));
  for (const [known, node] of nodes) {
    if (wanted.has(known)) continue;
    node.remove();
    nodes.delete(known);
  }
  let next = parent.firstChild;
  for (const item of items) {
    let node = nodes.get(key(item));
    if (!node) {
      node = create(item);
      nodes.set(key(item), node);
    }
    if (node === next) next = next.nextSibling;
    else parent.insertBefore(node, next);
    update(node, item);
  }
}

/** The nodes of a text in which what is meant to be typed stands between grave accents. */
function typed(text) {
  const parts = text.split("`");
  // An odd number of accents is ambiguous.
  if (parts.length % 2 === 0) return [text];
  return parts.map((part, index) => (index % 2 ? make("code", {}, part) : part));
}

export function list(parent, texts) {
  const item = (text) => make("li", {}, ...typed(text));
  keep(parent, texts, (text) => text, item, () => {});
  parent.hidden = texts.length === 0;
}

/**
 * A table of columns `{ head, kind, text(item) }`, or `fill(cell, item)` for more than text. The
 * first column names the row. Where there is no row it shows the nodes `empty`, in `none`.
 */
export function table(name, columns, key, empty) {
  // The roles are said, as a narrow screen shows each row as a block.
  const roles = (column, index, inHead) => {
    const kind = { class: column.kind ?? "" };
    if (inHead) return make("th", { ...kind, role: "columnheader", scope: "col" }, column.head);
    if (index === 0) return make("th", { ...kind, role: "rowheader", scope: "row" });
    return make("td", { ...kind, role: "cell", "data-head": column.head });
  };
  const row = (inHead) => make("tr", { role: "row" }, ...columns.map((c, index) => roles(c, index, inHead)));
  const body = make("tbody", { role: "rowgroup" });
  const rows = make("table", { role: "table", "aria-label": name }, make("thead", { role: "rowgroup" }, row(true)), body);
  const none = make("p", { class: "empty" }, ...empty);
  const fill = (tr, item) =>
    columns.forEach((column, index) => {
      if (column.fill) column.fill(tr.children[index], item);
      else say(tr.children[index], column.text(item));
    });
  const show = (items) => {
    rows.hidden = items.length === 0;
    none.hidden = !rows.hidden;
    keep(body, items, key, () => row(false), fill);
  };
  return { node: make("div", { class: name.toLowerCase() }, rows, none), none, show };
}
