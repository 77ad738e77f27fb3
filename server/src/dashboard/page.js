// The dashboard: shows what /v1/events says, and looks up workers and dead items beside it.

import { call, follow, setToken, takeToken } from "./service.js";
import { makeSection, showDead, showStatus, showTrouble, showWorkers } from "./view.js";
import { count, totals } from "./words.js";

const QUEUES_MAX = 30;
const ROWS_MAX = 100;
const LOOK_MS = 1000;

const byId = (id) => document.getElementById(id);
const only = new URLSearchParams(location.search).get("queue");
const shown = new Map();
let connected = false;

function connection(text, state) {
  const line = byId("connection");
  line.className = state;
  if (line.textContent !== text) line.textContent = text;
}

// Queues that still have to end come first, then the last ended.
function inOrder(list) {
  const ended = (status) => (status.certificate ? Date.parse(status.certificate.endedAt) : Infinity);
  return list.toSorted((a, b) => (ended(a) === ended(b) ? 0 : ended(b) - ended(a)));
}

function showAll(list) {
  const some = inOrder(list).slice(0, QUEUES_MAX);
  const names = new Set(some.map((status) => status.queue));
  for (const [name, entry] of shown) {
    if (names.has(name)) continue;
    entry.root.remove();
    shown.delete(name);
  }
  some.forEach((status, nth) => {
    const entry = shown.get(status.queue) ?? { root: makeSection(status.queue), lookedAt: 0 };
    shown.set(status.queue, entry);
    entry.status = status;
    showStatus(entry.root, status);
    const place = byId("queues").children[nth];
    if (place !== entry.root) byId("queues").insertBefore(entry.root, place ?? null);
  });
  shown.forEach((entry, queue) => lookUp(queue, entry));
  byId("empty").hidden = list.length > 0;
  byId("more").hidden = list.length <= QUEUES_MAX;
  byId("more").textContent = `${count(list.length - QUEUES_MAX)} more queues: /dashboard?queue=NAME shows any`;
  const first = some[0];
  document.title = first ? `${totals(first).percent} % · ${first.queue} · Gangline` : "Gangline";
}

// What is not part of the status is looked up when it has changed, at most once a second.
async function lookUp(queue, entry) {
  const { counts, sessions, phase } = entry.status;
  // How long something has been held changes by itself.
  const moving = counts.leased || sessions ? Date.now() : 0;
  const wanted = JSON.stringify([entry.status.uid, counts, sessions, phase, moving]);
  if (entry.busy || entry.got === wanted || Date.now() - entry.lookedAt < LOOK_MS) return;
  entry.busy = true;
  entry.lookedAt = Date.now();
  const base = `/v1/queues/${encodeURIComponent(queue)}`;
  const none = { items: [] };
  try {
    const [{ workers, now }, leased, dead] = await Promise.all([
      call(`${base}/workers`),
      counts.leased ? call(`${base}/items?state=leased&max=${ROWS_MAX}`) : none,
      counts.dead ? call(`${base}/items?state=dead&max=${ROWS_MAX}`) : none,
    ]);
    showWorkers(entry.root, workers.slice(0, ROWS_MAX), leased.items, now);
    showDead(entry.root, dead.items, counts.dead);
    showTrouble(entry.root);
    entry.got = wanted;
  } catch (error) {
    // While the connection is down the line at the top says so.
    if (connected) showTrouble(entry.root, `cannot look up workers and dead items: ${error.message}`);
  } finally {
    entry.busy = false;
  }
}

setInterval(() => {
  if (connected && !document.hidden) shown.forEach((entry, queue) => lookUp(queue, entry));
}, 250);

async function live() {
  byId("ask-token").hidden = true;
  connection("connecting…", "");
  const path = only ? `/v1/events?queue=${encodeURIComponent(only)}` : "/v1/events";
  const refused = await follow(path, {
    onConnect() {
      connected = true;
      connection("live", "live");
    },
    onData: showAll,
    onLost(why) {
      connected = false;
      const over = shown.size > 0 && [...shown.values()].every((entry) => entry.status.certificate);
      if (over) connection("the service has ended; this is what it said last", "");
      else connection(`connection lost (${why}); trying again`, "lost");
    },
  });
  connected = false;
  connection(refused, "lost");
  byId("ask-token").hidden = false;
  byId("token").focus();
}

byId("ask-token").addEventListener("submit", (event) => {
  event.preventDefault();
  setToken(byId("token").value);
  live();
});
// Somebody may paste the printed address, with another token, into the same tab.
addEventListener("hashchange", () => { if (takeToken()) location.reload(); });
takeToken();
live();
