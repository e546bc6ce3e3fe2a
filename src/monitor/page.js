// The page of a worker: reads status.json every two seconds and shows it.

import { SOON, curves, memory, spark, sparkle } from "./curves.js";
import { NONE, bytes, clock, count, duration, keep, list, make, moment, perMinute, plural, say, table, total } from "./parts.js";

const FORMAT = 1; // Of the document.
const EVERY = 2_000; // Milliseconds between two looks,
const SLOWEST = 30_000; // and at most, while the worker does not answer.
const PATIENCE = 5_000; // A worker that takes longer does not answer.
const FEW = 24; // So many shards are shown without folding.

const at = (id) => document.getElementById(id);
const code = (text) => make("code", {}, text);

// The verdict and the totals.

const WORDS = { well: "All is well", recovering: "Recovering by itself", attention: "Needs attention", unknown: "Cannot tell" };

function verdict({ verdict, advice, findings, streams }) {
  document.documentElement.dataset.verdict = verdict;
  say(at("word"), WORDS[verdict] ?? verdict);
  list(at("advice"), advice);
  const hand = (findings ?? []).filter(({ by }) => by === "workers").map(({ text }) => text);
  at("hand-head").hidden = hand.length === 0;
  list(at("hand"), hand);
  document.title = [WORDS[verdict], ...streams.map(({ table }) => table), "aftercommit"].join(" · ");
}

function reasons(letters) {
  const all = new Map();
  for (const [word, n] of letters.flatMap((one) => Object.entries(one ?? {}))) all.set(word, (all.get(word) ?? 0) + n);
  return [...all].filter(([, n]) => n > 0).sort(([, a], [, b]) => b - a);
}

/** Orders by the ledger; where it was not asked, mails that this worker was in doubt about. */
function doubts(orders, mails) {
  if (orders != null) return { n: orders, bad: orders > 0, more: ["orders that may have been mailed"] };
  return { n: mails?.ambiguous, more: ["mails that left this worker in doubt"] };
}

function totals({ streams, ambiguous, process }) {
  const letters = streams.map((one) => one.dead_letters);
  const why = reasons(letters);
  const mails = process?.mails;
  const since = process ? `by this worker since ${clock(process.since)} UTC` : "counted by workers only";
  const open = total(streams.map((one) => one.gaps.filter(({ resolved }) => !resolved).length));
  const dead = total(letters.map((one) => one && total([0, ...Object.values(one)])));
  return [
    { head: "Mails accepted", n: mails?.accepted, more: [since] },
    { head: "Ambiguous", ...doubts(ambiguous, mails) },
    { head: "Failed", n: mails?.failed, more: ["mails refused for good, by this worker"] },
    { head: "Dead letters", n: dead, bad: dead > 0, more: why.length ? why.map(([word, n]) => `${count(n)} ${word}`) : ["records given up"] },
    { head: "Parked keys", n: total(streams.map((one) => one.parked_keys)), more: ["whose records wait behind a dead letter"] },
    { head: "Gaps", n: open, bad: open > 0, more: ["records trimmed before they were read"] },
    { head: "Deferred", n: mails?.deferred, more: mails ? [`${count(mails.suppressed)} suppressed`, `${count(mails.parked)} parked`] : [] },
    { head: "Read ahead", text: process ? bytes(process.buffered_bytes) : NONE, more: process ? [`of ${bytes(process.buffer_limit_bytes)}`] : [] },
  ];
}

function figures(parent, items) {
  const create = () => make("div", {}, make("dt"), make("dd", { class: "number" }), make("dd", { class: "more" }));
  keep(parent, items, ({ head }) => head, create, (node, { head, n, text, bad, more }) => {
    node.classList.toggle("bad", Boolean(bad));
    say(node.children[0], head);
    say(node.children[1], text ?? count(n));
    say(node.children[2], more.join(", "));
  });
}

function worker(process) {
  if (!process) return "";
  const { worker, version, ready, not_ready_because: why, dependency_down_seconds: down } = process;
  const state = ready ? "ready" : `not ready: ${why ?? "no reason given"}`;
  const dependency = down > 0 ? ` · a dependency has been down for ${duration(down)}` : "";
  return `${worker ?? "not registered yet"} · version ${version} · ${state}${dependency}`;
}

// A stream's shards.

const living = ({ state }) => state !== "ended";
const troubled = ({ state, last_error: error, until_trim_seconds: trim }) =>
  state === "orphaned" || (state !== "ended" && (error != null || (trim != null && trim < SOON)));
const FOLDS = { all: () => true, living, troubled };
const FOLD_WORDS = { all: "All", living: "Not ended", troubled: "In trouble" };

/** Parents before their children, each with its depth among those shown. */
function tree(shards, shown) {
  const known = new Set(shards.map(({ shard }) => shard));
  const below = Map.groupBy(shards, ({ parent }) => (known.has(parent) ? parent : null));
  const rows = [];
  const open = (parent, depth) => (below.get(parent) ?? []).map((shard) => ({ shard, depth })).reverse();
  const stack = open(null, 0);
  while (stack.length) {
    const { shard, depth } = stack.pop();
    const seen = shown(shard);
    if (seen) rows.push({ ...shard, depth });
    stack.push(...open(shard.shard, depth + (seen ? 1 : 0)));
  }
  return rows;
}

