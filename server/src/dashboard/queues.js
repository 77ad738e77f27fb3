// All queues: state, progress, rate, time left, dead, workers; searched and sorted here.

import { h, set, show } from "./dom.js";
import { about, count, rate, stateOf, totals } from "./words.js";

// How long rows are made in one go: a task of the page stays far below 100 ms.
const MAKE_MS = 10;
const SORT_AGAIN_MS = 2000;

const ended = (status) => (status.certificate ? Date.parse(status.certificate.endedAt) : Infinity);
// Title, class of the cells, what they are sorted by (the greatest first, but names), and in which order first.
const COLUMNS = [
  ["Queue", "name", ({ queue }) => queue],
  ["State", "state", ended],
  ["Progress", "progress", (status) => totals(status).share],
  ["Left", "number left", (status) => totals(status).left],
  ["Per second", "number rate", (status) => status.rate ?? 0],
  ["Done in", "number eta", (status) => -(status.etaMs ?? Infinity)],
  ["Dead", "number dead", ({ counts }) => counts.dead],
  ["Workers", "number workers", ({ sessions }) => sessions],
];
const FILTERS = {
  all: () => true,
  running: (status) => !status.certificate,
  trouble: (status) => status.counts.dead > 0 || status.certificate?.outcome === "failure"
    || (!status.certificate && status.counts.ready > 0 && (status.sessions === 0 || status.paused)),
  over: (status) => Boolean(status.certificate),
};
const FILTER_NAMES = { all: "All", running: "Running", trouble: "Need a look", over: "Over" };

const shares = ["done", "dead", "gone", "leased"];

// The bar of a queue; its parts are told by their place and colour, the words stand beside it.
export function bar() {
  const node = h("div", { class: "bar", role: "progressbar", "aria-label": "items ended",
    "aria-valuemin": "0", "aria-valuemax": "100" }, ...shares.map((name) => h("div", { class: name })));
  node.update = (status) => {
    const { all, percent } = totals(status);
    const { counts } = status;
    const of = { ...counts, gone: counts.cancelled + counts.abandoned };
    const wanted = JSON.stringify([percent, ...shares.map((name) => of[name]), all]);
    if (node.dataset.of === wanted) return;
    node.dataset.of = wanted;
    node.setAttribute("aria-valuenow", percent);
    shares.forEach((name, nth) => {
      node.children[nth].style.width = `${all ? (of[name] / all) * 100 : 0}%`;
    });
  };
  return node;
}

// As `about`, for a narrow column.
const shortly = (ms) => (ms < 10_000 ? "< 10 s" : about(ms).replace("about ", ""));

function makeRow(queue) {
  const progress = bar();
  const percent = h("span", { class: "percent" });
  const cells = COLUMNS.map(([title, kind]) => h("td", { role: "cell", class: kind, "data-title": title }));
  const link = h("a", { href: `/dashboard?queue=${encodeURIComponent(queue)}`, title: queue }, queue);
  const pill = h("span", { class: "pill" });
  cells[0].append(link);
  cells[1].append(pill);
  cells[2].append(progress, percent);
  const row = h("tr", { role: "row", "data-queue": queue }, ...cells);
  row.update = (status) => {
    const [state, kind] = stateOf(status);
    const { left, percent: done } = totals(status);
    set(pill, state);
    if (pill.className !== `pill ${kind}`) pill.className = `pill ${kind}`;
    progress.update(status);
    set(percent, `${done} %`);
    const over = Boolean(status.certificate);
    cells[5].dataset.title = over ? "Ended" : COLUMNS[5][0];
    const texts = [
      over ? "–" : count(left),
      over || !status.rate ? "–" : rate(status.rate),
      over ? `${shortly(Date.now() - Date.parse(status.certificate.endedAt))} ago`
        : left && status.etaMs !== undefined ? shortly(status.etaMs) : "–",
      status.counts.dead ? count(status.counts.dead) : "–",
      over ? "–" : count(status.sessions),
    ];
    texts.forEach((text, nth) => {
      const cell = cells[nth + 3];
      set(cell, text);
      if (cell.classList.contains("nothing") !== (text === "–")) cell.classList.toggle("nothing", text === "–");
    });
    const bad = status.counts.dead > 0;
    if (row.classList.contains("has-dead") !== bad) row.classList.toggle("has-dead", bad);
  };
  return row;
}

