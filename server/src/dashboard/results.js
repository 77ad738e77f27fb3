// The last results, and all of them as a file.

import { itemDialog } from "./dead.js";
import { command, fill, h, panel, set, show, table } from "./dom.js";
import { download, lines, pathOf } from "./service.js";
import { count, duration, plain } from "./words.js";

const ROWS = 20;
const TEXT_MAX = 160;
const LOOK_MS = 3000;

export function results(queue) {
  const body = h("tbody");
  const all = h("button", { type: "button", onclick: take }, "Download all");
  const says = h("span", { role: "status" });
  const which = h("p", { class: "hint" });
  const root = panel("results", "Results", h("p", { class: "beside" }, says, " ", all), which,
    table("Last results", [["Item"], ["Result", "wide"], ["Took", "number"], ["Attempt", "number"]], body),
    command(`gangline results ${queue}`));
  root.hidden = true;
  let lookedAt = 0;
  let looked = -1;

  async function take() {
    all.disabled = true;
    set(says, "fetching…");
    try {
      const blob = await download(pathOf(queue, "/results"));
      const url = URL.createObjectURL(blob);
      h("a", { href: url, download: `${queue}.ndjson` }).click();
      setTimeout(() => URL.revokeObjectURL(url), 60_000);
      set(says, "");
    } catch (error) {
      set(says, `not downloaded: ${error.message}`);
    } finally {
      all.disabled = false;
    }
  }

  return {
    root,
    show({ counts }) {
      show(root, counts.done > 0);
      root.count(count(counts.done));
    },
    async fetch({ counts, certificate }) {
      const isTime = certificate || Date.now() - lookedAt > LOOK_MS;
      if (!counts.done || counts.done === looked || !isTime) return;
      lookedAt = Date.now();
      const texts = await lines(pathOf(queue, `/results?cursor=${Math.max(0, counts.done - ROWS)}`), ROWS);
      looked = counts.done;
      const rows = texts.map((text) => JSON.parse(text));
      set(which, counts.done > rows.length ? `The last ${count(rows.length)}, the newest first.` : "The newest first.");
      fill(body, rows.reverse(), (some) => some.map(({ id, result, tookMs, attempt }) => {
        const text = plain(result);
        return h("tr", {}, h("td", { class: "id" },
          h("button", { type: "button", class: "link", onclick: () => itemDialog(queue, id) }, `#${id}`)),
        h("td", { class: "value" }, text.length > TEXT_MAX ? `${text.slice(0, TEXT_MAX)}…` : text),
        h("td", { class: "number" }, duration(tookMs)), h("td", { class: "number" }, count(attempt)));
      }));
    },
  };
}
