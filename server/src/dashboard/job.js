// One job: what the status says at once, and panels that look up the rest.

import { actions } from "./actions.js";
import { certificate } from "./certificate.js";
import { burnDown } from "./chart.js";
import { dead } from "./dead.js";
import { fill, h, set, show } from "./dom.js";
import { keepsOpen } from "./open.js";
import { pods } from "./pods.js";
import { bar } from "./queues.js";
import { results } from "./results.js";
import { call, pathOf } from "./service.js";
import { count, duration, rate, sentence, stateOf, totals } from "./words.js";
import { workers } from "./workers.js";

const ROWS_MAX = 100;
// A job that moves is looked at this often, and one that does not only when its status changes.
const LOOK_MS = 1500;

const ALWAYS = ["ready", "leased", "done", "dead"];
const COUNTS = ["ready", "delayed", "leased", "done", "dead", "cancelled", "abandoned"];

function numbers(status) {
  const { counts } = status;
  const rows = COUNTS.filter((name) => counts[name] || ALWAYS.includes(name))
    .map((name) => [name, count(counts[name]), counts[name] ? name : `${name} none`]);
  if (status.retried) rows.push(["retried", count(status.retried), "retried"]);
  if (!status.certificate) {
    rows.push(["workers", count(status.sessions), status.sessions ? "workers" : "workers none"]);
    if (status.rate !== undefined) rows.push(["a second", rate(status.rate), "rate"]);
    if (status.etaMs !== undefined && totals(status).left) rows.push(["time left", duration(status.etaMs), "eta"]);
  }
  return rows;
}

const pair = ([name, value, kind]) => h("div", { class: kind }, h("dt", {}, name), h("dd", {}, value));

export function jobPage(queue) {
  const pill = h("span", { class: "pill", "data-is": "phase" });
  const says = h("p", { class: "sentence", "data-is": "sentence" });
  const progress = bar();
  const counts = h("dl", { class: "counts", "data-is": "counts" });
  const trouble = h("p", { class: "error", role: "alert", "data-is": "trouble", hidden: true });
  const buttons = actions(queue);
  const panels = { open: keepsOpen(), certificate: certificate(), chart: burnDown(), pods: pods(),
    workers: workers(), dead: dead(queue), results: results(queue) };
  const known = h("div", { hidden: true },
    progress, counts, trouble,
    h("div", { class: "two" }, panels.chart.root, h("div", {}, panels.open.root, panels.certificate.root)),
    panels.dead.root, panels.pods.root, panels.workers.root, panels.results.root);
  const waits = h("p", { id: "empty", hidden: true });
  const root = h("div", { class: "job" },
    h("p", { class: "back" }, h("a", { href: "/dashboard" }, "← All queues")),
    h("div", { class: "title" }, h("h1", {}, h("span", { "data-is": "name" }, queue), " ", pill), buttons.root, says),
    waits, known);

  let status;
  let connected = false;
  let busy = false;
  let got = "";
  let lookedAt = 0;

  function gone() {
    show(waits, true);
    if (!status) {
      fill(waits, "none", () => [`There is no queue ${queue} yet. This page shows it as soon as there is one: `,
        h("code", {}, `gangline push ${queue} -a items.txt --seal`)]);
      return;
    }
    fill(waits, "gone", () => [`The queue ${queue} has been deleted. Below is what it said last; `,
      "a push makes a new one of this name, which this page will show."]);
    buttons.show();
  }

  function take(event, data) {
    const [latest] = event === "queues" ? data : data.changed;
    if (!latest) return gone();
    show(waits, false);
    if (status && status.uid !== latest.uid) panels.chart.forget();
    status = latest;
    const [, kind] = stateOf(status);
    set(pill, status.paused && !status.certificate ? `${status.phase}, paused` : status.phase);
    pill.className = `pill ${kind}`;
    set(says, sentence(status));
    progress.update(status);
    fill(counts, numbers(status), (rows) => rows.map(pair));
    buttons.show(status);
    panels.certificate.show(status);
    panels.dead.show(status);
    panels.results.show(status);
    panels.workers.show(status);
    panels.open.show(status);
    panels.chart.show(status);
    show(known, true);
    document.title = `${totals(status).percent} % · ${queue} · Gangline`;
    look();
  }

  // What is not part of the status is looked up when it has changed, and not too often.
  async function look() {
    if (!status || !connected || busy || document.hidden || Date.now() - lookedAt < LOOK_MS) return;
    // How long something has been held changes by itself.
    const moving = status.counts.leased || status.sessions ? Date.now() : 0;
    const wanted = JSON.stringify([status.uid, status.counts, status.sessions, status.phase, status.paused, moving]);
    // The Pods of a job go on for a while after its queue.
    if (got === wanted && panels.pods.isAtRest()) return;
    busy = true;
    lookedAt = Date.now();
    const seen = status;
    const none = { items: [] };
    const path = (rest) => pathOf(queue, rest);
    try {
      const [who, why, leased, deadItems, kinds, past, job] = await Promise.all([
        call(path("/workers")),
        call(path("/explain")),
        seen.counts.leased ? call(path(`/items?state=leased&max=${ROWS_MAX}`)) : none,
        seen.counts.dead ? call(path(`/items?state=dead&max=${ROWS_MAX}`)) : none,
        seen.counts.dead ? call(path("/dead")) : { groups: [], ungrouped: 0 },
        call(path("/history")),
        call(path("/job")),
        panels.results.fetch(seen),
      ]);
      const view = { status: seen, now: who.now, workers: who.workers, leased: leased.items, dead: deadItems.items, kinds,
        history: past.points, job: job.job ?? undefined, explanation: why,
        typicalMs: why.terms.find(({ term }) => term === "leased")?.typicalMs };
      for (const one of Object.values(panels)) one.look?.(view);
      buttons.look(view);
      show(trouble, false);
      got = wanted;
    } catch (error) {
      // While the connection is down, or the queue gone, the page says so already.
      const isSaid = !connected || error.status === 404;
      show(trouble, !isSaid);
      set(trouble, isSaid ? "" : `Not all of this page is up to date: ${error.message}.`);
    } finally {
      busy = false;
    }
  }
  setInterval(look, 500);
  addEventListener("gangline-changed", () => { lookedAt = 0; got = ""; look(); });

  return {
    root,
    take,
    allow: (identity) => {
      buttons.allow(identity);
      panels.dead.allow(identity);
      panels.workers.allow(identity);
    },
    connected: (now) => { connected = now; got = ""; },
    isOver: () => Boolean(status?.certificate),
  };
}
