#!/usr/bin/env python3
"""What the local cluster costs: its start, its rest with much in it, and finding Pods again after a crash.

    cargo build --release; tests/bench/cluster.py start|rest|find [--binary PATH]

start  milliseconds from the start of `gangline up` until /readyz answers, with an empty directory and with one that was used
rest   CPU and memory of `gangline up` with 1,000 finished Jobs kept and 50 watchers, while nothing happens
find   milliseconds from the start after SIGKILL, with 50 Pods running, until each of 50 that end then is Succeeded
"""

import argparse
import base64
import http.client
import json
import os
import signal
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.parse

TICKS = os.sysconf("SC_CLK_TCK")
JOBS, WATCHERS, PODS = 1000, 50, 50


class Up:
    """A `gangline up` on a directory."""

    def __init__(self, binary, directory):
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            [binary, "up", "--listen=127.0.0.1:0", "--cluster-listen=127.0.0.1:0", "--data-dir", directory],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )
        exports = dict(self.process.stdout.readline().removeprefix("export ").strip().split("=", 1) for _ in range(3))
        with open(exports["KUBECONFIG"], encoding="utf-8") as file:
            url = urllib.parse.urlsplit(json.load(file)["clusters"][0]["cluster"]["server"])
        self.address = (url.hostname, url.port)
        pair = base64.b64encode(f"{url.username}:{url.password}".encode()).decode()
        self.headers = {"Authorization": f"Basic {pair}", "Content-Type": "application/json"}
        self.connection = http.client.HTTPConnection(*self.address)
        self.call("GET", "/readyz")
        self.ready_ms = (time.monotonic() - self.began) * 1000

    def call(self, method, path, body=None):
        self.connection.request(method, path, body and json.dumps(body), self.headers)
        reply = self.connection.getresponse()
        text = reply.read()
        if reply.status >= 300:
            raise SystemExit(f"{method} {path}: {reply.status} {text.decode()}")
        return text

    def list(self, path):
        return json.loads(self.call("GET", path))["items"]

    def watch(self, path):
        """A connection that is read in a thread until it ends."""
        connection = http.client.HTTPConnection(*self.address)
        connection.request("GET", path + "?watch=1", headers=self.headers)
        reply = connection.getresponse()
        thread = threading.Thread(target=lambda: [None for _ in reply], daemon=True)
        thread.start()

    def cpu_seconds(self):
        with open(f"/proc/{self.process.pid}/stat", encoding="utf-8") as file:
            fields = file.read().rsplit(") ", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def memory_mib(self):
        with open(f"/proc/{self.process.pid}/status", encoding="utf-8") as file:
            [line] = [line for line in file if line.startswith("VmRSS")]
        return int(line.split()[1]) / 1024

    def end(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        self.process.wait()


def until(what, is_so):
    deadline = time.monotonic() + 600
    while not is_so():
        if time.monotonic() > deadline:
            raise SystemExit(f"never: {what}")
        time.sleep(0.01)


def start(binary):
    empty, used = [], []
    for _ in range(10):
        with tempfile.TemporaryDirectory() as directory:
            for times in (empty, used):
                up = Up(binary, directory)
                times.append(up.ready_ms)
                up.end()
    for name, times in (("an empty directory", empty), ("a directory that was used", used)):
        print(f"{name}: median {statistics.median(times):.0f} ms, at most {max(times):.0f} ms, of {len(times)} starts")


def rest(binary):
    jobs = "/apis/batch/v1/namespaces/default/jobs"
    container = {"name": "c", "image": "none", "command": ["true"]}
    with tempfile.TemporaryDirectory() as directory:
        up = Up(binary, directory)
        empty = up.memory_mib()
        began = time.monotonic()
        for number in range(JOBS):
            template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
            up.call("POST", jobs, {"metadata": {"name": f"job-{number}"}, "spec": {"template": template}})
        is_over = lambda job: job["status"].get("completionTime")
        until("all Jobs are over", lambda: all(map(is_over, up.list(jobs))))
        took = time.monotonic() - began
        for number in range(WATCHERS):
            up.watch([jobs, "/api/v1/namespaces/default/pods"][number % 2])
        time.sleep(5)
        before = up.cpu_seconds()
        time.sleep(30)
        cpu = (up.cpu_seconds() - before) / 30 * 100
        print(f"{JOBS} Jobs were over after {took:.1f} s")
        print(f"at rest with them and {WATCHERS} watchers: {cpu:.2f} % of a core, {up.memory_mib():.0f} MiB ({empty:.0f} MiB at the start)")
        up.end()


def find(binary):
    pods = "/api/v1/namespaces/default/pods"
    with tempfile.TemporaryDirectory() as directory:
        up = Up(binary, os.path.join(directory, "up"))
        for number in range(PODS):
            fifo = os.path.join(directory, f"fifo-{number}")
            os.mkfifo(fifo)
            container = {"name": "c", "image": "none", "command": ["sh", "-c", f"read x < {fifo}"]}
            spec = {"restartPolicy": "Never", "containers": [container]}
            up.call("POST", pods, {"metadata": {"name": f"pod-{number}"}, "spec": spec})
        in_phase = lambda phase: all(pod["status"].get("phase") == phase for pod in up.list(pods))
        until("all Pods run", lambda: in_phase("Running"))
        up.end(signal.SIGKILL)
        up = Up(binary, os.path.join(directory, "up"))
        for number in range(PODS):
            with open(os.path.join(directory, f"fifo-{number}"), "w", encoding="utf-8") as fifo:
                fifo.write("go\n")
        until("all Pods have ended", lambda: in_phase("Succeeded"))
        took = (time.monotonic() - up.began) * 1000
        print(f"{PODS} Pods found again: {took:.0f} ms from the start, ready after {up.ready_ms:.0f} ms of it")
        up.end()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["start", "rest", "find"])
    parser.add_argument("--binary", default=os.path.join(os.path.dirname(__file__), "../../target/release/gangline"))
    arguments = parser.parse_args()
    {"start": start, "rest": rest, "find": find}[arguments.what](os.path.abspath(arguments.binary))


if __name__ == "__main__":
    main()
