// Numbers and sentences for people. Pure: a status in, a text out.

// The browser's own formats take it a tenth of a second to load; the page's words are English anyway.
export const count = (number) => String(number).replace(/\B(?=(\d{3})+$)/g, ",");
const short = (number) => String(Number(number.toPrecision(2)));
export const items = (number) => `${count(number)} ${number === 1 ? "item" : "items"}`;
export const rate = (perSecond) =>
  perSecond >= 10 ? count(Math.round(perSecond)) : short(perSecond);

export function duration(ms) {
  const seconds = Math.round(ms / 1000);
  if (ms < 950) return `${Math.max(0, Math.round(ms))} ms`;
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
}

// An estimate is not better for its seconds.
export function about(ms) {
  if (ms < 10_000) return "a few seconds";
  if (ms < 90_000) return `about ${Math.round(ms / 10_000) * 10} s`;
  if (ms < 5_400_000) return `about ${Math.round(ms / 60_000)} min`;
  if (ms < 129_600_000) return `about ${Math.round(ms / 3_600_000)} h`;
  return `about ${Math.round(ms / 86_400_000)} days`;
}

export function totals({ counts }) {
  const left = counts.ready + counts.delayed + counts.leased;
  const ended = counts.done + counts.dead + counts.cancelled + counts.abandoned;
  const all = left + ended;
  // Rounded down: 100 % means all of it.
  return { left, ended, all, share: all ? ended / all : 0, percent: all ? Math.floor((ended / all) * 100) : 0 };
}

// The Pod in which a worker is, if it is one of this Job.
export const podOf = (worker, job) =>
  worker && (job?.pods ?? []).find(({ uid }) => worker.startsWith(`${uid}.`));

// A worker in a Pod is called by the Pod's uid, which tells nobody anything: the Pod has a name.
export const workerName = (worker, job) => podOf(worker, job)?.name ?? worker ?? "a worker";

// How far a worker says that it is with an item. Rounded down: 100 % means all of it.
export const soFar = ({ fraction, text } = {}) =>
  [fraction !== undefined && `${Math.floor(fraction * 100)} %`, text].filter(Boolean).join(" ");

// How attempts end, for people.
export const ENDS = {
  done: "done", retry: "failed", dead: "failed for good", release: "given back", timeLimit: "took too long",
  expired: "its worker was not heard of", replaced: "its worker began anew", revoked: "its worker was gone",
  disrupted: "disrupted", left: "its worker left",
};

// How long ago something was; `now` is the service's where it is known.
export const since = (time, now = Date.now()) => duration(Math.max(0, now - Date.parse(time)));

export function clock(time) {
  const at = new Date(time);
  return [at.getHours(), at.getMinutes(), at.getSeconds()].map((part) => String(part).padStart(2, "0")).join(":");
}

// The state in a word, and what colour that has.
export function stateOf({ phase, paused, certificate, counts, sessions }) {
  if (certificate) return [phase, certificate.outcome];
  if (paused) return ["paused", "waits"];
  if (counts.ready && !sessions) return ["no worker", "waits"];
  return [phase, "runs"];
}

export function sentence(status) {
  const { counts, certificate } = status;
  const { left, ended, all, percent } = totals(status);
  const lost = ["dead", "cancelled", "abandoned"]
    .filter((what) => counts[what]).map((what) => `${count(counts[what])} ${what}`);
  if (certificate) {
    const took = duration(Date.parse(certificate.endedAt) - Date.parse(certificate.createdAt));
    const by = certificate.endedBy ? ` by ${certificate.endedBy}` : "";
    const start = certificate.phase === "stopped" ? `Stopped with ${certificate.outcome}${by}: ` : "";
    if (all === 0) return `${start || "Over: "}there were no items`;
    if (counts.done === all) return `${start || "Over: "}all ${items(all)} done, in ${took}`;
    return [`${start}${count(counts.done)} of ${items(all)} done`, ...lost, `after ${took}`].join(", ");
  }
  if (all === 0) return "Waiting for the first item";
  const parts = [`${percent} % done`, `${items(left)} left`];
  if (status.phase === "open") parts[1] += " so far";
  if (status.paused) parts.unshift("Paused");
  else if (left === 0) parts.push("waiting for more, or for the seal");
  else if (status.sessions === 0) parts.push("no worker is here");
  else if (status.etaMs !== undefined) parts.push(`done in ${about(status.etaMs)}`);
  else if (counts.delayed === left) parts.push("waiting for their time");
  else if (status.phase === "open" && ended) parts.push("not sealed yet");
  return [...parts, ...lost].join(", ");
}

// A value as people read it: a text is itself, anything else is JSON.
export const plain = (value) => (typeof value === "string" ? value : JSON.stringify(value) ?? "");

// A text as a word of a command line.
export const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

// What a person calls an item: its payload where that is short, else its key or number.
export function nameOf({ id, key, payload }) {
  const text = plain(payload);
  return text && text.length <= 80 ? text : key ?? `#${id}`;
}

export const sentenceCase = (text) => text[0].toUpperCase() + text.slice(1);

// A held item is named a straggler when it takes this many times the usual.
const STRAGGLES = 10;

export const heldFor = (item, now) => Math.max(0, now - Date.parse(item.since));
export const straggles = (item, now, typicalMs) =>
  typicalMs !== undefined && heldFor(item, now) > Math.max(typicalMs * STRAGGLES, 2000);

export function bytes(number) {
  if (number < 1024) return `${number} bytes`;
  if (number < 1024 * 1024) return `${short(number / 1024)} KiB`;
  return `${short(number / 1024 / 1024)} MiB`;
}

// What differs between two failures of one kind: numbers, addresses, quoted names.
const kindOf = (error) => error.replace(/"[^"]*"|'[^']*'|`[^`]*`/g, "…").replace(/\d+/g, "N");

// The groups of dead items that the service makes, each with those of these items that are of it.
export function withNames(groups, dead) {
  const byKind = Map.groupBy(dead, (item) => kindOf(item.error ?? ""));
  return groups.map((group) => ({ ...group, items: byKind.get(kindOf(group.error ?? "")) ?? [{ id: group.example }] }));
}
