// The burn-down: what is left over time, where it is heading, and when it ends.
// Drawn by hand: one area, one line ahead, two axes (docs/decisions/0007-one-chart.md).

import { draw, fill, h, panel, set, show } from "./dom.js";
import { about, clock, count, duration, totals } from "./words.js";

const HEIGHT = 210;
const EDGE = { left: 46, right: 12, top: 12, bottom: 24 };
const INNER = HEIGHT - EDGE.top - EDGE.bottom;
// So that an estimate of days does not squeeze what has happened into a line.
const AHEAD_MAX = 3;

// 1, 2 or 5 times a power of ten, at least as much as is wanted.
function step(wanted) {
  const power = 10 ** Math.floor(Math.log10(Math.max(wanted, 1)));
  return [1, 2, 5, 10].map((times) => times * power).find((one) => one >= wanted);
}

const short = (number) => {
  const [unit, letter] = [[1e9, "B"], [1e6, "M"], [1e3, "K"]].find(([least]) => number >= least) ?? [1, ""];
  return `${Math.round((number / unit) * 10) / 10}${letter}`;
};

export function burnDown() {
  const svg = draw("svg", { role: "img", "aria-labelledby": "burn-says" });
  const says = h("p", { class: "hint", id: "burn-says" });
  const root = panel("burn-down", "Items left", h("div", { class: "chart" }, svg), says);
  let status;
  let points = [];
  let scale;
  let width = 640;
  // As many units as pixels, so that letters have their size on a phone, too.
  new ResizeObserver(() => {
    width = Math.max(240, svg.clientWidth);
    paint();
  }).observe(svg);

  const leftOf = (one) => totals(one).left;

  function paint() {
    if (!status) return;
    const end = status.certificate ? Date.parse(status.certificate.endedAt) : undefined;
    const last = { at: end ?? Date.now() + skew, left: status.certificate ? status.counts.abandoned : leftOf(status),
      dead: status.counts.dead };
    // Before the first push there is nothing to show.
    const begun = points.findIndex((point) => point.left > 0);
    const line = [...points.slice(Math.max(begun, 0)).filter((point) => point.at <= last.at), last];
    const from = line[0].at;
    const spent = Math.max(last.at - from, 1);
    const ahead = status.etaMs !== undefined && last.left ? status.etaMs : undefined;
    const until = last.at + Math.min(ahead ?? 0, spent * AHEAD_MAX);
    const most = Math.max(1, ...line.map((point) => point.left));
    const unit = step(most / 4);
    const top = Math.ceil(most / unit) * unit;
    const x = (at) => EDGE.left + ((at - from) / Math.max(until - from, 1)) * (width - EDGE.left - EDGE.right);
    const y = (left) => EDGE.top + (1 - left / top) * INNER;
    scale = { line, x, from, until };
    svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    const round = (number) => Math.round(number * 10) / 10;
    const dots = line.map((point) => `${round(x(point.at))},${round(y(point.left))}`);
    const floor = round(y(0));
    const grid = [];
    for (let level = 0; level <= top; level += unit) {
      grid.push(draw("line", { class: level ? "grid" : "axis", x1: EDGE.left, x2: width - EDGE.right, y1: y(level), y2: y(level) }),
        draw("text", { class: "tick", x: EDGE.left - 6, y: y(level) + 4, "text-anchor": "end" }, short(level)));
    }
    const ticks = [from, from + (until - from) / 2, until].map((at, nth) => draw("text", {
      class: "tick", x: x(at), y: HEIGHT - 7, "text-anchor": ["start", "middle", "end"][nth] }, clock(at)));
    const parts = [...grid, ...ticks,
      draw("polygon", { class: "area", points: `${round(x(from))},${floor} ${dots.join(" ")} ${round(x(last.at))},${floor}` }),
      draw("polyline", { class: "line", points: dots.join(" ") })];
    if (ahead !== undefined) {
      const leftThen = last.left * (1 - Math.min(ahead, spent * AHEAD_MAX) / ahead);
      parts.push(draw("line", { class: "ahead", x1: x(last.at), y1: y(last.left), x2: x(until), y2: y(leftThen) }),
        draw("line", { class: "now", x1: x(last.at), x2: x(last.at), y1: EDGE.top, y2: floor }));
    }
    parts.push(draw("circle", { class: "dot", cx: x(last.at), cy: y(last.left), r: 3.5 }), pointer);
    const seen = parts.slice(0, -1).map((part) => part.outerHTML);
    if (fill(svg, seen, () => parts)) set(says, describe(last, ahead, spent, most));
  }

  function describe(last, ahead, spent, first) {
    if (status.certificate && last.left) return `${count(last.left)} were left when it was stopped, after ${duration(spent)}.`;
    if (status.certificate) return `From ${count(first)} to ${count(last.left)} in ${duration(spent)}.`;
    const past = `${count(last.left)} left`;
    if (ahead !== undefined) return `${past}, at this rate none at ${clock(last.at + ahead)}, in ${about(ahead)}.`;
    if (status.phase === "open" && last.left) return `${past}; when it is done is not known before the seal.`;
    return `${past}.`;
  }

  // What was left at the place of the pointer.
  const mark = draw("line", { class: "now", y1: EDGE.top, y2: HEIGHT - EDGE.bottom });
  const label = draw("text", { class: "label", y: EDGE.top + 10 });
  const pointer = draw("g", { visibility: "hidden" }, mark, label);
  svg.addEventListener("pointermove", (event) => {
    if (!scale) return;
    const box = svg.getBoundingClientRect();
    const at = scale.from + ((((event.clientX - box.left) / box.width) * width - EDGE.left) / (width - EDGE.left - EDGE.right)) * (scale.until - scale.from);
    const point = scale.line.findLast((one) => one.at <= at) ?? scale.line[0];
    const place = scale.x(point.at);
    mark.setAttribute("x1", place);
    mark.setAttribute("x2", place);
    label.setAttribute("x", place > width / 2 ? place - 6 : place + 6);
    label.setAttribute("text-anchor", place > width / 2 ? "end" : "start");
    set(label, `${clock(point.at)}  ${count(point.left)} left${point.dead ? `, ${count(point.dead)} dead` : ""}`);
    pointer.setAttribute("visibility", "visible");
  });
  svg.addEventListener("pointerleave", () => pointer.setAttribute("visibility", "hidden"));

  let skew = 0;
  return {
    root,
    forget() { points = []; },
    show(latest) {
      status = latest;
      show(root, totals(status).all > 0);
      paint();
    },
    look({ history, now }) {
      skew = now - Date.now();
      points = history.map(([ms, left, done, dead]) => ({ at: Date.parse(status.createdAt) + ms, left, done, dead }));
      paint();
    },
  };
}
