// The Pods' timeline: a lane each, with its creation, start, work, idleness and end, and the mark
// of the first success, after which its peers only finish what they hold.

import { draw, fill, h, panel, set, show } from "./dom.js";
import { endOf, podDialog, storyText } from "./pod.js";
import { clock, count, duration } from "./words.js";

const WIDTH = 1000;
const HEIGHT = 18;
const LANES_MAX = 200;
const LAST_WORD_MS = 60_000;

const time = (text) => (text ? Date.parse(text) : undefined);

const endCondition = (job) =>
  job.conditions.find(({ type, status }) => status === "True" && ["Complete", "Failed"].includes(type));

// What became of a Pod, in words and a colour.
function fate(pod, worker, now) {
  const code = pod.exitCode === undefined ? "" : `exit ${pod.exitCode}`;
  if (pod.phase === "Succeeded") return ["succeeded", "success"];
  if (pod.phase === "Failed") return [[pod.reason ?? "failed", code].filter(Boolean).join(", "), "failure"];
  if (pod.endedAt) return ["deleted", "waits"];
  if (pod.deletedAt) return ["terminating", "waits"];
  if (pod.phase === "Pending") return [pod.reason ?? "pending", "waits"];
  if (worker?.idleSince) return [`idle for ${duration(Math.max(0, now - time(worker.idleSince)))}`, ""];
  if (worker) return [`works on ${count(worker.holds)}`, "runs"];
  return ["running", "runs"];
}

// Since when each worker was seen idle, and until when: the service only says it of now.
function idleness() {
  const spans = new Map();
  return (worker, now) => {
    if (!worker) return [];
    const list = spans.get(worker.session) ?? [];
    spans.set(worker.session, list);
    const last = list.at(-1);
    if (worker.idleSince) {
      const from = time(worker.idleSince);
      if (last?.from === from) last.to = now;
      else list.push({ from, to: now });
    }
    return list.filter((span) => span.to - span.from > 200);
  };
}

export function pods() {
  const body = h("tbody");
  const job = h("p", { class: "says", "data-is": "job" });
  const axis = h("p", { class: "axis", "aria-hidden": "true" }, h("span"), h("span"), h("span"));
  const legend = h("p", { class: "legend" }, ...[["waits", "created, not started"], ["works", "works"], ["idle", "idle"],
    ["first", "first success"], ["drains", "drains after it"], ["succeeded", "exit 0"], ["failed", "failed"]].map(([kind, text]) => h("span", {}, h("i", { class: kind }), text)));
  const table = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Pods" },
    h("table", { class: "lanes" }, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Pod"),
      h("th", { scope: "col", class: "lane" }, h("span", { class: "unseen" }, "Timeline"), axis), h("th", { scope: "col" }, "Now"))), body));
  const failure = h("p", { class: "error", hidden: true });
  const root = panel("pods", "Pods", job, failure, table, legend);
  root.hidden = true;
  const idleOf = idleness();
  let atRest = true;

  function lane(pod, scale, first, idle, now) {
    const { x } = scale;
    const created = time(pod.createdAt);
    const started = time(pod.startedAt);
    const end = endOf(pod) ?? now;
    const piece = (kind, from, to) => draw("rect", { class: kind, x: x(from), y: 3, rx: 2, height: HEIGHT - 6, width: Math.max(x(to) - x(from), 2) });
    const parts = [piece("waits", created, started ?? end)];
    if (started) {
      parts.push(piece("works", started, end));
      for (const span of idle) if (span.from < end) parts.push(piece("idle", Math.max(span.from, started), Math.min(span.to, end)));
      if (first && end > first.at && first.uid !== pod.uid) parts.push(piece("drains", Math.max(first.at, started), end));
    }
    if (pod.phase === "Failed") parts.push(draw("rect", { class: "failed", x: x(end) - 3, y: 0, width: 6, height: HEIGHT, rx: 1 }));
    if (pod.phase === "Succeeded") parts.push(draw("rect", { class: "succeeded", x: x(end) - 3, y: 0, width: 6, height: HEIGHT, rx: 1 }));
    if (first) parts.push(draw("line", { class: "first", x1: x(first.at), x2: x(first.at), y1: 0, y2: HEIGHT }));
    return draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img",
      "aria-label": storyText(pod, first) }, draw("title", {}, storyText(pod, first)), ...parts);
  }

  function sentence(one, first) {
    const parts = [`${one.namespace}/${one.name}`];
    for (const [name, number] of [["active", one.active], ["succeeded", one.succeeded], ["failed", one.failed]]) {
      if (number) parts.push(`${count(number)} ${name}`);
    }
    if (one.suspended) parts.push("suspended");
    const end = endCondition(one);
    if (end) parts.push([end.type, end.reason].filter(Boolean).join(": "));
    else if (first) parts.push(`first success at ${clock(first.at)}; no Pod is started any more`);
    return parts.join(" · ");
  }

  return {
    root,
    isAtRest: () => atRest,
    look({ job: one, workers, now, status }) {
      show(root, Boolean(one));
      if (!one) return;
      const list = one.pods.slice(0, LANES_MAX);
      // The Job's own end is told last, by a controller that may have gone meanwhile.
      const isTold = Boolean(endCondition(one)) || now - time(status.certificate?.endedAt) > LAST_WORD_MS;
      atRest = Boolean(status.certificate) && isTold && list.every((pod) => endOf(pod) !== undefined);
      root.count(count(one.pods.length + one.podsOmitted));
      const ends = list.map(endOf);
      const from = Math.min(...list.map((pod) => time(pod.createdAt)), time(one.createdAt) ?? now);
      const until = atRest && list.length ? Math.max(...ends) : now;
      const x = (at) => Math.round(((at - from) / Math.max(until - from, 1000)) * WIDTH);
      const success = list.filter((pod) => pod.phase === "Succeeded").map((pod) => ({ at: endOf(pod), uid: pod.uid }));
      const first = success.sort((a, b) => a.at - b.at)[0];
      [from, from + (until - from) / 2, until].forEach((at, nth) => set(axis.children[nth], clock(at)));
      set(job, sentence(one, first));
      const end = endCondition(one);
      const message = end?.type === "Failed" ? end.message : undefined;
      show(failure, Boolean(message));
      set(failure, message ?? "");
      const rows = list.map((pod) => {
        const worker = workers.find((some) => some.worker.startsWith(`${pod.uid}.`));
        return { pod, worker, fate: fate(pod, worker, now), idle: idleOf(worker, now) };
      });
      fill(body, [rows, Math.round(until / 1000), first], () => [...rows.map(({ pod, fate: [text, kind], idle }) =>
        h("tr", { "data-pod": pod.name }, h("td", { class: "worker" }, h("button", { type: "button", class: "link",
          onclick: () => podDialog(one, pod, now, first) }, pod.name)),
          h("td", { class: "lane" }, lane(pod, { x }, first, idle, until)),
          h("td", { class: `fate ${kind}` }, text))),
      one.podsOmitted > 0 && h("tr", {}, h("td", { colspan: "3", class: "soft" },
        `${count(one.podsOmitted)} older ones are not shown: kubectl -n ${one.namespace} get pods -l job-name=${one.name}`))]);
    },
  };
}
