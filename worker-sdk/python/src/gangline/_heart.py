"""The worker's side of the heartbeats' process: starts it, tells it, hears it, ends it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any, Optional

log = logging.getLogger("gangline")

# The package's own __init__ would import all of it, which takes thrice as long.
_PROGRAM = """
import sys, types
sys.path.insert(0, sys.argv[1])
package = sys.modules["gangline"] = types.ModuleType("gangline")
package.__path__ = [sys.argv[2]]
from gangline._heartbeat import main
main()
"""


class Heart:
    """The process; one that dies is started again until ``stop``."""

    def __init__(self, setting: dict[str, Any], hear: Callable[[dict[str, Any]], None]) -> None:
        self._setting = {**setting, "parent": os.getpid()}
        self._hear = hear
        self._lock = threading.Lock()
        self._beat: Optional[dict[str, Any]] = None
        self._stopped = False
        self._child = self._start()
        threading.Thread(target=self._listen, name="gangline-heart", daemon=True).start()

    def set(self, beat: Optional[dict[str, Any]]) -> None:
        """Says which session to keep alive; none while it holds nothing."""
        with self._lock:
            if beat != self._beat:
                self._beat = beat
                self._tell(beat)

    def report(self, progress: list[dict[str, Any]]) -> None:
        """Says what the next heartbeat takes along."""
        with self._lock:
            self._tell({"progress": progress})

    def stop(self) -> None:
        """Ends the process."""
        with self._lock:
            if self._stopped:
                return
            self._stopped = True
            self._child.kill()
            self._child.wait()

    def _start(self) -> subprocess.Popen[str]:
        package = os.path.dirname(os.path.abspath(__file__))
        # -S and -E: the standard library is all it needs, and starts sooner without the rest.
        child = subprocess.Popen([sys.executable, "-S", "-E", "-c", _PROGRAM,
                                  os.path.dirname(package), package],
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._write(child, self._setting)
        if self._beat is not None:
            self._write(child, self._beat)
        return child

    def _tell(self, line: Optional[dict[str, Any]]) -> None:
        self._write(self._child, line)

    @staticmethod
    def _write(child: subprocess.Popen[str], line: Optional[dict[str, Any]]) -> None:
        assert child.stdin is not None, "it was started with a pipe"
        try:
            child.stdin.write(json.dumps(line) + "\n")
            child.stdin.flush()
        except OSError:
            pass  # It has died; its listener starts another, which is told anew.

    def _listen(self) -> None:
        while True:
            child = self._child
            assert child.stdout is not None, "it was started with a pipe"
            for line in child.stdout:
                self._hear(json.loads(line))
            code = child.wait()
            with self._lock:
                if self._stopped:
                    return
                log.warning("the heartbeats' process ended with %s; starting another", code)
            if threading.Event().wait(0.2):
                return
            with self._lock:
                if self._stopped:
                    return
                self._child = self._start()
