#!/usr/bin/env python3
"""What hostile clients cost others: p99 of a quiet client's calls, alone and beside each attack.

    tests/bench/hostile.py [--binary target/release/gangline] [--seconds 5] [--rounds 3]

Starts two services of its own on free ports and stops them. The quiet client pushes, leases and
settles one item at a time on the first, with a token of the namespace `quiet`; the attackers have
tokens of `hostile`. Each round is played alone, beside the attack on the *second* service, and
beside the attack on the first, so that what else the machine does falls on all three.

Attackers and services share the machine's processors and its disk (TMPDIR=/dev/shm leaves the disk
out). `elsewhere` is what is lost by that alone; `adds` is what is lost by sharing the service: p99 of
the attacked to p99 with the attack elsewhere. On a machine with other work, nice -n -20 helps.
"""

import argparse, http.client, json, multiprocessing, os, resource, socket, statistics, subprocess
import selectors, sys, tempfile, time


def call(connection, token, method, path, body=None):
    headers = {"authorization": "Bearer " + token, "content-type": "application/json"}
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    response = connection.getresponse()
    data = response.read()
    return response.status, json.loads(data) if data else None


def quiet(port, token, seconds, queue):
    """Returns how long each call took, in seconds."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    path = "/v1/queues/quiet." + queue
    took, session, number = [], {}, 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        number += 1
        for sub, body in [
            ("/items", {"payload": number}),
            ("/exchange", dict(session, worker="q", lease={"number": number, "max": 1})),
            ("/exchange", None),
        ]:
            if body is None:
                settle = {"id": item["id"], "lease": item["lease"], "outcome": "done"}
                body = dict(session, worker="q", settles=[settle])
            start = time.perf_counter()
            status, reply = call(connection, token, "POST", path + sub, body)
            took.append(time.perf_counter() - start)
            assert status == 200, reply
            if "lease" in body:
                session = {"session": reply["session"], "uid": reply["uid"]}
                item = reply["lease"]["items"][0]
        time.sleep(0.005)
    return took


def raise_files():
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def slow(port, token, ready):
    """A hundred clients that send a byte a second."""
    raise_files()
    head = f"POST /v1/queues/hostile.q/items HTTP/1.1\r\nauthorization: Bearer {token}\r\n"
    sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
    ready.set()
    for byte in head.encode():
        for one in sockets:
            try:
                one.send(bytes([byte]))
            except OSError:
                pass
        time.sleep(1)


def flood(port, token, ready):
    """Sixteen connections that ask as fast as they are answered, each with sixteen ahead."""
    again(port, ready, 16, "GET /v1/queues/hostile.q HTTP/1.1\r\nhost: localhost\r\n"
        f"authorization: Bearer {token}\r\n\r\n")


def bulk(port, token, ready):
    """Eight connections that push a thousand items each as fast as they are answered."""
    body = json.dumps({"items": [{"payload": "x" * 100}] * 1_000})
    again(port, ready, 8, "POST /v1/queues/hostile.q/items HTTP/1.1\r\nhost: localhost\r\n"
        f"authorization: Bearer {token}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n{body}", ahead=1)


def again(port, ready, connections, ask, ahead=16):
    """Sends a request on each connection, so many ahead, and another for each answer."""
    sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(connections)]
    for one in sockets:
        one.sendall(ask.encode() * ahead)
    ready.set()
    selector = selectors.DefaultSelector()
    for one in sockets:
        selector.register(one, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            answers = key.fileobj.recv(1 << 16).count(b"HTTP/1.1 ")
            key.fileobj.sendall(ask.encode() * answers)


def polls(port, token, ready):
    """Ten thousand held lease requests."""
    raise_files()
    body = json.dumps({"worker": "w", "lease": {"number": 1, "max": 1, "waitMs": 50000}})
    sockets = []
    for number in range(10_000):
        text = body.replace('"w"', f'"w{number}"')
        one = socket.create_connection(("127.0.0.1", port))
        one.sendall((f"POST /v1/queues/hostile.q/lease HTTP/1.1\r\nhost: localhost\r\n"
            f"authorization: Bearer {token}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(text)}\r\n\r\n{text}").encode())
        sockets.append(one)
        if number % 500 == 499:
            time.sleep(0.3)
    ready.set()
    time.sleep(3600)


def p99(values):
    return sorted(values)[int(len(values) * 0.99)]


class Service:
    """A service on a free port, with two tokens."""

    def __init__(self, binary, data):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        environment = dict(os.environ, GANGLINE_TOKEN="root-of-the-bench")
        self.process = subprocess.Popen([binary, "server", "--listen", f"127.0.0.1:{self.port}",
            "--data-dir", data], env=environment, stderr=subprocess.DEVNULL)
        for _ in range(200):
            try:
                root = http.client.HTTPConnection("127.0.0.1", self.port)
                root.request("GET", "/readyz")
                root.getresponse().read()
                break
            except OSError:
                time.sleep(0.05)
        self.good, self.bad = (
            call(root, "root-of-the-bench", "POST", "/v1/tokens",
                {"roles": ["admin"], "namespace": namespace})[1]["token"]
            for namespace in ("quiet", "hostile"))
        call(root, self.bad, "PUT", "/v1/queues/hostile.q")

    def quiet(self, seconds, queue):
        return quiet(self.port, self.good, seconds, queue)

    def stop(self):
        self.process.terminate()
        self.process.wait()


def attacked_by(attack, target, victim, seconds, queue):
    """Returns how long the victim's calls took while the target was attacked."""
    ready = multiprocessing.Event()
    process = multiprocessing.Process(target=attack, args=(target.port, target.bad, ready), daemon=True)
    process.start()
    try:
        assert ready.wait(120), "the attack has not begun"
        return victim.quiet(seconds, queue)
    finally:
        process.kill()
        process.join()
        time.sleep(1)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", default="target/release/gangline")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=[attack.__name__ for attack in ATTACKS])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as data:
        services = [Service(args.binary, os.path.join(data, name)) for name in ("one", "two")]
        try:
            run(args, *services)
        finally:
            for service in services:
                service.stop()


def run(args, victim, other):
    victim.quiet(1, "warm")
    print(f"{'attack':8} {'p50 alone':>10} {'elsewhere':>10} {'attacked':>10} {'p99 alone':>10} "
          f"{'elsewhere':>10} {'attacked':>10} {'ratio':>6} {'adds':>6}")
    for attack in ATTACKS:
        if args.only and attack.__name__ != args.only:
            continue
        alone, elsewhere, attacked = [], [], []
        for nth in range(args.rounds):
            name = f"{attack.__name__}-{nth}"
            alone += victim.quiet(args.seconds, f"{name}-alone")
            elsewhere += attacked_by(attack, other, victim, args.seconds, f"{name}-elsewhere")
            attacked += attacked_by(attack, victim, victim, args.seconds, name)
        rows = (alone, elsewhere, attacked)
        figures = [statistics.median(row) for row in rows] + [p99(row) for row in rows]
        shown = " ".join(f"{1e3 * figure:7.2f} ms" for figure in figures)
        ratio, adds = figures[5] / figures[3], figures[5] / figures[4]
        print(f"{attack.__name__:8} {shown} {ratio:6.2f} {adds:6.2f}", flush=True)


ATTACKS = (slow, polls, flood, bulk)


if __name__ == "__main__":
    sys.exit(main())