const lags = memory();
const place = (stream, shard) => `${stream} ${shard}`;

function named(cell, { shard, parent, depth, state, last_error: error, until_trim_seconds: trim }) {
  const row = cell.parentNode;
  row.dataset.state = state;
  row.classList.toggle("bad", troubled({ state, last_error: error, until_trim_seconds: trim }));
  cell.style.setProperty("--depth", Math.min(depth, 4));
  cell.classList.toggle("child", depth > 0);
  if (!cell.firstChild) cell.append(make("span"), make("span", { class: "unseen" }));
  say(cell.firstChild, shard);
  say(cell.lastChild, parent ? `, child of ${parent}` : "");
}

function lagging(stream) {
  return (cell, { shard, lag_seconds: lag, state }) => {
    if (!cell.firstChild) cell.append(spark(), " ", make("span"));
    sparkle(cell.firstChild, state === "ended" ? [] : lags.of(place(stream, shard)));
    say(cell.lastChild, state === "ended" ? NONE : duration(lag));
  };
}

const unless = (text) => (shard) => (shard.state === "ended" ? NONE : text(shard));

const shardColumns = (stream) => [
  { head: "Shard", kind: "code", fill: named },
  { head: "State", kind: "state", text: ({ state }) => state },
  { head: "Owner", text: ({ owner }) => owner ?? NONE },
  { head: "Epoch", kind: "number", text: ({ epoch }) => count(epoch) },
  { head: "Lag", kind: "number lag", fill: lagging(stream) },
  { head: "Time to trim", kind: "number", text: unless((shard) => duration(shard.until_trim_seconds)) },
  { head: "Records", kind: "number", text: unless((shard) => perMinute(shard.per_minute)) },
  { head: "Last error", kind: "code error", text: ({ last_error: error }) => error ?? "" },
];

const WORKERS = [
  { head: "Worker", text: ({ worker }) => worker },
  { head: "State", kind: "state", fill: alive },
  { head: "Heartbeat", kind: "number", text: ({ heartbeat_age_seconds: age }) => (age == null ? NONE : `${duration(age)} ago`) },
  { head: "Shards", kind: "number", text: ({ shards }) => count(shards) },
  { head: "Zone", text: ({ zone }) => zone ?? NONE },
  { head: "Version", text: ({ version }) => version ?? NONE },
];

function alive(cell, { alive, draining, trouble, stuck_shard: stuck }) {
  cell.parentNode.classList.toggle("bad", alive === false || stuck != null || trouble != null);
  say(cell, alive === false ? "silent" : stuck != null ? "stuck" : trouble != null ? "waits" : draining ? "draining" : alive ? "alive" : "not known yet");
}

const GAPS = [
  { head: "Shard", kind: "code", text: ({ shard }) => shard },
  { head: "Last handled", kind: "code", text: ({ last_handled: last }) => last ?? "nothing" },
  { head: "Committed", text: ({ last_handled_time: time }) => moment(time) },
  { head: "First after", kind: "code", text: ({ first_after: first }) => first ?? "nothing yet" },
  { head: "Detected", text: ({ detected }) => moment(detected) },
  { head: "Resolved", text: ({ resolved }) => (resolved ? `${resolved.by}: ${resolved.note}` : "not yet") },
];

const UNREADABLE = [
  { head: "Row", kind: "code", text: ({ row }) => row },
  { head: "Why", kind: "code error", text: ({ why }) => why },
];

/** The choice of which shards are shown; until somebody chooses, by how many there are. */
function folding(stream, changed) {
  let chosen = null;
  const choice = (fold) => {
    const input = make("input", { type: "radio", name: `fold ${stream}`, value: fold });
    input.addEventListener("change", () => {
      chosen = fold;
      changed();
    });
    return make("label", {}, input, make("span"));
  };
  const labels = Object.keys(FOLDS).map(choice);
  const node = make("fieldset", {}, make("legend", { class: "unseen" }, "Which shards are shown"), ...labels);
  const fold = (shards) => {
    const now = chosen ?? (shards.length > FEW ? "living" : "all");
    for (const [index, [word, shown]] of Object.entries(FOLDS).entries()) {
      labels[index].firstChild.checked = word === now;
      say(labels[index].lastChild, `${FOLD_WORDS[word]} ${count(shards.filter(shown).length)}`);
    }
    return tree(shards, FOLDS[now]);
  };
  return { node, fold };
}

const NO_SHARDS = "No shard yet. A worker lists the stream's shards when it starts; even a stream that nobody writes to has one.";
const NONE_SUCH = "No shard is of this kind.";
const NO_WORKERS = ["Nobody reads this stream. Start a worker: ", code("aftercommit run --table TABLE …")];
const NO_GAPS = ["No gaps: nothing left the stream before it was read."];

