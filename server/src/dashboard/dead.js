// What went wrong: dead items by the kind of their error, each with its payload and history.

import { confirmed, may } from "./actions.js";
import { command, fill, h, panel, save, show, table } from "./dom.js";
import { call, pathOf } from "./service.js";
import { bytes, clock, count, duration, ENDS, items, nameOf, podOf, quoted, soFar, withNames, workerName } from "./words.js";

const NAMES_MAX = 20;
// Logs of so many Pods of an item's last attempts.
const LOGS_MAX = 3;
// More than this of a payload is no text for people.
const SHOWN_MAX = 4_000;

// A value in a box, cut when it is long, with the whole of it to download.
export function value(name, of) {
  const text = typeof of === "string" ? of : JSON.stringify(of, null, 2) ?? "";
  const box = h("pre", { tabindex: "0" }, text.length > SHOWN_MAX ? `${text.slice(0, SHOWN_MAX)}…` : text);
  if (text.length <= SHOWN_MAX) return [box];
  return [box, h("p", { class: "hint" }, `Cut after ${count(SHOWN_MAX)} of ${count(text.length)} characters (${bytes(new Blob([text]).size)}). `,
    h("button", { type: "button", class: "quiet", onclick: () => save(name, "application/json", [text]) }, "Download all of it"))];
}

// Who tried, when, for how long, how that ended; and where the Pods of the last attempts say more.
function attempts(history, job) {
  const rows = history.map(({ attempt, worker, leasedAt, endedAt, outcome, error }) => {
    const code = podOf(worker, job)?.exitCode;
    return h("tr", {}, h("td", { class: "number" }, count(attempt)),
      h("td", {}, ENDS[outcome] ?? outcome, code ? h("span", { class: "soft" }, `, Pod exit ${code}`) : "", error && h("pre", { tabindex: "0" }, error)),
      h("td", { class: "worker", title: worker }, workerName(worker, job)),
      h("td", { class: "number" }, duration(Date.parse(endedAt) - Date.parse(leasedAt))),
      h("td", { class: "number" }, h("time", { datetime: endedAt, title: new Date(endedAt).toLocaleString() }, clock(endedAt))));
  });
  const logs = history.filter(({ worker }) => podOf(worker, job)).map(({ worker }) => {
    const { name, uid } = podOf(worker, job);
    return `kubectl -n ${job.namespace} logs ${name} -c ${worker.slice(uid.length + 1)}`;
  });
  return [h("h3", {}, "Attempts"),
    table("Attempts", [["Attempt", "number"], ["Ended"], ["Worker"], ["Took", "number"], ["At", "number"]], h("tbody", { "data-is": "attempts" }, ...rows)),
    ...[...new Set(logs)].slice(-LOGS_MAX).map(command)];
}

// What can be done to an item that has not ended, or that is dead in a queue that has not.
function itemAction(queue, { id, state }, isOver) {
  if (["ready", "delayed", "leased"].includes(state)) return { may: "produce", verb: "Cancel the item", danger: true, method: "DELETE",
    path: pathOf(queue, `/items/${id}`), line: `gangline cancel ${queue} ${id}`,
    text: "It ends as cancelled, and is not worked on; a worker that has it is told to drop it. This cannot be taken back." };
  if (state === "dead" && !isOver) return { may: "operate", verb: "Redrive", path: pathOf(queue, "/redrive"), body: () => ({ ids: [id] }),
    line: `gangline redrive ${queue} --id ${id}`, text: "The item becomes ready again, with all its attempts before it." };
}

export function itemDialog(queue, id, isOver = false, job = undefined) {
  const body = h("div", { class: "item-view" }, h("p", {}, "Looking it up…"));
  const dialog = h("dialog", { "aria-label": `Item ${id}`, onclose: () => dialog.remove() },
    h("h2", {}, `Item ${id}`), body,
    h("form", { method: "dialog", class: "buttons" }, h("button", { class: "main", autofocus: true }, "Close")));
  document.body.append(dialog);
  dialog.showModal();
  const identity = call("/v1/whoami").catch(() => ({}));
  call(pathOf(queue, `/items/${id}`)).then(async (item) => {
    const rows = [["state", item.state], ["key", item.key], ["attempts", count(item.attempts)], ["worker", item.worker], ["so far", soFar(item.progress)],
      ["since", item.since && new Date(item.since).toLocaleString()], ["next attempt", item.dueAt && new Date(item.dueAt).toLocaleString()]];
    body.replaceChildren(
      h("dl", { class: "rows" }, ...rows.filter(([, text]) => text)
        .map(([name, text]) => h("div", {}, h("dt", {}, name), h("dd", {}, text)))),
      ...(item.history ? attempts(item.history, job) : []),
      ...(item.error ? [h("h3", {}, "Error of the last attempt"), h("pre", { tabindex: "0" }, item.error)] : []),
      ...("payload" in item ? [h("h3", {}, "Payload"), ...value(`${queue}-${id}-payload.json`, item.payload)] : []),
      ...("result" in item ? [h("h3", {}, "Result"), ...value(`${queue}-${id}-result.json`, item.result)] : []));
    const action = itemAction(queue, item, isOver);
    if (action && may(await identity, action.may)) dialog.querySelector("form").prepend(h("button", { type: "button", "data-is": "act",
      onclick: () => { dialog.close(); confirmed({ title: `${action.verb}: #${id}`, ...action }); } }, action.verb));
  }, (error) => body.replaceChildren(h("p", { class: "error" }, error.status === 404
    ? "There is no such item any more: its queue was deleted, or made anew." : `It cannot be shown: ${error.message}.`)));
}

