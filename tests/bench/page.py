#!/usr/bin/env python3
"""How quickly the page of 500 queues with Jobs is there, and how long it keeps the browser busy.

    cargo build --release && tests/bench/page.py [--binary target/release/gangline] [--queues 500] [--slower 1] [--rounds 3]

Starts a service of its own on a free port, fills it over the API, and opens its page in Debian's
chromium, headless, with an empty cache each round. While the page is used, CHANGES queues a second
get an item. `--slower 4` has the browser take four times as long for everything, as a phone would.
"""

import argparse, http.client, json, os, pathlib, re, statistics, subprocess, sys, tempfile, threading, time

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOKEN = "page"
HEADERS = {"content-type": "application/json", "authorization": f"Bearer {TOKEN}"}
CHANGES = 50
# What the page itself is asked to note: its paints, tasks over 50 ms, and when which rows are there.
NOTES = """
  window.tasks = [];
  window.paints = {};
  new PerformanceObserver((list) => list.getEntries().forEach(({ duration }) => tasks.push(duration)))
    .observe({ type: "longtask", buffered: true });
  new PerformanceObserver((list) => list.getEntries().forEach(({ name, startTime }) => { paints[name] = startTime; }))
    .observe({ type: "paint", buffered: true });
"""
ROWS = "document.querySelectorAll('tbody tr[data-queue]').length"
# Does something, and returns how long it took until the browser had painted what came of it.
UNTIL_PAINTED = """
  new Promise((go) => { const start = performance.now(); %s;
    requestAnimationFrame(() => { const seen = new MessageChannel();
      seen.port1.onmessage = () => go(performance.now() - start); seen.port2.postMessage(0); }); })
"""
SEARCH = "const field = document.getElementById('search'); field.value = %r; field.dispatchEvent(new Event('input'))"
USES = {
    "search": [SEARCH % text for text in ("b", "ba", "batch-04", "no such", "")],
    "sort": [f"document.querySelector('th.{by} button').click()" for by in ("left", "name", "progress", "dead", "state")],
    "filter": [f"document.querySelector('[data-filter={by}]').click()" for by in ("trouble", "over", "running", "all")],
}


