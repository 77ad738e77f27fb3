"""What runs handlers: threads, processes, and threads that take whole batches."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any, Optional, Protocol, Union

from ._pump import End, Pump
from .errors import AlreadySettled
from .item import Item, Leased, Progress, Verdict

log = logging.getLogger("gangline")

Handler = Callable[[Item], Any]
BatchHandler = Callable[[Sequence[Item]], Optional[Sequence[Any]]]


class Hands(Protocol):
    """What runs handlers."""

    def start(self, pump: Pump) -> None:
        """Begins to take items."""

    def overtime(self, item: Item) -> None:
        """Gives up an item that heeds neither its time limit nor its cancellation."""

    def stop(self) -> None:
        """Ends what can be ended."""


def call(handler: Handler, item: Item) -> None:
    """Runs a handler; whatever comes of it settles the item."""
    try:
        try:
            result = handler(item)
        except BaseException as error:
            # Also SystemExit: a handler's wish to exit must not take the worker along.
            if not item.settled:
                item.fail(error)
            return
        _finish(item, result)
    except AlreadySettled:
        pass


def _finish(item: Item, result: object) -> None:
    if item.settled:
        return
    if isinstance(result, BaseException):
        # What a batch handler returns for an item that has failed.
        item.fail(result)
        return
    try:
        item.done(result)
    except (TypeError, ValueError, RecursionError) as error:
        # The next attempt would return the like.
        item.dead(f"the result: {error}")


def give_up(item: Item) -> None:
    """Settles an item whose handler does not end."""
    limit_ms = item._leased.time_limit_ms
    try:
        item.retry(f"the time limit of {limit_ms} ms is over")
    except AlreadySettled:
        pass


class Threads:
    """So many threads, each with one item."""

    def __init__(self, handler: Handler, count: int) -> None:
        self._handler = handler
        self._count = count
        self._pump: Optional[Pump] = None

    def start(self, pump: Pump) -> None:
        self._pump = pump
        for _ in range(self._count):
            self._add(pump)

    def _add(self, pump: Pump) -> None:
        threading.Thread(target=self._run, args=(pump,), name="gangline-handler",
                         daemon=True).start()

    def _run(self, pump: Pump) -> None:
        while True:
            item = pump.take()
            if item is None:
                return
            call(self._handler, item)
            if item._given_up:
                return  # Another thread has taken this one's place.

    def overtime(self, item: Item) -> None:
        # A thread cannot be ended; it is left behind, and another takes its place.
        log.warning("%r does not heed its time limit; its thread is left behind", item)
        item._given_up = True
        give_up(item)
        if self._pump is not None:
            self._add(self._pump)

    def stop(self) -> None:
        pass


class Batches:
    """Threads that each take many items at once."""

    def __init__(self, handler: BatchHandler, size: int, max_wait: float, count: int) -> None:
        self._handler = handler
        self._size = size
        self._max_wait = max_wait
        self._count = count

    def start(self, pump: Pump) -> None:
        for _ in range(self._count):
            threading.Thread(target=self._run, args=(pump,), name="gangline-handler",
                             daemon=True).start()

    def _run(self, pump: Pump) -> None:
        while True:
            item = pump.take()
            if item is None:
                return
            batch = [item]
            until = time.monotonic() + self._max_wait
            while len(batch) < self._size:
                item = pump.take(until)
                if item is None:
                    break
                batch.append(item)
            self._call(batch)

    def _call(self, batch: list[Item]) -> None:
        try:
            results = self._handler(batch)
            if results is not None and len(results) != len(batch):
                raise ValueError(f"the batch handler must return one result an item: "
                                 f"{len(batch)} items, {len(results)} results")
        except BaseException as error:
            for item in batch:
                if not item.settled:
                    item.fail(error)
            return
        for at, item in enumerate(batch):
            if results is not None:
                _finish(item, results[at])
            elif not item.settled:
                item.retry("the batch handler returned no results and did not settle the item")

    def overtime(self, item: Item) -> None:
        """A batch is one call: the service ends the one lease, the others go on."""

    def stop(self) -> None:
        pass


class Processes:
    """So many processes, each with one item: handlers that hold the interpreter's lock run beside
    each other, and one that crashes takes nothing along."""

    def __init__(self, handler: Handler, count: int) -> None:
        if getattr(multiprocessing.current_process(), "_inheriting", False):
            # This is such a process, which runs the program's top level to find the handler.
            raise RuntimeError('the start of the program must stand under '
                               '`if __name__ == "__main__":`')
        try:
            pickle.dumps(handler)
        except Exception as error:
            raise TypeError("a handler for processes must be a function at the top level of a "
                            f"module: {error}") from error
        self._handler = handler
        self._slots = [_Slot(handler) for _ in range(count)]

    def start(self, pump: Pump) -> None:
        for slot in self._slots:
            threading.Thread(target=slot.run, args=(pump,), name="gangline-handler",
                             daemon=True).start()

    def overtime(self, item: Item) -> None:
        give_up(item)
        for slot in self._slots:
            slot.kill_if(item)

    def stop(self) -> None:
        for slot in self._slots:
            slot.kill()


class _Slot:
    """One process, started again when it has died."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._lock = threading.Lock()
        self._stopped = False
        self._item: Optional[Item] = None
        self._process: Any = None
        self._pipe: Optional[Connection] = None

    def run(self, pump: Pump) -> None:
        try:
            while self._begin(pump):
                item = pump.take()
                if item is None:
                    break
                self._work(item)
        except Exception as error:
            log.exception("cannot run handlers in a process")
            with pump.news:
                pump._finish(End(2, f"cannot run handlers in a process: {error}"))
        finally:
            self.kill()

    def _begin(self, pump: Pump) -> bool:
        """Sees to it that there is a process."""
        with self._lock:
            if self._stopped:
                return False
            if self._pipe is not None:
                return True
            context = multiprocessing.get_context("spawn")
            pipe, theirs = context.Pipe()
            self._process = context.Process(target=_serve,
                                            args=(theirs, self._handler, os.getpid()))
            self._process.start()
            theirs.close()
            self._pipe = pipe
        try:
            pipe.recv()
        except (EOFError, OSError):
            with pump.news:
                if not self._stopped:
                    pump._finish(End(2, "the handlers' process does not start; is the program's "
                                        "start under `if __name__ == \"__main__\":`?"))
            return False
        return True

    def _work(self, item: Item) -> None:
        pipe = self._pipe
        assert pipe is not None, "it has begun"
        self._item = item
        item._on_cancel = self._cancel
        try:
            with self._lock:
                pipe.send(item._leased)
            if item.cancelled:
                self._cancel()
            while True:
                said: Union[Verdict, Progress, None] = pipe.recv()
                if said is None:
                    return
                if isinstance(said, Progress):
                    item._report(said)
                else:
                    item._end(said)
        except AlreadySettled:
            self._lose()
        except (EOFError, OSError):
            text = self._lose()
            if not item.settled:
                try:
                    item.retry(text)
                except AlreadySettled:
                    pass
        finally:
            self._item = None

    def _cancel(self) -> None:
        with self._lock:
            if self._pipe is not None:
                try:
                    self._pipe.send("cancel")
                except OSError:
                    pass

    def _lose(self) -> str:
        """Puts a process away that has died or must, and says how it ended."""
        with self._lock:
            process, pipe, self._pipe = self._process, self._pipe, None
        if pipe is not None:
            pipe.close()
        if process is None:
            return "the handler's process was ended"
        process.join(1.0)
        process.kill()
        process.join()
        code = process.exitcode
        if code is not None and code < 0:
            return f"the handler's process was ended by {signal.Signals(-code).name}"
        return f"the handler's process ended with exit code {code}"

    def kill_if(self, item: Item) -> None:
        if self._item is item:
            with self._lock:
                if self._process is not None:
                    self._process.kill()

    def kill(self) -> None:
        with self._lock:
            self._stopped = True
            if self._process is not None:
                self._process.kill()
                self._process.join()


