// One Pod in words: what its lane shows, for whoever reads or hears it, and where its log is.

import { command, h } from "./dom.js";
import { clock, duration } from "./words.js";

const time = (text) => (text ? Date.parse(text) : undefined);

export function endOf(pod) {
  return time(pod.endedAt) ?? (["Succeeded", "Failed"].includes(pod.phase) ? time(pod.deletedAt) ?? time(pod.startedAt) ?? time(pod.createdAt) : undefined);
}

// What happened to a Pod and when, in its order.
export function story(pod, first) {
  const end = endOf(pod);
  const code = pod.exitCode === undefined ? "" : `, exit code ${pod.exitCode}`;
  const runsOn = first && first.uid !== pod.uid && time(pod.startedAt) < first.at && (end === undefined || end > first.at);
  return [
    ["created", time(pod.createdAt)],
    ["started", time(pod.startedAt)],
    [runsOn ? "first success of a peer, so that it only finishes what it holds" : "", first?.at],
    ["told to go", time(pod.deletedAt)],
    [pod.phase === "Succeeded" ? `succeeded${code}` : pod.phase === "Failed" ? `failed: ${pod.reason ?? "Error"}${code}` : "gone", end],
  ].filter(([what, at]) => what && at !== undefined).sort(([, a], [, b]) => a - b);
}

export const storyText = (pod, first) => story(pod, first).map(([what, at]) => `${what} at ${clock(at)}`).join("; ");

export function podDialog(job, pod, now, first) {
  const pair = (name, text, kind = "") => text && h("div", { class: kind }, h("dt", {}, name), h("dd", {}, text));
  const started = time(pod.startedAt);
  const dialog = h("dialog", { "aria-label": `Pod ${pod.name}`, onclose: () => dialog.remove() },
    h("h2", {}, `Pod ${pod.name}`),
    h("dl", { class: "rows" },
      ...story(pod, first).map(([what, at]) => pair(clock(at), what)),
      pair("ran for", started !== undefined && duration((endOf(pod) ?? now) - started)),
      pair("phase", [pod.phase, pod.reason].filter(Boolean).join(", ")), pair("uid", pod.uid, "mono")),
    h("h3", {}, "What it has written"), command(`gangline logs pod/${pod.name} -n ${job.namespace}`),
    h("h3", {}, "All that the cluster knows of it"), command(`kubectl -n ${job.namespace} describe pod ${pod.name}`),
    h("form", { method: "dialog", class: "buttons" }, h("button", { class: "main", autofocus: true }, "Close")));
  document.body.append(dialog);
  dialog.showModal();
}
