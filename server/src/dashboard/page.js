// The dashboard: shows what /v1/events says, and looks up workers and dead items beside it.
// Everything that comes from the service is set as text, never as markup.
"use strict";

const byId = (id) => document.getElementById(id);
const part = (root, name) => root.querySelector(`[data-is="${name}"]`);
const number = new Intl.NumberFormat();
const ROWS_MAX = 50;
const RETRY_MS = 1000;
const DETAILS_MS = 1000;

// The token comes in the fragment, which no server and no Referer sees, and stays in this tab.
const fragment = new URLSearchParams(location.hash.slice(1));
if (fragment.has("token")) {
  sessionStorage.setItem("token", fragment.get("token"));
  history.replaceState(null, "", location.pathname + location.search);
}
const only = new URLSearchParams(location.search).get("queue");

function call(path) {
  const token = sessionStorage.getItem("token");
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  return fetch(path, { headers, cache: "no-store" });
}

function duration(ms) {
  const seconds = Math.round(ms / 1000);
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
}

function rows(list, pairs) {
  list.replaceChildren(...pairs.map(([name, value, kind]) => {
    const row = document.createElement("div");
    const term = document.createElement("dt");
    const detail = document.createElement("dd");
    term.textContent = name;
    detail.textContent = value;
    row.className = kind ?? "";
    row.append(term, detail);
    return row;
  }));
}

function table(body, lines) {
  body.replaceChildren(...lines.map((cells) => {
    const row = document.createElement("tr");
    for (const [text, kind] of cells) {
      const cell = document.createElement("td");
      cell.textContent = text;
      if (kind) cell.className = kind;
      row.append(cell);
    }
    return row;
  }));
}

const COUNTS = ["ready", "delayed", "leased", "done", "dead", "cancelled", "abandoned"];
const shown = new Map();

function section(status) {
  let entry = shown.get(status.queue);
  if (!entry) {
    const root = byId("queue").content.cloneNode(true).firstElementChild;
    root.dataset.queue = status.queue;
    part(root, "name").textContent = status.queue;
    entry = { root, details: 0, failed: false };
    shown.set(status.queue, entry);
    byId("queues").append(root);
  }
  return entry;
}

function show(status) {
  const entry = section(status);
  const { root } = entry;
  const counts = status.counts;
  const total = COUNTS.reduce((sum, name) => sum + counts[name], 0);
  const ended = counts.done + counts.dead + counts.cancelled + counts.abandoned;
  const certificate = status.certificate;
  const phase = part(root, "phase");
  phase.textContent = status.paused && !certificate ? `${status.phase}, paused` : status.phase;
  phase.className = `phase ${status.phase} ${certificate ? certificate.outcome : ""}`;
  part(root, "progress").value = total ? ended / total : (certificate ? 1 : 0);
  const line = [`${number.format(ended)} of ${number.format(total)} items`];
  if (status.rate !== undefined) line.push(`${number.format(Math.round(status.rate * 10) / 10)} a second`);
  if (status.etaMs !== undefined) line.push(`${duration(status.etaMs)} left`);
  if (status.retried) line.push(`${number.format(status.retried)} retried`);
  if (status.phase === "open") line.push("not sealed: more items may come");
  part(root, "line").textContent = line.join(" · ");
  rows(part(root, "counts"), COUNTS.map((name) =>
    [name, number.format(counts[name]), counts[name] ? `${name} some` : name]));
  const paper = part(root, "certificate");
  paper.hidden = !certificate;
  if (certificate) {
    paper.className = `certificate ${certificate.outcome}`;
    const took = Date.parse(certificate.endedAt) - Date.parse(certificate.createdAt);
    const pairs = [["phase", certificate.phase], ["outcome", certificate.outcome], ["cause", certificate.cause],
      ["ended", `${certificate.endedAt}, after ${duration(took)}`], ["uid", certificate.uid],
      ["digest", certificate.digest]];
    if (certificate.endedBy) pairs.push(["ended by", certificate.endedBy]);
    if (certificate.reason) pairs.push(["reason", certificate.reason]);
    rows(part(root, "certificate-rows"), pairs);
  }
  part(root, "workers-count").textContent = number.format(status.sessions);
  part(root, "dead-count").textContent = number.format(counts.dead);
  part(root, "dead-part").hidden = counts.dead === 0;
  entry.wanted = `${status.uid} ${JSON.stringify(counts)} ${status.sessions} ${status.phase}`;
}

// Workers and dead items change with the status; they are looked up at most once a second.
async function lookUp(queue, entry) {
  const now = Date.now();
  if (entry.busy || entry.wanted === entry.got || now - entry.details < DETAILS_MS) return;
  entry.busy = true;
  entry.details = now;
  const wanted = entry.wanted;
  const base = `/v1/queues/${encodeURIComponent(queue)}`;
  try {
    const [workers, dead] = await Promise.all(
      [call(`${base}/workers`), call(`${base}/items?state=dead&max=${ROWS_MAX}`)]);
    if (workers.ok && dead.ok) {
      const people = (await workers.json()).workers.slice(0, ROWS_MAX);
      table(part(entry.root, "workers"), people.map((worker) =>
        [[worker.worker], [number.format(worker.holds)], [number.format(worker.done)], [worker.openedAt]]));
      table(part(entry.root, "dead"), (await dead.json()).items.map((item) =>
        [[item.id], [item.key ?? ""], [item.attempts], [item.error ?? "", "error"]]));
      entry.got = wanted;
    }
  } catch {
    // The connection is down; the line at the top says so, and the next look comes by itself.
  } finally {
    entry.busy = false;
  }
}

function showAll(list) {
  const names = new Set(list.map((status) => status.queue));
  for (const [name, entry] of shown) {
    if (!names.has(name)) {
      entry.root.remove();
      shown.delete(name);
    }
  }
  list.forEach(show);
  byId("empty").hidden = list.length > 0;
}

setInterval(() => shown.forEach((entry, queue) => lookUp(queue, entry)), 250);

// EventSource cannot send a header, so the stream is read by hand.
async function follow() {
  const connection = byId("connection");
  const response = await call(only ? `/v1/events?queue=${encodeURIComponent(only)}` : "/v1/events");
  if (response.status === 401) {
    byId("ask-token").hidden = false;
    connection.textContent = "a token is needed";
    return false;
  }
  if (!response.ok) throw new Error((await response.json()).detail);
  connection.textContent = "live";
  byId("ask-token").hidden = true;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Error("the service has gone");
    text += value;
    const events = text.split("\n\n");
    text = events.pop();
    for (const event of events) {
      const data = event.split("\n").find((line) => line.startsWith("data: "));
      if (data) showAll(JSON.parse(data.slice(6)));
    }
  }
}

async function live() {
  try {
    if (!await follow()) return;
  } catch (error) {
    byId("connection").textContent = `not connected: ${error.message}; trying again`;
  }
  setTimeout(live, RETRY_MS);
}

byId("ask-token").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", byId("token").value);
  live();
});
live();
