// What a queue that is over shows: the proof, and how to check a copy of the results against it.

import { command, fill, h, panel, show } from "./dom.js";
import { count, duration } from "./words.js";

// The weakest of what acknowledgements promised while the queue lived.
const KEPT = {
  replicated: "on two Redis servers before each answer (replicated)",
  synced: "synced to disk before each answer (synced)",
  logged: "in a log that was synced a little later (logged)",
  memory: "in memory (memory)",
};

export function certificate() {
  const rows = h("dl", { class: "rows" });
  const root = panel("certificate", "Certificate", rows);
  root.hidden = true;
  const pair = ([name, value, kind]) => h("div", { class: kind ?? "" }, h("dt", {}, name), h("dd", {}, value));

  return {
    root,
    show({ queue, counts, certificate }) {
      show(root, Boolean(certificate));
      if (!certificate) return;
      root.className = `panel proof ${certificate.outcome}`;
      const took = Date.parse(certificate.endedAt) - Date.parse(certificate.createdAt);
      const what = ["done", "dead", "cancelled", "abandoned"]
        .filter((name) => counts[name]).map((name) => `${count(counts[name])} ${name}`);
      const pairs = [
        ["outcome", `${certificate.phase}, ${certificate.outcome}`],
        ["items", what.join(", ") || "none"],
        ["cause", certificate.cause],
        ["ended", `${new Date(certificate.endedAt).toLocaleString()}, after ${duration(took)}`],
      ];
      if (certificate.endedBy) pairs.push(["ended by", certificate.endedBy]);
      if (certificate.reason) pairs.push(["reason", certificate.reason]);
      if (certificate.historyUncertain) pairs.push(["history", "the store lost acknowledged writes meanwhile"]);
      if (certificate.durability) pairs.push(["kept", KEPT[certificate.durability] ?? certificate.durability]);
      pairs.push(["uid", certificate.uid, "mono"], ["digest", certificate.digest, "mono"]);
      const commands = [["the same for scripts", `gangline get queue ${queue} -o json`]];
      if (counts.done) commands.push(["to check the results against the digest", `gangline results ${queue} --verify`]);
      fill(rows, pairs, (all) => [...all.map(pair), ...commands.map(([what, line]) =>
        h("div", { class: "wide" }, h("dt", {}, what), h("dd", {}, command(line))))]);
    },
  };
}
