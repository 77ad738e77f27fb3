// One queue on the page. Everything that comes from the service is set as text, never as markup.

import { count, duration, groups, nameOf, rate, sentence, totals } from "./words.js";

const ALWAYS = ["ready", "leased", "done", "dead"];
const COUNTS = ["ready", "delayed", "leased", "done", "dead", "cancelled", "abandoned"];
const NAMES_MAX = 5;

const part = (root, name) => root.querySelector(`[data-is="${name}"]`);

function element(kind, text, className = "") {
  const node = document.createElement(kind);
  node.textContent = text;
  node.className = className;
  return node;
}

// Nodes are replaced only when they change: a selection and a screen reader keep their place.
function fill(parent, rows, make) {
  const wanted = JSON.stringify(rows);
  if (parent.dataset.shown === wanted) return;
  parent.dataset.shown = wanted;
  parent.replaceChildren(...rows.map(make));
}

function pair([name, value, className]) {
  const row = element("div", "", className ?? name.replace(" ", "-"));
  row.append(element("dt", name), element("dd", value));
  return row;
}

function line(cells) {
  const row = element("tr", "");
  row.append(...cells.map(([text, className]) => element("td", text, className)));
  return row;
}

function set(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function makeSection(queue) {
  const root = document.getElementById("queue").content.cloneNode(true).firstElementChild;
  root.dataset.queue = queue;
  const name = part(root, "name");
  name.textContent = queue;
  name.href = `?queue=${encodeURIComponent(queue)}`;
  return root;
}

export function showStatus(root, status) {
  const { counts, certificate } = status;
  const { all, percent } = totals(status);
  const phase = part(root, "phase");
  set(phase, status.paused && !certificate ? `${status.phase}, paused` : status.phase);
  phase.className = `phase ${certificate?.outcome ?? ""}`;
  set(part(root, "sentence"), sentence(status));
  const bar = part(root, "bar");
  bar.setAttribute("aria-valuenow", percent);
  const shares = { ...counts, gone: counts.cancelled + counts.abandoned };
  for (const piece of bar.children) {
    piece.style.width = `${all ? (shares[piece.className] / all) * 100 : 0}%`;
  }
  const some = COUNTS.filter((name) => counts[name] || ALWAYS.includes(name));
  const rows = some.map((name) => [name, count(counts[name]), counts[name] ? name : `${name} none`]);
  if (status.retried) rows.push(["retried", count(status.retried)]);
  if (status.rate !== undefined) rows.push(["a second", rate(status.rate)]);
  if (status.etaMs !== undefined) rows.push(["time left", duration(status.etaMs)]);
  fill(part(root, "counts"), rows, pair);
  part(root, "certificate").hidden = !certificate;
  if (certificate) showCertificate(root, certificate);
  set(part(root, "workers-count"), count(status.sessions));
  part(root, "workers-part").hidden = Boolean(certificate);
  set(part(root, "dead-count"), count(counts.dead));
  part(root, "dead-part").hidden = counts.dead === 0;
}

function showCertificate(root, certificate) {
  part(root, "certificate").className = `certificate ${certificate.outcome}`;
  const took = Date.parse(certificate.endedAt) - Date.parse(certificate.createdAt);
  const rows = [
    ["outcome", `${certificate.phase}, ${certificate.outcome}`],
    ["cause", certificate.cause],
    ["ended", `${new Date(certificate.endedAt).toLocaleString()}, after ${duration(took)}`],
  ];
  if (certificate.endedBy) rows.push(["ended by", certificate.endedBy]);
  if (certificate.reason) rows.push(["reason", certificate.reason]);
  if (certificate.historyUncertain) rows.push(["history", "the store lost acknowledged writes meanwhile"]);
  rows.push(["uid", certificate.uid], ["digest", certificate.digest]);
  fill(part(root, "certificate-rows"), rows, pair);
}

// Who works, and for how long on what.
export function showWorkers(root, workers, leased, now) {
  const held = Map.groupBy(leased, (item) => item.session);
  const since = (time) => duration(Math.max(0, now - Date.parse(time)));
  const rows = workers.map((worker) => {
    const items = (held.get(worker.session) ?? []).slice(0, NAMES_MAX)
      .map((item) => {
        const ms = now - Date.parse(item.since);
        return ms < 1000 ? nameOf(item) : `${nameOf(item)} for ${duration(ms)}`;
      });
    const more = worker.holds - items.length;
    if (more > 0) items.push(items.length ? `${count(more)} more` : count(more));
    const holds = items.join(", ") || `nothing for ${since(worker.idleSince ?? worker.openedAt)}`;
    return [[worker.worker, "worker"], [count(worker.done), "number"], [holds], [since(worker.openedAt), "number"]];
  });
  fill(part(root, "workers"), rows, line);
}

export function showDead(root, dead, all) {
  const rows = groups(dead).map(([error, names]) => {
    const shown = names.slice(0, NAMES_MAX).join(", ");
    const more = names.length - NAMES_MAX;
    return [[count(names.length), "number"], [error, "message"], [more > 0 ? `${shown}, ${count(more)} more` : shown]];
  });
  if (dead.length < all) rows.push([[count(all - dead.length), "number"], ["not looked at here", ""], [""]]);
  fill(part(root, "dead"), rows, line);
}

export function showTrouble(root, text) {
  const trouble = part(root, "trouble");
  trouble.hidden = !text;
  set(trouble, text ?? "");
}
