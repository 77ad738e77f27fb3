// What a person may do to a queue: each asks first, and shows the command that does the same.

import { command, fill, h, set, show } from "./dom.js";
import { call, pathOf } from "./service.js";
import { count, items, quoted, totals } from "./words.js";

const ROLES = { produce: ["producer", "admin"], operate: ["admin"] };

export function may(identity, what) {
  return Boolean(identity?.roles?.some((role) => ROLES[what].includes(role)));
}

// Asks, does it, and says why if it could not be done. `fields` are inputs that go into the body.
export function confirmed({ title, text, verb, danger, method = "POST", path, line, fields = [], body, done }) {
  const error = h("p", { class: "error", role: "alert", hidden: true });
  const shown = h("div");
  const bodyNow = () => (body ? body() : undefined);
  const paint = () => fill(shown, typeof line === "function" ? line() : line, (now) => command(now));
  fields.forEach((field) => field.addEventListener("input", paint));
  paint();
  const go = path && h("button", { class: danger ? "danger" : "main", type: "submit" }, verb);
  const cancel = h("button", { type: "button", autofocus: true, onclick: () => dialog.close() }, path ? "Cancel" : "Close");
  const form = h("form", { onsubmit: async (event) => {
    event.preventDefault();
    if (!path) return dialog.close();
    go.disabled = true;
    try {
      await call(path, { method, body: bodyNow() });
      dialog.close();
      dispatchEvent(new Event("gangline-changed"));
      done?.();
    } catch (failure) {
      show(error, true);
      set(error, failure.status === 0
        ? "The service does not answer, so that nobody knows whether it was done. The page will show it when it is back."
        : `Not done: ${failure.message}.`);
      go.disabled = false;
    }
  } }, h("h2", { id: "ask" }, title), h("p", {}, text), ...fields.map((field) => h("label", {}, field.dataset.label, field)),
  h("h3", {}, path ? "The same as a command" : "The command"), shown, error,
  h("div", { class: "buttons" }, cancel, go));
  const dialog = h("dialog", { "aria-labelledby": "ask", onclose: () => dialog.remove() }, form);
  document.body.append(dialog);
  dialog.showModal();
}

function stop(queue, status) {
  const outcome = h("select", { "data-label": "Outcome" }, h("option", { value: "failure" }, "failure"), h("option", { value: "success" }, "success"));
  const reason = h("input", { "data-label": "Reason, for whoever reads the certificate", maxlength: "1024" });
  confirmed({
    title: `Stop ${queue}`, verb: "Stop it", danger: true, path: pathOf(queue, "/stop"), fields: [outcome, reason],
    text: `The queue ends now and for good: what is left, ${items(totals(status).left)}, will be abandoned, and workers are told to go. What is done stays done.`,
    body: () => ({ outcome: outcome.value, by: "dashboard", ...(reason.value ? { reason: reason.value } : {}) }),
    line: () => `gangline stop ${queue} --outcome ${outcome.value}${reason.value ? ` --reason ${quoted(reason.value)}` : ""}`,
  });
}

// The queue service does not start Pods; the controller does, by what the Job says.
function scale(job) {
  const number = h("input", { type: "number", min: "0", max: "10000", value: String(job.parallelism ?? 1), "data-label": "Pods at a time (parallelism)" });
  confirmed({
    title: `Scale ${job.name}`, fields: [number],
    text: "How many Pods work is the Job's own field; this changes it, and the controller follows.",
    line: () => `kubectl -n ${job.namespace} patch job ${job.name} --type merge -p '{"spec":{"parallelism":${Number(number.value) || 0}}}'`,
  });
}

export function actions(queue) {
  let identity;
  let status;
  let job;
  const button = (name, what, text, onclick, wanted) => {
    const node = h("button", { type: "button", "data-action": name, hidden: true, onclick }, text);
    node.check = () => show(node, may(identity, what) && Boolean(status) && wanted());
    return node;
  };
  const live = () => !status.certificate;
  const simple = (verb, text) => () => confirmed({ title: `${verb} ${queue}`, text, verb,
    path: pathOf(queue, `/${verb.toLowerCase()}`), line: `gangline ${verb.toLowerCase()} ${queue}` });
  const all = [
    button("seal", "produce", "Seal", simple("Seal", "No more items can be pushed from outside; the job ends when nothing is left. This cannot be taken back."),
      () => live() && status.phase === "open"),
    button("pause", "operate", "Pause", simple("Pause", "Nothing more is handed out until it is resumed. What is being worked on goes on."),
      () => live() && !status.paused),
    button("resume", "operate", "Resume", simple("Resume", "Items are handed out again."), () => live() && status.paused),
    button("scale", "operate", "Scale", () => scale(job), () => live() && Boolean(job)),
    button("stop", "operate", "Stop…", () => stop(queue, status), live),
    button("delete", "operate", "Delete…", () => confirmed({
      title: `Delete ${queue}`, verb: "Delete it", danger: true, method: "DELETE", path: pathOf(queue), line: `gangline delete ${queue}`,
      text: `The queue goes with ${count(status.counts.done)} results and its certificate${live() ? "; it is stopped first, and its workers are told to go" : ""}. This cannot be taken back.`,
    }), () => true),
  ];
  const paint = () => all.forEach((one) => one.check());
  return {
    root: h("div", { class: "actions", role: "group", "aria-label": "Actions" }, ...all),
    allow(latest) { identity = latest; paint(); },
    show(latest) { status = latest; paint(); },
    look({ job: latest }) { job = latest; paint(); },
  };
}