class Browser:
    """Chromium, driven over its pipe: messages of the DevTools protocol, each ended by NUL."""

    def __init__(self, profile):
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()

        def pipes():
            # It reads from 3 and writes to 4; neither pipe may be in the way of the other's number.
            reads, writes = os.dup(theirs_in), os.dup(theirs_out)
            reads, writes = os.dup(reads), os.dup(writes)
            os.dup2(reads, 3)
            os.dup2(writes, 4)

        os.set_inheritable(theirs_in, True), os.set_inheritable(theirs_out, True)
        self.process = subprocess.Popen(
            ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
             "--disable-background-networking", "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=pipes, close_fds=False)
        os.close(theirs_in), os.close(theirs_out)
        self.reads, self.writes, self.number, self.session = os.fdopen(ours_in, "rb"), ours_out, 0, None
        self.rest = b""
        pages = self.call("Target.getTargets")["targetInfos"]
        page = next(one["targetId"] for one in pages if one["type"] == "page")
        self.session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]

    def call(self, method, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.writes, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self.rest:
                self.rest += self.reads.read1(1 << 20) or sys.exit("the browser has gone")
            text, self.rest = self.rest.split(b"\0", 1)
            answer = json.loads(text)
            if answer.get("id") == self.number:
                return answer["result"] if "result" in answer else sys.exit(f"{method}: {answer['error']}")

    def evaluate(self, expression):
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        return answer["result"].get("value") if "exceptionDetails" not in answer else sys.exit(str(answer))

    def close(self):
        self.session = None
        self.call("Browser.close")
        self.process.wait()


def fill(call, queues):
    """Makes queues, every tenth of them over, every seventh with something dead, each with its Job."""
    for number in range(queues):
        path = f"/v1/queues/batch-{number:03}"
        call("POST", f"{path}/items", {"items": [{"payload": n} for n in range(1 + number % 40)]})
        if number % 3 == 0:
            session = call("POST", f"{path}/exchange", {"worker": "w", "lease": {"number": 1, "max": 5}})
            settles = [{"id": item["id"], "lease": item["lease"], "outcome": "dead" if number % 7 == 0 else "done"}
                       for item in session["lease"]["items"]]
            call("POST", f"{path}/exchange", {"worker": "w", "session": session["session"], "uid": session["uid"], "settles": settles})
        call("PUT", f"{path}/job", {"namespace": "default", "name": f"batch-{number:03}", "uid": f"u{number}", "parallelism": 4,
                                    "pods": [{"name": f"batch-{number:03}-{pod}", "uid": f"p{number}-{pod}", "phase": "Running",
                                              "createdAt": "2026-01-01T00:00:00Z"} for pod in range(4)]})
        if number % 10 == 9:
            call("POST", f"{path}/stop", {"outcome": "success" if number % 20 == 9 else "failure"})


def change(address, queues, over):
    """Has CHANGES queues a second get an item."""
    connection, number = http.client.HTTPConnection(address), 0
    while not over.wait(1 / CHANGES):
        number = (number + 7) % queues
        if number % 10 != 9:
            connection.request("POST", f"/v1/queues/batch-{number:03}/items", '{"items":[{"payload":0}]}', HEADERS)
            connection.getresponse().read()


def measure(address, queues, slower):
    with tempfile.TemporaryDirectory() as profile:
        browser = Browser(profile)
        browser.call("Page.enable")
        browser.call("Page.addScriptToEvaluateOnNewDocument", source=NOTES)
        browser.call("Emulation.setCPUThrottlingRate", rate=slower)
        browser.call("Page.navigate", url=f"http://{address}/dashboard#token={TOKEN}")
        seen = {}
        while "all rows" not in seen:
            rows, at = browser.evaluate(f"[{ROWS}, performance.now()]")
            if rows:
                seen.setdefault("first rows", at)
            if rows == queues:
                seen["all rows"] = at
            elif at > 60_000:
                sys.exit(f"{rows} rows after a minute")
        seen["first paint"] = browser.evaluate("paints['first-contentful-paint']")
        seen["longest task, loading"] = browser.evaluate("Math.max(0, ...tasks.splice(0))")
        for what, expressions in USES.items():
            seen[what] = max(browser.evaluate(UNTIL_PAINTED % expression) for expression in expressions)
        browser.evaluate("new Promise((go) => setTimeout(go, 5000))")
        seen["longest task, used for 5 s"] = browser.evaluate("Math.max(0, ...tasks.splice(0))")
        browser.close()
        return seen


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", default=ROOT / "target/release/gangline")
    parser.add_argument("--queues", type=int, default=500)
    parser.add_argument("--slower", type=float, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        service = subprocess.Popen(
            [os.path.abspath(arguments.binary), "server", "--listen", "127.0.0.1:0", "--data-dir", directory],
            stderr=subprocess.PIPE, text=True, env={**os.environ, "GANGLINE_TOKEN": TOKEN})
        address = re.search(r"http://([\d.:]+)", service.stderr.readline())[1]
        connection = http.client.HTTPConnection(address)

        def call(method, path, body):
            connection.request(method, path, json.dumps(body), HEADERS)
            response = connection.getresponse()
            text = response.read()
            return json.loads(text) if response.status == 200 else sys.exit(f"{method} {path}: {text.decode()}")

        fill(call, arguments.queues)
        over = threading.Event()
        changes = threading.Thread(target=change, args=(address, arguments.queues, over))
        changes.start()
        rounds = [measure(address, arguments.queues, arguments.slower) for _ in range(arguments.rounds)]
        over.set()
        changes.join()
        service.terminate()
        service.wait()
    for what in ["first paint", "first rows", "all rows", *USES, "longest task, loading", "longest task, used for 5 s"]:
        values = [one[what] for one in rounds]
        print(f"{what}: median {statistics.median(values):.0f} ms, at most {max(values):.0f} ms of {len(values)}")
    print("a task of less than 50 ms is told as 0")


if __name__ == "__main__":
    main()
