"""SIGTERM and SIGINT, heard even while the main thread is in C code."""

from __future__ import annotations

import logging
import os
import queue
import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Optional

log = logging.getLogger("gangline")

TOLD = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """Calls what ``tell`` names with the signal's number, on a thread of its own; a signal that
    comes before that is kept. They are listened for before a session opens.

    Python runs signal handlers on the main thread between two of its instructions, which may be
    minutes away; the wakeup descriptor is written to at once.
    """

    def __init__(self) -> None:
        self._told: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._before: dict[int, Any] = {}
        self._wakeup = -1
        if threading.current_thread() is not threading.main_thread():
            log.warning("a worker outside of the main thread cannot listen for SIGTERM")
            return
        self._read, self._write = socket.socketpair()
        self._write.setblocking(False)
        for number in TOLD:
            self._before[number] = signal.signal(number, self._ignore)
        self._wakeup = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._listen, name="gangline-signals", daemon=True).start()
        # What a handler forks must end at SIGTERM as always, and must not tell it to us: not
        # even one that comes before the child has put back what was before.
        self._masks = threading.local()
        os.register_at_fork(before=self._hold, after_in_parent=self._let,
                            after_in_child=self._after_fork)

    def tell(self, told: Callable[[int], None]) -> None:
        """Says what to call."""
        def run() -> None:
            while True:
                number = self._told.get()
                if number == 0:
                    return
                told(number)

        threading.Thread(target=run, name="gangline-told", daemon=True).start()

    @staticmethod
    def _ignore(number: int, frame: Optional[FrameType]) -> None:
        """Being there keeps the default action away."""

    def _listen(self) -> None:
        while True:
            data = self._read.recv(64)
            if not data:
                self._read.close()
                self._told.put(0)
                return
            for number in data:
                if number in TOLD:
                    self._told.put(number)

    def stop(self) -> None:
        """Puts back what was before; must be called on the main thread to have an effect."""
        if not self._before or threading.current_thread() is not threading.main_thread():
            return
        self._put_back()
        self._write.close()

    def _hold(self) -> None:
        if self._before:
            self._masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, TOLD)

    def _let(self) -> None:
        before = getattr(self._masks, "before", None)
        if before is not None:
            self._masks.before = None
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _after_fork(self) -> None:
        self._put_back()
        self._let()

    def _put_back(self) -> None:
        if self._before:
            signal.set_wakeup_fd(self._wakeup)
            for number, handler in self._before.items():
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)
            self._before = {}
