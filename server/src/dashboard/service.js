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

function get(path, signal) {
  const token = sessionStorage.getItem("token");
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  return fetch(path, { headers, signal, cache: "no-store" });
}

async function problem(response) {
  try {
    return (await response.json()).detail;
  } catch {
    return `the service answered ${response.status}`;
  }
}

// Returns the answer, and what time it was at the service.
export async function call(path) {
  const response = await get(path);
  if (!response.ok) throw new Error(await problem(response));
  const now = Date.parse(response.headers.get("date") ?? "") || Date.now();
  return { now, ...await response.json() };
}

// EventSource cannot send a header, so the stream is read by hand.
async function read(path, onConnect, onData) {
  const abort = new AbortController();
  let watch;
  const heard = () => {
    clearTimeout(watch);
    watch = setTimeout(() => abort.abort(new Error("nothing comes any more")), SILENCE_MS);
  };
  heard();
  try {
    const response = await get(path, abort.signal);
    if (response.status === 401) return { unauthorized: await problem(response) };
    if (!response.ok) throw new Error(await problem(response));
    onConnect();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) throw new Error("the service has gone");
      heard();
      text += value;
      const events = text.split("\n\n");
      text = events.pop();
      for (const event of events) {
        const data = event.split("\n").find((line) => line.startsWith("data: "));
        if (data) onData(JSON.parse(data.slice(6)));
      }
    }
  } finally {
    clearTimeout(watch);
    abort.abort();
  }
}

// Follows the events for ever, over any loss; ends only when the token is refused.
export async function follow(path, { onConnect, onData, onLost }) {
  let wait = RETRY_MS;
  for (;;) {
    try {
      const end = await read(path, () => { wait = RETRY_MS; onConnect(); }, onData);
      if (end.unauthorized) return end.unauthorized;
    } catch (error) {
      onLost(error.message);
    }
    await new Promise((resume) => setTimeout(resume, wait));
    wait = Math.min(wait * 2, RETRY_MS_MAX);
  }
}
