// What keeps this job open, term by term, as the service says it.

import { itemDialog } from "./dead.js";
import { command, fill, h, panel, show } from "./dom.js";
import { count, duration, nameOf, sentenceCase, soFar, workerName } from "./words.js";

const NAMED_MAX = 4;

function held(item, { leased, job, status }, typicalMs) {
  const known = leased.find(({ id }) => id === item.id) ?? item;
  const slow = item.slow ? `, ${count(Math.round(item.heldMs / typicalMs))} times the usual ${duration(typicalMs)}` : "";
  const progress = soFar(item.progress);
  const how = `${workerName(item.worker, job)} for ${duration(item.heldMs)}, attempt ${item.attempt}${slow}${progress && `, ${progress}`}`;
  return h("li", { class: slow ? "slow" : "" }, h("button", { type: "button", class: "link",
    onclick: () => itemDialog(status.queue, item.id, false, job) }, nameOf(known)), " ", h("span", { class: "how" }, how));
}

function row({ term, text, trouble, command: line, oldest = [], more = 0, typicalMs }, view) {
  const list = oldest.slice(0, NAMED_MAX).map((item) => held(item, view, typicalMs));
  const rest = more + oldest.length - list.length;
  if (rest && list.length) list.push(h("li", {}, `and ${count(rest)} more`));
  // Whoever sees this page knows where the service is; a worker does not.
  const help = line?.startsWith("GANGLINE_") ? `GANGLINE_URL=${location.origin} ${line}` : line;
  return h("li", { class: trouble ? "trouble" : "", "data-term": term }, h("span", { class: "term" }, sentenceCase(text)),
    list.length > 0 && h("ul", {}, ...list), help && command(help));
}

export function keepsOpen() {
  const list = h("ul", { class: "terms" });
  const root = panel("open", "What keeps this job open", list);
  return {
    root,
    show(status) { show(root, !status.certificate); },
    look(view) { fill(list, view.explanation.terms, (terms) => terms.map((term) => row(term, view))); },
  };
}