export function dead(queue) {
  const list = h("div", { class: "groups" });
  const redrive = h("button", { type: "button", hidden: true, onclick: () => confirmed({
    title: `Redrive the dead items of ${queue}`,
    text: "All dead items become ready again, with all their attempts before them.",
    verb: "Redrive", path: pathOf(queue, "/redrive"), line: `gangline redrive ${queue}`,
  }) }, "Redrive all");
  // Over is over: their copies go into another queue.
  const again = h("div", { hidden: true }, h("h3", {}, "To try them again, in another queue"), command(`gangline redrive ${queue} --into ${queue}-again`));
  const root = panel("dead", "Dead items", h("p", { class: "beside" }, redrive), list, again);
  root.hidden = true;
  let identity;
  let status;
  let job;
  const mayRedrive = () => may(identity, "operate") && Boolean(status) && !status.certificate;
  const paint = () => {
    show(redrive, mayRedrive());
    show(again, may(identity, "operate") && Boolean(status?.certificate));
    for (const button of list.querySelectorAll("[data-is=redrive-these]")) show(button, mayRedrive());
  };
  // An error stands for all of its kind; the service groups them and chooses them alike.
  const these = (error, total) => confirmed({
    title: `Redrive ${items(total)} of ${queue}`,
    text: "The dead items of this kind of error become ready again, with all their attempts before them.",
    verb: "Redrive", path: pathOf(queue, "/redrive"), body: () => ({ error }),
    line: `gangline redrive ${queue} --error ${quoted(error)}`,
  });

  function group([given, same, some, total]) {
    const error = given ?? "no error was given";
    const names = some.map(([id, name, attempts]) => h("li", {},
      h("button", { type: "button", class: "link", onclick: () => itemDialog(queue, id, Boolean(status?.certificate), job) }, name),
      h("span", { class: "soft" }, attempts === undefined ? ` #${id}` : ` #${id}, ${attempts} ${attempts === 1 ? "attempt" : "attempts"}`)));
    const more = total - some.length;
    const title = h("summary", {}, h("span", { class: "how-many" }, count(total)), " ",
      h("span", { class: "message" }, error, !same && h("span", { class: "soft" }, " … and the like")));
    const details = h("details", { open: opened.has(error), ontoggle: () => opened[details.open ? "add" : "delete"](error) },
      title, h("ul", { class: "names" }, ...names, more > 0 && h("li", { class: "soft" }, `and ${items(more)} more`)),
      h("button", { type: "button", class: "quiet", "data-is": "redrive-these", "aria-label": `Redrive these: ${error}`,
        hidden: !mayRedrive(), onclick: () => these(given ?? "", total) }, "Redrive these"));
    return details;
  }
  const opened = new Set();
  let isFirst = true;

  return {
    root,
    allow(latest) { identity = latest; paint(); },
    show(latest) {
      status = latest;
      show(root, status.counts.dead > 0);
      root.count(count(status.counts.dead));
      paint();
    },
    look({ dead, kinds: { groups, ungrouped }, job: latest }) {
      job = latest;
      const rows = withNames(groups, dead).map(({ error, same, items: all, count: total }) =>
        [error, same, all.slice(0, NAMES_MAX).map((item) => [item.id, nameOf(item).slice(0, 120), item.attempts]), total]);
      if (isFirst && rows.length) {
        isFirst = false;
        opened.add(rows[0][0] ?? "no error was given");
      }
      fill(list, [rows, ungrouped], () => [...rows.map(group),
        ungrouped > 0 && h("p", { class: "hint" }, `${items(ungrouped)} more, of rarer kinds, or too many to look at.`)]);
    },
  };
}

