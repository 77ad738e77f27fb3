// Elements. Everything that comes from the service becomes text here, never markup.

const SVG = "http://www.w3.org/2000/svg";

function dress(node, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== undefined && child !== null && child !== false));
  return node;
}

// Makes an element; children are elements or texts.
export const h = (kind, properties = {}, ...children) =>
  dress(document.createElement(kind), properties, children);

// Makes a piece of a drawing.
export const draw = (kind, properties = {}, ...children) =>
  dress(document.createElementNS(SVG, kind), properties, children);

// Sets a text only if it has changed: a selection and a screen reader keep their place.
export function set(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function show(node, wanted) {
  if (node.hidden === wanted) node.hidden = !wanted;
}

// Builds the children of a node anew, but only when what they are made of has changed. Who is at
// one of them with the keyboard stays at the one of the same name.
const nameOf = (node) => node.getAttribute("aria-label") ?? node.textContent;
const filledWith = new WeakMap();
export function fill(parent, data, make) {
  const wanted = JSON.stringify(data);
  if (filledWith.get(parent) === wanted) return false;
  filledWith.set(parent, wanted);
  const at = parent.contains(document.activeElement) ? document.activeElement : undefined;
  parent.replaceChildren(...[make(data)].flat().filter(Boolean));
  if (at) [...parent.querySelectorAll(at.tagName)].find((node) => nameOf(node) === nameOf(at))?.focus({ preventScroll: true });
  return true;
}

// A table in a region of its own that scrolls sideways on a small screen.
export function table(label, heads, body) {
  const cells = heads.map(([text, kind]) =>
    (text ? h("th", { scope: "col", class: kind }, text) : h("td")));
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label },
    h("table", {}, h("thead", {}, h("tr", {}, ...cells)), body));
}

// A panel with a heading; `is` names it for tests and links.
export function panel(is, title, ...children) {
  const heading = h("h2", { id: `h-${is}` }, title, " ", h("span", { class: "count" }));
  const part = h("section", { class: "panel", "data-is": is, "aria-labelledby": `h-${is}` }, heading, ...children);
  part.count = (text) => set(heading.lastChild, text);
  return part;
}

// A file made of what is in the page's memory.
export function save(name, kind, parts) {
  const url = URL.createObjectURL(new Blob(parts, { type: kind }));
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

const DEFAULT_URL = "http://127.0.0.1:4264";

// A command to copy, with the address of this service where that is not the usual one and the
// command is about a queue.
export function command(line) {
  const text = location.origin === DEFAULT_URL || line.startsWith("gangline logs ") ? line
    : line.replace(/^gangline ([a-z]+)/, `gangline $1 --url ${location.origin}`);
  const button = h("button", { type: "button", class: "quiet", onclick: async () => {
    try {
      await navigator.clipboard.writeText(text);
      set(button, "Copied");
    } catch {
      // Without https a page may not write to the clipboard: the text is selected instead.
      getSelection().selectAllChildren(code);
      set(button, "Selected");
    }
    setTimeout(() => set(button, "Copy"), 2000);
  }, "aria-label": `Copy ${text}` }, "Copy");
  const code = h("code", { tabindex: "0" }, text);
  return h("div", { class: "command" }, code, button);
}