def _serve(pipe: Connection, handler: Handler, parent: int) -> None:
    """The process of a slot: runs handlers until its parent has gone."""
    for told in (signal.SIGTERM, signal.SIGINT):
        # They reach the whole process group; the parent decides when handlers end.
        signal.signal(told, signal.SIG_IGN)
    _die_with(parent)
    inbox: queue.SimpleQueue[Leased] = queue.SimpleQueue()
    current: list[Item] = []
    lock = threading.Lock()

    def listen() -> None:
        while True:
            try:
                said = pipe.recv()
            except (EOFError, OSError):
                os._exit(0)
            if isinstance(said, Leased):
                inbox.put(said)
            else:
                for item in current:
                    item._cancel()

    def say(said: Union[Verdict, Progress]) -> None:
        with lock:
            pipe.send(said)

    with lock:
        pipe.send("ready")
    threading.Thread(target=listen, daemon=True).start()
    while True:
        item = Item(inbox.get(), say, say)
        current[:] = [item]
        call(handler, item)
        current.clear()
        with lock:
            pipe.send(None)


def _die_with(parent: int) -> None:
    """Ends this process with its parent, also while a handler holds the interpreter's lock."""
    if sys.platform == "linux":
        import ctypes

        pr_set_pdeathsig = 1
        try:
            ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
        except (OSError, AttributeError):
            pass  # The end of the pipe is the net.
    if os.getppid() != parent:
        os._exit(0)
