// What keeps this job open, term by term.

import { command, fill, h, panel, show } from "./dom.js";
import { explain } from "./explain.js";
import { count } from "./words.js";

function row({ term, text, behind = [], more, trouble, command: line }) {
  const list = behind.map(({ what, how, slow }) =>
    h("li", { class: slow ? "slow" : "" }, h("span", { class: "item" }, what), " ", h("span", { class: "how" }, how)));
  if (more && behind.length) list.push(h("li", {}, `and ${count(more)} more`));
  return h("li", { class: trouble ? "trouble" : "", "data-term": term }, h("span", { class: "term" }, text),
    list.length > 0 && h("ul", {}, ...list), line && command(line));
}

export function keepsOpen() {
  const list = h("ul", { class: "terms" });
  const root = panel("open", "What keeps this job open", list);
  let last = {};
  const paint = () => fill(list, explain(last), (terms) => terms.map(row));
  return {
    root,
    show(status) {
      show(root, !status.certificate);
      last = { ...last, status };
      if (last.now) paint();
      else last = { ...last, now: undefined };
    },
    look(view) {
      last = { ...view, status: last.status ?? view.status };
      paint();
    },
  };
}