function stream({ group_table: arn }) {
  const name = make("h2");
  const shards = table("Shards", shardColumns(arn), ({ shard }) => shard, [NO_SHARDS]);
  const workers = table("Workers", WORKERS, ({ worker }) => worker, NO_WORKERS);
  const gaps = table("Gaps", GAPS, ({ shard, detected }) => place(shard, detected), NO_GAPS);
  const unreadable = table("Unreadable", UNREADABLE, ({ row }) => row, []);
  let last;
  const showShards = () => {
    shards.show(folds.fold(last.shards));
    say(shards.none, last.shards.length ? NONE_SUCH : NO_SHARDS);
  };
  const folds = folding(arn, showShards);
  const bad = make("div", {}, make("h3", {}, "Rows that cannot be read"), unreadable.node);
  const shardsHead = make("div", { class: "head" }, make("h3", {}, "Shards"), folds.node);
  const sides = make("div", { class: "sides" }, make("div", {}, make("h3", {}, "Workers"), workers.node), make("div", {}, make("h3", {}, "Gaps"), gaps.node));
  const whose = make("p", { class: "arn" });
  const node = make("section", {}, name, whose, shardsHead, shards.node, sides, bad);
  shown.set(node, (one) => {
    last = one;
    say(name, `Table ${one.table}`);
    const names = one.effects.map((effect) => effect.name).join(", ");
    const effect = names === "" ? "" : ` · effect ${names}`;
    say(whose, `Group ${one.group}${effect} · ${arn.slice(one.group.length + 1)}`);
    showShards();
    workers.show(one.workers);
    gaps.show(one.gaps);
    unreadable.show(one.unreadable);
    bad.hidden = one.unreadable.length === 0;
  });
  return node;
}

const shown = new WeakMap();
const NO_STREAMS = ["No stream yet: no worker has registered in the lease table. Start one: ", code("aftercommit run --table TABLE …")];
const nothing = make("p", { class: "empty" }, ...NO_STREAMS);
const drawCurves = curves(at("curves"));

function show(report) {
  const shards = report.streams.flatMap((one) => one.shards.map((shard) => [place(one.group_table, shard.shard), shard]));
  lags.look(new Map(shards.filter(([, shard]) => living(shard)).map(([key, shard]) => [key, shard.lag_seconds])));
  verdict(report);
  say(at("process"), worker(report.process));
  figures(at("totals"), totals(report));
  drawCurves(report.process?.history ?? [], report.at);
  keep(at("streams"), report.streams, (one) => one.group_table, stream, (node, one) => shown.get(node)(one));
  nothing.hidden = report.streams.length > 0;
  at("totals").parentNode.hidden = !report.process && report.streams.length === 0;
  at("curves").parentNode.hidden = !report.process;
  at("picture").hidden = false;
}

// Looking.

let answered = null; // When the rows of the last answer were read, on this page's clock,
let due = 0; // and when the next look begins.
let silent = null; // Why there is no good answer.
let wait = EVERY;

/** How old the rows were when the worker answered, in milliseconds by the worker's clock. */
const agedBy = (answer, { at }) => Math.max(0, Date.parse(answer.headers.get("date")) - Date.parse(at)) || 0;

async function ask() {
  const asked = fetch("status.json", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
  const answer = await asked.catch(({ name }) => {
    throw new Error(`The worker does not answer${name === "TimeoutError" ? ` within ${PATIENCE / 1000} s` : ""}.`);
  });
  if (!answer.ok) throw new Error(`The worker answers ${answer.status} ${answer.statusText}.`);
  const report = await answer.json();
  if (report.format === FORMAT) return { report, old: agedBy(answer, report) };
  throw new Error(`The worker's document has format ${report.format}, this page reads ${FORMAT}: reload it.`);
}

async function look() {
  try {
    const { report, old } = await ask();
    show(report);
    [answered, silent, wait] = [performance.now() - old, null, EVERY];
  } catch (error) {
    silent = error.message;
    wait = Math.min(wait * 2, SLOWEST);
  }
  const silence = at("silence");
  silence.hidden = silent == null;
  say(silence, silent == null ? "" : `${silent}${answered == null ? "" : " This is the last picture."}`);
  document.documentElement.classList.toggle("stale", silent != null);
  if (silent != null && answered == null) say(at("word"), "No answer yet");
  due = performance.now() + wait;
  age();
  setTimeout(look, wait);
}

/** How old the picture is; not read aloud, as it changes each second. */
function age() {
  const seconds = (since) => Math.max(0, Math.round((performance.now() - since) / 1000));
  const old = answered == null ? "no answer yet" : `${plural(seconds(answered), "second", "seconds")} old`;
  const next = silent == null ? "" : `, next look in ${duration(Math.max(0, Math.round((due - performance.now()) / 1000)))}`;
  say(at("age"), `${old}${next}`);
}

at("picture").append(nothing);
setInterval(age, 1_000);
look();