export function queuesPage() {
  const known = new Map();
  const rows = new Map();
  let order = [];
  let sortBy = 1;
  let downwards = true;
  let filter = "all";
  let sortedAt = -Infinity;
  let waiting = false;

  const search = h("input", { type: "search", id: "search", placeholder: "Search queues", "aria-label": "Search queues",
    oninput: () => again() });
  const filters = Object.entries(FILTER_NAMES).map(([name, text]) => h("button", {
    type: "button", "data-filter": name, "aria-pressed": String(name === filter),
    onclick: () => {
      filter = name;
      filters.forEach((one) => one.setAttribute("aria-pressed", String(one.dataset.filter === name)));
      again();
    } }, text));
  const heads = COLUMNS.map(([title, kind], nth) => h("th", { role: "columnheader", scope: "col", class: kind },
    h("button", { type: "button", onclick: () => {
      downwards = nth === sortBy ? !downwards : nth > 0;
      sortBy = nth;
      again();
    } }, title)));
  const body = h("tbody", { role: "rowgroup" });
  const summary = h("p", { class: "summary", "data-is": "summary" });
  const none = h("p", { id: "none", hidden: true }, "No queue is called so. ",
    h("button", { type: "button", class: "quiet", onclick: () => {
      search.value = "";
      filters[0].click();
    } }, "Show all"));
  const empty = h("div", { id: "empty", hidden: true }, h("p", {}, "There is no queue yet. A push makes one:"),
    h("code", {}, "gangline push images -a items.txt --seal"));
  const list = h("div", { class: "list" },
    h("div", { class: "tools" }, search, h("div", { class: "filters", role: "group", "aria-label": "Which queues" }, ...filters)),
    // A table that is not displayed as one says with roles that it is one.
    h("table", { class: "queues", role: "table", "aria-label": "Queues" },
      h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, ...heads)), body),
    none);
  const root = h("div", {}, h("h1", {}, "Queues"), summary, list, empty);

  function sorted() {
    const words = search.value.trim().toLowerCase();
    const by = COLUMNS[sortBy][2];
    const some = [...known.values()].filter((status) =>
      FILTERS[filter](status) && status.queue.toLowerCase().includes(words));
    const keys = new Map(some.map((status) => [status, by(status)]));
    const sign = downwards ? -1 : 1;
    return some.sort((a, b) => {
      const [one, other] = [keys.get(a), keys.get(b)];
      if (one !== other) return (one < other ? -1 : 1) * sign;
      return a.queue < b.queue ? -1 : 1;
    });
  }

  function again() {
    sortedAt = -Infinity;
    render();
  }

  // Renders at most once a frame, and makes new rows in small portions.
  function render() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      paint();
    });
  }

  function paint() {
    if (performance.now() - sortedAt > SORT_AGAIN_MS) {
      order = sorted();
      sortedAt = performance.now();
      heads.forEach((head, nth) => {
        if (nth === sortBy) head.setAttribute("aria-sort", downwards ? "descending" : "ascending");
        else head.removeAttribute("aria-sort");
      });
    }
    const until = performance.now() + MAKE_MS;
    const wanted = [];
    let more = false;
    for (const { queue } of order) {
      const status = known.get(queue);
      if (!status) continue;
      let row = rows.get(queue);
      if (!row) {
        if (performance.now() > until) {
          more = true;
          break;
        }
        row = makeRow(queue);
        rows.set(queue, row);
      }
      if (row.status !== status) {
        row.update(status);
        row.status = status;
      }
      wanted.push(row);
    }
    const there = [...body.children];
    if (there.every((row, nth) => row === wanted[nth])) body.append(...wanted.slice(there.length));
    else body.replaceChildren(...wanted);
    if (more) setTimeout(render);
    describe();
  }

  function describe() {
    const all = [...known.values()];
    const running = all.filter(FILTERS.running);
    const perSecond = running.reduce((sum, status) => sum + (status.rate ?? 0), 0);
    const dead = all.reduce((sum, status) => sum + status.counts.dead, 0);
    const parts = [`${count(all.length)} ${all.length === 1 ? "queue" : "queues"}`, `${count(running.length)} running`];
    if (perSecond) parts.push(`${rate(perSecond)} items a second`);
    if (dead) parts.push(`${count(dead)} dead`);
    set(summary, all.length ? parts.join(" · ") : "");
    show(empty, all.length === 0);
    show(list, all.length > 0);
    show(none, all.length > 0 && order.length === 0);
    document.title = running.length ? `${count(running.length)} running · Gangline` : "Gangline";
  }

  return {
    root,
    allow() {},
    connected() {},
    isOver: () => false,
    take(event, data) {
      if (event === "queues") {
        known.clear();
        data.forEach((status) => known.set(status.queue, status));
        sortedAt = -Infinity;
      } else {
        if (data.gone.length || data.changed.some((status) => !known.has(status.queue))) sortedAt = -Infinity;
        data.gone.forEach((queue) => known.delete(queue));
        data.changed.forEach((status) => known.set(status.queue, status));
      }
      for (const queue of rows.keys()) if (!known.has(queue)) rows.delete(queue);
      render();
    },
  };
}
