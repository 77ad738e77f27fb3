"""The heartbeats' process: a handler may hold the interpreter's lock for minutes in C code, and
its session must live on meanwhile.

Reads lines of JSON from stdin: first the setting (address, token, queue, worker), then, at each
change, the session to keep alive or ``null``. Writes what it hears as lines to stdout. It ends
with its parent: at the end of stdin, or when its parent is another process.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from typing import Any, Optional

from ._http import Address, Connection
from ._retry import Backoff
from .errors import GanglineError

NEWS_SECONDS = 0.2
"""How long after news the next heartbeat goes out, unless the worker has acted on them before."""
RETRY_FIRST = 0.1
RETRY_LONGEST = 0.4
PARENT_SECONDS = 0.25
PROGRESS_MAX = 1_024
"""Items of which one heartbeat says how far the work is."""


class _Wanted:
    """Which session to keep alive, as last told."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.beat: Optional[dict[str, Any]] = None
        self.count = 0
        # How far the work is with items, the newest of each.
        self.progress: dict[int, dict[str, Any]] = {}

    def note(self, progress: list[dict[str, Any]]) -> None:
        """Keeps what the next heartbeat takes along."""
        with self.changed:
            self.progress.update((said["id"], said) for said in progress)

    def take(self) -> list[dict[str, Any]]:
        """Takes what one heartbeat may carry; the rest goes with the next."""
        with self.changed:
            ids = list(self.progress)[:PROGRESS_MAX]
            return [self.progress.pop(number) for number in ids]

    def put_back(self, progress: list[dict[str, Any]]) -> None:
        """Keeps what was not delivered, unless something newer was said of an item."""
        with self.changed:
            for said in progress:
                self.progress.setdefault(said["id"], said)

    def set(self, beat: Optional[dict[str, Any]], connection: Connection) -> None:
        with self.changed:
            self.beat = beat
            self.count += 1
            self.changed.notify_all()
        # A session that has changed wants its own heartbeat now.
        connection.cut()


def main() -> None:
    """Runs until the parent has gone."""
    for told in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # They reach a whole process group; the worker beats on until it has left.
        signal.signal(told, signal.SIG_IGN)
    setting = json.loads(sys.stdin.readline())
    threading.Thread(target=_watch, args=(setting["parent"],), daemon=True).start()
    connection = Connection(Address(setting["url"], setting["token"]))
    wanted = _Wanted()
    threading.Thread(target=_beat, args=(setting, wanted, connection), daemon=True).start()
    for line in sys.stdin:
        told = json.loads(line)
        if told is not None and "progress" in told:
            wanted.note(told["progress"])
        else:
            wanted.set(told, connection)
    os._exit(0)


def _watch(parent: int) -> None:
    stop = threading.Event()
    while os.getppid() == parent:
        stop.wait(PARENT_SECONDS)
    os._exit(0)


def _beat(setting: dict[str, Any], wanted: _Wanted, connection: Connection) -> None:
    path = f"/v1/queues/{setting['queue']}/exchange"
    backoff = Backoff(RETRY_FIRST, RETRY_LONGEST)
    while True:
        with wanted.changed:
            wanted.changed.wait_for(lambda: wanted.beat is not None)
            beat, count = wanted.beat, wanted.count
        if beat is None:
            continue
        request = {"worker": setting["worker"], "session": beat["session"],
                   "heartbeat": {"holdMs": beat["interval_ms"]}}
        if beat["uid"] is not None:
            request["uid"] = beat["uid"]
        said = wanted.take()
        if said:
            request["progress"] = said
        try:
            reply = json.loads(connection.call("POST", path, json.dumps(request).encode(),
                                               hold=beat["interval_ms"] / 1_000))
            heard = {name: reply[name] for name in ("over", "sessionEnd", "lost") if reply.get(name)}
            backoff.answered()
            pause = NEWS_SECONDS if heard else 0.0
        except GanglineError as error:
            # The worker's own calls meet the same, and judge it.
            wanted.put_back(said)
            heard, pause = None, backoff.after(error)
        except ValueError:
            heard, pause = None, backoff.draw()
        if heard:
            try:
                print(json.dumps({"session": beat["session"], **heard}), flush=True)
            except OSError:
                os._exit(0)
        if pause:
            # The worker acts on news and tells otherwise.
            with wanted.changed:
                wanted.changed.wait_for(lambda: wanted.count != count,  # noqa: B023
                                        timeout=pause)


if __name__ == "__main__":
    main()
