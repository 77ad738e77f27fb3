// The way to the service: the token, calls, and the stream of events.

const RETRY_MS = 500;
const RETRY_MS_MAX = 5000;
// The service sends something at least every 15 s; without it the connection is dead.
const SILENCE_MS = 40_000;

// The token comes in the fragment, which no server and no Referer sees, and stays in this tab.
export function takeToken() {
  const fragment = new URLSearchParams(location.hash.slice(1));
  if (!fragment.has("token")) return false;
  setToken(fragment.get("token"));
  history.replaceState(null, "", location.pathname + location.search);
  return true;
}

export function setToken(token) {
  sessionStorage.setItem("token", token);
}

// An answer that is none: `status` is 0 when nobody answered.
export class Refused extends Error {
  constructor(status, detail, code) {
    super(detail);
    this.status = status;
    this.code = code;
  }
}

async function send(path, { method = "GET", body, signal, headers: extra } = {}) {
  const headers = { ...extra };
  const token = sessionStorage.getItem("token");
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, {
      method, headers, signal, cache: "no-store",
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (signal?.aborted) throw signal.reason;
    throw new Refused(0, "the service does not answer");
  }
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  throw new Refused(response.status, problem.detail ?? `the service answered ${response.status}`, problem.code);
}

// Returns the answer, and what time it was at the service.
export async function call(path, options) {
  const response = await send(path, options);
  const now = Date.parse(response.headers.get("date") ?? "") || Date.now();
  return { now, ...await response.json() };
}

// Returns a whole answer as it is.
export async function download(path) {
  return (await send(path)).blob();
}

// Returns the first lines of a long answer, and hangs up.
export async function lines(path, max) {
  const abort = new AbortController();
  const response = await send(path, { signal: abort.signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  let breaks = 0;
  while (breaks < max) {
    const { value, done } = await reader.read();
    if (done) break;
    text += value;
    breaks += value.split("\n").length - 1;
  }
  abort.abort(new Error("it has enough"));
  return text.split("\n").slice(0, max).filter(Boolean);
}

export const pathOf = (queue, rest = "") => `/v1/queues/${encodeURIComponent(queue)}${rest}`;

// EventSource cannot send a header, so the stream is read by hand.
async function read(path, last, onConnect, onEvent) {
  const abort = new AbortController();
  let watch;
  const heard = () => {
    clearTimeout(watch);
    watch = setTimeout(() => abort.abort(new Error("nothing comes any more")), SILENCE_MS);
  };
  heard();
  try {
    const headers = last.id ? { "Last-Event-ID": last.id } : {};
    const response = await send(path, { signal: abort.signal, headers });
    onConnect();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { value, done } = await reader.read().catch(() => ({ done: true }));
      if (done) throw abort.signal.reason ?? new Error("the service has gone");
      heard();
      text += value;
      const events = text.split("\n\n");
      text = events.pop();
      for (const event of events) {
        const rows = event.split("\n");
        const field = (name) => rows.find((row) => row.startsWith(name))?.slice(name.length);
        const [kind, data] = [field("event: "), field("data: ")];
        // After a reset everything comes anew, in place of what there was.
        if (data && kind !== "reset") onEvent(kind, JSON.parse(data));
        last.id = field("id: ") ?? last.id;
      }
    }
  } finally {
    clearTimeout(watch);
    abort.abort();
  }
}

// Follows the events for ever, over any loss; ends only when the token is refused.
export async function follow(path, { onConnect, onEvent, onLost }) {
  let wait = RETRY_MS;
  // What this page was told last, so that only what it misses is told when it comes again.
  const last = {};
  for (;;) {
    try {
      await read(path, last, () => { wait = RETRY_MS; onConnect(); }, onEvent);
    } catch (error) {
      if (error.status === 401 || error.status === 403) return error;
      onLost(error.message);
    }
    await new Promise((resume) => setTimeout(resume, wait));
    wait = Math.min(wait * 2, RETRY_MS_MAX);
  }
}
