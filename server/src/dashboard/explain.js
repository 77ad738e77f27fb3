// Why a queue is not over yet: every term of it, with the items and sessions behind each.
// Made of the status, the workers and the leased items; the page knows no other place for it.

import { count, duration, items, nameOf, workerName } from "./words.js";

// A held item is named a straggler when it takes this many times the usual.
const STRAGGLES = 10;
const NAMED_MAX = 4;

export function heldFor(item, now) {
  return Math.max(0, now - Date.parse(item.since));
}

export function straggles(item, now, typicalMs) {
  return typicalMs !== undefined && heldFor(item, now) > Math.max(typicalMs * STRAGGLES, 2000);
}

function leased(view) {
  const { status, now, leased, typicalMs, job } = view;
  const oldest = leased.toSorted((a, b) => Date.parse(a.since) - Date.parse(b.since));
  const behind = oldest.slice(0, NAMED_MAX).map((item) => {
    const slow = straggles(item, now, typicalMs)
      ? `, ${count(Math.round(heldFor(item, now) / typicalMs))} times the usual ${duration(typicalMs)}` : "";
    return { what: nameOf(item), how: `${workerName(item.worker, job)} for ${duration(heldFor(item, now))}, attempt ${item.attempts + 1}${slow}`,
      slow: Boolean(slow) };
  });
  const more = status.counts.leased - behind.length;
  const verb = status.counts.leased === 1 ? "is" : "are";
  return { term: "leased", text: `${items(status.counts.leased)} ${verb} being worked on`, behind, more: Math.max(more, 0) };
}

function ready({ status }) {
  const { counts, sessions, settings } = status;
  const what = `${items(counts.ready)} ${counts.ready === 1 ? "waits" : "wait"} for a worker`;
  if (status.paused) return { term: "ready", text: `${what}, and the queue is paused` };
  if (sessions === 0) {
    return { term: "ready", text: `${what}, and none is here`, trouble: true,
      command: `GANGLINE_URL=${location.origin} GANGLINE_QUEUE=${status.queue} gangline work -- PROGRAM` };
  }
  if (settings.maxLeased && counts.leased >= settings.maxLeased) {
    return { term: "ready", text: `${what}: at most ${count(settings.maxLeased)} may be leased at a time (maxLeased)` };
  }
  return { term: "ready", text: what };
}

// Returns the terms, the most telling first; none when the queue is over.
export function explain(view) {
  const { status } = view;
  const { counts } = status;
  if (status.certificate) return [];
  const terms = [];
  if (status.paused) {
    terms.push({ term: "paused", trouble: true, text: "It is paused: nothing is handed out until somebody resumes it",
      command: `gangline resume ${status.queue}` });
  }
  if (counts.ready) terms.push(ready(view));
  if (counts.leased) terms.push(leased(view));
  if (counts.delayed) {
    terms.push({ term: "delayed", text: `${items(counts.delayed)} ${counts.delayed === 1 ? "waits" : "wait"} for `
      + "the time of the next attempt, or that the producer gave" });
  }
  if (status.phase === "open") {
    terms.push({ term: "notSealed", trouble: counts.ready + counts.leased + counts.delayed === 0,
      text: "It is not sealed: a producer may still push more", command: `gangline seal ${status.queue}` });
  }
  return terms;
}
