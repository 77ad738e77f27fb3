// Who works, on what and for how long; what takes unusually long stands out.

import { confirmed, may } from "./actions.js";
import { itemDialog } from "./dead.js";
import { fill, h, panel, show, table } from "./dom.js";
import { pathOf } from "./service.js";
import { count, duration, heldFor, nameOf, soFar, straggles, workerName } from "./words.js";

const ROWS_MAX = 100;
const NAMES_MAX = 3;

export function workers() {
  const body = h("tbody");
  const slow = h("tbody");
  const slowPart = h("div", { class: "slow-part", hidden: true }, h("h3", {}, "Unusually long"),
    table("Items that take unusually long", [["Item"], ["Worker"], ["Held for", "number"], ["Usual", "number"], ["Attempt", "number"], ["So far"]], slow));
  const none = h("p", { class: "hint", hidden: true }, "No worker is here.");
  const list = table("Workers", [["Worker"], ["Done", "number"], ["Holds"], ["Here for", "number"], [""]], body);
  const root = panel("workers", "Workers", list, none, slowPart);
  let identity;

  function worker(view, one) {
    const { now, status } = view;
    const held = view.leased.filter((item) => item.session === one.session);
    const texts = held.slice(0, NAMES_MAX).map((item) => {
      const ms = heldFor(item, now);
      const progress = soFar(item.progress);
      return [nameOf(item), ms >= 1000 && `for ${duration(ms)}`, progress && `(${progress})`].filter(Boolean).join(" ");
    });
    const more = one.holds - texts.length;
    if (more > 0) texts.push(texts.length ? `${count(more)} more` : `${count(more)} items`);
    const idle = duration(Math.max(0, now - Date.parse(one.idleSince ?? one.openedAt)));
    return [workerName(one.worker, view.job), one.worker, count(one.done), texts.join(", "), idle,
      duration(Math.max(0, now - Date.parse(one.openedAt))), status.queue];
  }

  function row([name, worker, done, holds, idle, here, queue]) {
    const revoke = may(identity, "operate") && h("button", { type: "button", class: "quiet", onclick: () => confirmed({
      title: `Revoke ${name}`,
      text: "Its session ends and what it holds is ready again at once. A worker that is alive gets no new session for a minute.",
      verb: "Revoke", danger: true,
      path: pathOf(queue, `/workers/${encodeURIComponent(worker)}/revoke`),
      line: `curl -X POST -H "Authorization: Bearer $GANGLINE_TOKEN" ${location.origin}${pathOf(queue, `/workers/${encodeURIComponent(worker)}/revoke`)}`,
    }), "aria-label": `Revoke ${name}` }, "Revoke");
    return h("tr", {}, h("td", { class: "worker", title: worker }, name), h("td", { class: "number" }, done),
      h("td", { class: holds ? "holds" : "holds soft" }, holds || `nothing for ${idle}`), h("td", { class: "number" }, here),
      h("td", { class: "number" }, revoke || ""));
  }

  return {
    root,
    allow(latest) { identity = latest; },
    show(status) {
      show(root, !status.certificate);
      root.count(count(status.sessions));
      show(none, status.sessions === 0);
      show(list, status.sessions > 0);
    },
    look(view) {
      const rows = view.workers.slice(0, ROWS_MAX).map((one) => [...worker(view, one), may(identity, "operate")]);
      fill(body, rows, (all) => all.map(row));
      const late = view.leased.filter((item) => straggles(item, view.now, view.typicalMs))
        .map((item) => [item.id, nameOf(item), workerName(item.worker, view.job), duration(heldFor(item, view.now)), duration(view.typicalMs), count(item.attempts + 1), soFar(item.progress)]);
      show(slowPart, late.length > 0);
      fill(slow, late, (all) => all.map(([id, item, who, ms, usual, attempt, progress]) => h("tr", {}, h("td", { class: "holds" }, h("button", { type: "button", class: "link",
        onclick: () => itemDialog(view.status.queue, id, false, view.job) }, item)),
        h("td", { class: "worker" }, who), h("td", { class: "number" }, ms), h("td", { class: "number" }, usual), h("td", { class: "number" }, attempt), h("td", {}, progress))));
    },
  };
}
