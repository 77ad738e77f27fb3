#!/usr/bin/env python3
"""What ten open pages cost the service, on a queue through which 10,000 items a second go.

    cargo build --release && tests/bench/dashboard.py [--binary target/release/gangline] [--seconds 10] [--rounds 5]

Starts a service of its own on a free port and stops it. A client pushes, leases and settles 100
items a call, 100 times a second. A page is played by a client that asks what the page asks: the
events of its queue, and with each change, at most once in LOOK_MS, all that is not in them.
Rounds alternate between without and with pages; the figure is the service's own processor time.
"""

import argparse, http.client, json, os, pathlib, re, statistics, subprocess, sys, tempfile, threading, time

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = 10
BATCH = 100
RATE = 10_000
QUEUE = "/v1/queues/busy"
HEADERS = {"content-type": "application/json"}
# How often the page looks, as it says itself.
LOOK = int(re.search(r"const LOOK_MS = (\d+)", (ROOT / "server/src/dashboard/job.js").read_text())[1]) / 1000
LOOKS = ["/workers", "/explain", "/items?state=leased&max=100", "/history", "/job"]


class Service:
    def __init__(self, binary, directory):
        self.process = subprocess.Popen(
            [binary, "server", "--listen", "127.0.0.1:0", "--data-dir", directory],
            stderr=subprocess.PIPE, text=True)
        self.address = re.search(r"http://([\d.:]+)", self.process.stderr.readline())[1]

    def cpu(self):
        """Seconds of processor time so far."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(") ", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def call(self, connection, method, path, body=None):
        connection.request(method, QUEUE + path, None if body is None else json.dumps(body), HEADERS)
        response = connection.getresponse()
        text = response.read()
        if response.status != 200:
            sys.exit(f"{method} {path}: {response.status} {text.decode()}")
        return json.loads(text)

    def connect(self):
        return http.client.HTTPConnection(self.address)


def work(service, over, done):
    """Has RATE items a second go through the queue."""
    connection, items = service.connect(), {"items": [{"payload": "x" * 100}] * BATCH}
    session, number, start = {"worker": "w"}, 0, time.monotonic()
    while not over.is_set():
        number += 1
        service.call(connection, "POST", "/items", items)
        reply = service.call(connection, "POST", "/exchange", {**session, "lease": {"number": number, "max": BATCH}})
        session |= {"session": reply["session"], "uid": reply["uid"]}
        settles = [{"id": i["id"], "lease": i["lease"], "outcome": "done"} for i in reply["lease"]["items"]]
        service.call(connection, "POST", "/exchange", {**session, "settles": settles})
        done[0] = number * BATCH
        time.sleep(max(0, start + number * BATCH / RATE - time.monotonic()))


def page(service, closed, looks):
    """Asks what an open page asks."""
    stream = service.connect()
    stream.request("GET", "/v1/events?queue=busy", headers=HEADERS)
    events, connection, looked = stream.getresponse(), service.connect(), 0
    while not closed.is_set():
        line = events.readline()
        if line.startswith(b"data: ") and time.monotonic() - looked >= LOOK:
            looked = time.monotonic()
            for path in LOOKS:
                service.call(connection, "GET", path)
            looks[0] += 1
    stream.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", default=ROOT / "target/release/gangline")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        service = Service(os.path.abspath(arguments.binary), directory)
        over, done, looks = threading.Event(), [0], [0]
        worker = threading.Thread(target=work, args=(service, over, done))
        worker.start()
        time.sleep(1)
        shares = {0: [], PAGES: []}
        began, at_first = time.monotonic(), done[0]
        for number in range(2 * arguments.rounds):
            count, closed = PAGES * (number % 2), threading.Event()
            pages = [threading.Thread(target=page, args=(service, closed, looks)) for _ in range(count)]
            for one in pages:
                one.start()
            time.sleep(0.5)
            start, before = time.monotonic(), service.cpu()
            time.sleep(arguments.seconds)
            shares[count].append((service.cpu() - before) / (time.monotonic() - start))
            closed.set()
            for one in pages:
                one.join()
        rate = (done[0] - at_first) / (time.monotonic() - began)
        over.set()
        worker.join()
        service.process.terminate()
        service.process.wait()
    alone, watched = statistics.median(shares[0]), statistics.median(shares[PAGES])
    print(f"{rate:.0f} items/s, {looks[0]} looks; of a core: {alone:.1%} alone, {watched:.1%} with {PAGES} pages, "
          f"so {watched - alone:.1%} for them")


if __name__ == "__main__":
    main()
