// The dashboard: which page it is, and the connection that keeps it true.

import { set, show } from "./dom.js";
import { jobPage } from "./job.js";
import { queuesPage } from "./queues.js";
import { call, follow, setToken, takeToken } from "./service.js";

const byId = (id) => document.getElementById(id);
const queue = new URLSearchParams(location.search).get("queue");
const page = queue ? jobPage(queue) : queuesPage();

function connection(text, state) {
  byId("connection").className = state;
  set(byId("connection"), text);
}

function notice(text) {
  show(byId("notice"), Boolean(text));
  set(byId("notice"), text ?? "");
}

// What the token allows decides which actions there are; the service checks each of them anyway.
async function learnRole() {
  try {
    page.allow(await call("/v1/whoami"));
  } catch {
    page.allow({ roles: [] });
  }
}

async function live() {
  show(byId("ask-token"), false);
  show(byId("page"), true);
  connection("connecting…", "");
  const path = queue ? `/v1/events?queue=${encodeURIComponent(queue)}` : "/v1/events";
  const refused = await follow(path, {
    onConnect() {
      connection("live", "live");
      notice();
      page.connected(true);
      learnRole();
    },
    onEvent: page.take,
    onLost(why) {
      page.connected(false);
      if (page.isOver()) return connection("the service has ended; this is what it said last", "");
      connection(`connection lost (${why}); trying again`, "lost");
      notice("The service is away. This page shows what it said last, and goes on by itself as soon as "
        + "it is back; workers keep what they hold meanwhile.");
    },
  });
  page.connected(false);
  notice();
  connection(refused.message, "lost");
  set(byId("ask-why"), refused.status === 403
    ? `The token may not see this: ${refused.message}. Another token may.`
    : `It was refused: ${refused.message}.`);
  show(byId("ask-token"), true);
  show(byId("page"), false);
  byId("token").value = "";
  byId("token").focus();
}

byId("ask-token").addEventListener("submit", (event) => {
  event.preventDefault();
  setToken(byId("token").value.trim());
  live();
});
// Somebody may paste the printed address, with another token, into the same tab.
addEventListener("hashchange", () => { if (takeToken()) location.reload(); });
takeToken();
byId("page").append(page.root);
live();
