"""What the tests start: the real service, a proxy that loses replies, and worker programs."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

from gangline import Producer

ROOT = Path(__file__).resolve().parents[3]
SOURCE = Path(__file__).resolve().parents[1] / "src"
TOKEN = "a-token-for-tests"
DEADLINE = 60.0

DOUBLE = """
    from gangline import Worker
    for item in Worker.from_env():
        item.done(item.payload * 2)
    print("after the loop")
"""

SLOW = """
    import sys, time
    from gangline import Worker
    for item in Worker.from_env():
        print("begun", flush=True)
        end = time.monotonic() + float(item.payload)
        while time.monotonic() < end and not item.cancelled:
            time.sleep(0.02)
        if item.cancelled:
            item.retry("cut short")
        else:
            item.done("slept")
"""


def binary() -> str:
    """The server's binary, built before: ``GANGLINE_BIN``, or that of the debug build."""
    found = os.environ.get("GANGLINE_BIN") or str(ROOT / "target" / "debug" / "gangline")
    if not os.access(found, os.X_OK):
        raise RuntimeError(f"{found} does not exist; build it first: cargo build -p gangline")
    return found


def until(what: str, condition: Callable[[], Any]) -> Any:
    """Waits until ``condition`` returns something true, and returns it."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {DEADLINE:g} s: {what}")


class Server:
    """The queue service, as a child process on a free port."""

    def __init__(self) -> None:
        self.dir = tempfile.mkdtemp(prefix="gangline-test-")
        self.port = 0
        self.process: Optional[subprocess.Popen[str]] = None
        self.start()

    def start(self) -> None:
        command = [binary(), "server", "--listen", f"127.0.0.1:{self.port}",
                   "--data-dir", self.dir]
        environment = {name: value for name, value in os.environ.items()
                       if not name.startswith("GANGLINE_")}
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True,
                                        env={**environment, "GANGLINE_TOKEN": TOKEN})
        assert self.process.stderr is not None
        heard = ""
        for line in self.process.stderr:
            heard += line
            found = re.search(r"listening on http://127\.0\.0\.1:(\d+)", line)
            if found:
                self.port = int(found.group(1))
                break
        else:
            raise AssertionError(f"the service did not start: {heard}")
        stderr = self.process.stderr
        threading.Thread(target=lambda: [None for _ in stderr], daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        if self.process.stderr is not None:
            self.process.stderr.close()

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.dir, ignore_errors=True)


class Proxy:
    """Stands before the service. ``lose`` decides for each request whether its reply is lost:
    the service has acted, and the connection closes instead of an answer."""

    def __init__(self, server: Server, lose: Callable[[bytes], bool]) -> None:
        self._server = server
        self._lose = lose
        self.lost = 0
        self.requests: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            with client, socket.create_connection(("127.0.0.1", self._server.port)) as server:
                while True:
                    request = _message(client)
                    if not request:
                        return
                    self.requests.append(request)
                    server.sendall(request)
                    reply = _message(server)
                    if not reply:
                        return
                    if self._lose(request):
                        self.lost += 1
                        return
                    client.sendall(reply)
        except OSError:
            pass


def _message(peer: socket.socket) -> bytes:
    """Reads one HTTP message whose length is given."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = peer.recv(1 << 16)
        if not part:
            return b""
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    found = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
    wanted = int(found.group(1)) if found else 0
    while len(body) < wanted:
        part = peer.recv(1 << 16)
        if not part:
            return b""
        body += part
    return head + b"\r\n\r\n" + body


class Program:
    """A worker program, as a child process."""

    def __init__(self, url: str, queue: str, text: str, **environment: str) -> None:
        self.dir = tempfile.mkdtemp(prefix="gangline-worker-")
        self.path = os.path.join(self.dir, "program.py")
        with open(self.path, "w") as file:
            file.write(textwrap.dedent(text))
        kept = {name: value for name, value in os.environ.items()
                if not name.startswith("GANGLINE_")}
        self.process = subprocess.Popen(
            [sys.executable, self.path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**kept, "PYTHONPATH": str(SOURCE), "GANGLINE_URL": url, "GANGLINE_QUEUE": queue,
                 "GANGLINE_TOKEN": TOKEN, **environment})
        self.stdout = ""
        self.stderr = ""

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def says(self, text: str) -> None:
        """Waits for its next line, which is this text."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline().rstrip("\n")
        assert line == text, f"{line!r} instead of {text!r}"

    def end(self) -> int:
        """Waits for its end and returns its exit code."""
        self.stdout, self.stderr = self.process.communicate(timeout=DEADLINE)
        shutil.rmtree(self.dir, ignore_errors=True)
        return self.process.returncode

    def children(self) -> list[int]:
        """The processes that it has started."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(number) for number in path.read_text().split()]

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        shutil.rmtree(self.dir, ignore_errors=True)


def runs(process: int) -> bool:
    """Whether a process runs: a zombie does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


class WithServer(unittest.TestCase):
    """Has one service a class, and a queue of its own a test."""

    server: Server

    @classmethod
    def setUpClass(cls) -> None:
        cls.server = Server()
        cls.addClassCleanup(cls.server.remove)

    def setUp(self) -> None:
        self.queue = re.sub("[^a-z0-9]", "-", self._testMethodName.lower())[-60:].strip("-")
        self.producer = Producer(self.server.url, self.queue, TOKEN, patience=30)
        self.addCleanup(self.producer.close)

    def program(self, text: str, url: Optional[str] = None, **environment: str) -> Program:
        program = Program(url or self.server.url, self.queue, text, **environment)
        self.addCleanup(program.kill)
        return program

    def fill(self, payloads: Any, seal: bool = True, **settings: int) -> None:
        settings = {"session_ms": 6_000, "heartbeat_ms": 500, "retry_base_ms": 10, **settings}
        self.producer.configure(**settings)
        for payload in payloads:
            self.producer.push(payload)
        if seal:
            self.producer.seal()
        else:
            self.producer.flush()

    def items(self, state: str) -> list[Any]:
        text = self.producer._call("GET", f"/items?state={state}")
        # A payload may be longer than what Python takes for an integer.
        found: list[Any] = json.loads(text, parse_int=lambda digits: int(digits[:20]))["items"]
        return found

    def leased(self, count: int = 1) -> None:
        until(f"{count} leased", lambda: self.producer.counts().leased >= count)

    def proxy(self, lose: Callable[[bytes], bool]) -> Proxy:
        proxy = Proxy(self.server, lose)
        self.addCleanup(proxy.close)
        return proxy


__all__ = ["DOUBLE", "Program", "Proxy", "SLOW", "Server", "TOKEN", "WithServer", "runs", "signal", "until"]
