// Numbers and sentences for people. Pure: a status in, a text out.

const whole = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { maximumSignificantDigits: 2 });

export const count = (number) => whole.format(number);
export const items = (number) => `${count(number)} ${number === 1 ? "item" : "items"}`;
export const rate = (perSecond) =>
  perSecond >= 10 ? count(Math.round(perSecond)) : short.format(perSecond);

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
  return { left, ended, all, percent: all ? Math.floor((ended / all) * 100) : 0 };
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

// What a person calls an item: its payload where that is short, else its key or number.
export function nameOf({ id, key, payload }) {
  const text = typeof payload === "string" ? payload : JSON.stringify(payload) ?? "";
  return text && text.length <= 80 ? text : key ?? `#${id}`;
}

// Dead items of the same error stand together, the most frequent first.
export function groups(dead) {
  const byError = new Map();
  for (const item of dead) {
    const error = item.error ?? "no error was given";
    byError.set(error, [...(byError.get(error) ?? []), nameOf(item)]);
  }
  return [...byError].sort((a, b) => b[1].length - a[1].length);
}
