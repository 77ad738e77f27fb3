#!/usr/bin/env python3
"""What hostile clients cost others: p99 of a quiet client's calls, alone and beside each attack.

    tests/bench/hostile.py [--binary target/release/gangline] [--seconds 5] [--rounds 3]

Starts a service of its own on a free port and stops it. The quiet client pushes, leases and settles
one item at a time with a token of the namespace `quiet`; the attackers have tokens of `hostile`.
Rounds alternate between alone and attacked, so that what else the machine does falls on both.
Attackers run in processes of their own, on the same machine: what they cost it is in the figures.
"""

import argparse, http.client, json, multiprocessing, os, resource, socket, statistics, subprocess
import sys, tempfile, time


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
    ask = f"GET /v1/queues/hostile.q HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\r\n"
    sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(16)]
    for one in sockets:
        one.sendall(ask.encode() * 16)
    ready.set()
    import selectors
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


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", default="target/release/gangline")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as data, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        environment = dict(os.environ, GANGLINE_TOKEN="root-of-the-bench")
        server = subprocess.Popen([args.binary, "server", "--listen", f"127.0.0.1:{port}",
            "--data-dir", data], env=environment, stderr=subprocess.DEVNULL)
        try:
            run(args, port)
        finally:
            server.terminate()
            server.wait()


def run(args, port):
    for _ in range(200):
        try:
            root = http.client.HTTPConnection("127.0.0.1", port)
            root.request("GET", "/readyz")
            root.getresponse().read()
            break
        except OSError:
            time.sleep(0.05)
    def token(namespace):
        body = {"roles": ["admin"], "namespace": namespace}
        return call(root, "root-of-the-bench", "POST", "/v1/tokens", body)[1]["token"]
    good, bad = token("quiet"), token("hostile")
    call(root, bad, "PUT", "/v1/queues/hostile.q")
    quiet(port, good, 1, "warm")
    print(f"{'attack':8} {'p50 alone':>10} {'p50':>10} {'p99 alone':>10} {'p99':>10} {'ratio':>6}")
    for attack in (slow, polls, flood):
        if args.only and attack.__name__ != args.only:
            continue
        alone, attacked = [], []
        for nth in range(args.rounds):
            alone += quiet(port, good, args.seconds, f"{attack.__name__}-{nth}-alone")
            ready = multiprocessing.Event()
            process = multiprocessing.Process(target=attack, args=(port, bad, ready), daemon=True)
            process.start()
            assert ready.wait(120), "the attack has not begun"
            attacked += quiet(port, good, args.seconds, f"{attack.__name__}-{nth}")
            process.kill()
            process.join()
            time.sleep(1)
        figures = [statistics.median(alone), statistics.median(attacked), p99(alone), p99(attacked)]
        shown = " ".join(f"{1e3 * figure:7.2f} ms" for figure in figures)
        print(f"{attack.__name__:8} {shown} {figures[3] / figures[2]:6.2f}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
