"""A worker: takes items from one queue until the queue is over.

A ``for`` loop over a worker is its simplest form; ``run`` runs a handler on threads or in
processes, ``run_batch`` hands many items at once.
"""

from __future__ import annotations

import inspect
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Optional, TypeVar

from . import _limits as limits
from ._hands import BatchHandler, Batches, Handler, Hands, Processes, Threads
from ._http import Address
from ._pump import CANCEL_SECONDS, Config, Pump
from ._pump import End as End
from ._signals import Signals
from .errors import AlreadySettled, NotSettled, WorkerExit
from .item import Item

log = logging.getLogger("gangline")

Plain = TypeVar("Plain", bound=Callable[..., Any])

HOOK_SECONDS = 1.0
"""How long a loop that was left waits to hear by which exception."""


class Worker:
    """A worker of one queue; it does nothing until it is iterated or run, which it is once.

    ``name``: a label that a person recognises; a later session of the same name ends an earlier
    one. ``concurrency``: how many items it works on at a time, 1 to 1,024. ``grace``: seconds it
    may take to leave when it is told to go. ``service_deadline``: seconds the service may be away
    before a worker with nothing in hand gives up. ``attempts``: after how many of its own
    failures an item is dead, where that is fewer than the queue says.
    """

    def __init__(self, url: str, queue: str, token: Optional[str] = None, *,
                 name: Optional[str] = None, concurrency: int = 1, grace: float = 30.0,
                 service_deadline: float = 120.0, attempts: Optional[int] = None) -> None:
        if name is None:
            name = f"{socket.gethostname()[:63]}.{os.getpid()}"
        if not 0 <= grace <= 1e6:
            raise ValueError(f"grace must be 0 to 1000000 s, got {grace!r}")
        if not 0 <= service_deadline <= 1e9:
            raise ValueError(f"service_deadline must be 0 to 1000000000 s, got {service_deadline!r}")
        if attempts is not None:
            limits.whole("attempts", attempts, 1, limits.ATTEMPTS_MAX)
        limits.whole("concurrency", concurrency, 1, limits.SESSION_LEASES_MAX)
        self._config = Config(
            address=Address(url, token), queue=limits.queue_name(queue),
            name=limits.short_text("worker name", name, limits.WORKER_NAME_BYTES_MAX),
            concurrency=concurrency, grace=grace, service_deadline=service_deadline,
            attempts=attempts)
        self._decorated: Optional[Callable[[], End]] = None

    @classmethod
    def from_env(cls, **settings: Any) -> Worker:
        """Sets a worker up by what its Pod, or ``gangline run``, puts into the environment:
        ``GANGLINE_URL``, ``GANGLINE_QUEUE``, ``GANGLINE_TOKEN``, ``GANGLINE_WORKER`` and
        ``GANGLINE_GRACE_SECONDS``; ``settings`` are those of the class and win.

        Ends the process with exit code 2 where they are missing or wrong.
        """
        try:
            return cls(**{**_environment(settings), **settings})
        except ValueError as error:
            log.error("%s", error)
            raise WorkerExit(End(2, str(error))) from error

    def __iter__(self) -> Iterator[Item]:
        """Yields items until the queue is over; each must be settled before the next.

        At the end of a queue that is drained, or stopped with success, the loop ends. At any
        other end ``WorkerExit`` ends the process with the code that tells it. An exception that
        leaves the loop makes the item a retry with that traceback, and the worker leaves; use
        ``with item:`` for a worker that lives on. A loop left by ``break`` leaves the queue,
        which is not over then.
        """
        signals = Signals()
        pump = Pump(self._config, self._config.concurrency)
        loop = _Loop(pump, signals)
        item: Optional[Item] = None
        try:
            while True:
                item = pump.take()
                if item is None:
                    break
                yield item
                if pump.hands == 1 and not item.settled:
                    text = (f"item {item.id} was not settled before the next was asked for: call "
                            "done, retry, dead, release or stop")
                    item.retry(text)
                    raise NotSettled(text)
            end = pump.wait()
        except BaseException:
            loop.left()
            raise
        loop.over()
        if end.code:
            raise WorkerExit(end)

    def handler(self, handler: Plain) -> Plain:
        """Decorates the function that ``run`` runs when it is called without one."""
        _check_plain(handler)
        self._hold(lambda: self.run_until_over(handler))
        return handler

    def batch(self, size: int, *, max_wait: float) -> Callable[[Plain], Plain]:
        """Decorates the function of many items that ``run`` runs when it is called without a
        handler; see ``run_batch``::

            @worker.batch(64, max_wait=0.05)
            def label(items):
                return model([item.payload for item in items])

            worker.run()
        """
        self._check_batch(size, max_wait)

        def decorate(handler: Plain) -> Plain:
            _check_plain(handler)
            self._hold(lambda: self.run_batch_until_over(size, max_wait, handler))
            return handler

        return decorate

    def _hold(self, run: Callable[[], End]) -> None:
        if self._decorated is not None:
            raise ValueError("the worker has a handler already")
        self._decorated = run

    def run(self, handler: Optional[Handler] = None, *, processes: bool = False) -> None:
        """Runs ``handler(item)`` on ``concurrency`` threads, or as many processes, until the
        queue is over. What it returns is the result; what it raises settles as ``Item.fail``
        says; it may also settle its item itself.

        Returns when the queue was drained or stopped with success; at any other end
        ``WorkerExit`` ends the process. Processes are started anew (not forked): the handler is
        a function at the top level of its module, and the program's start stands under
        ``if __name__ == "__main__":``.

        Without ``handler`` it runs the one that ``handler`` or ``batch`` has decorated.
        """
        if handler is not None:
            _exit(self.run_until_over(handler, processes=processes))
        elif processes:
            raise TypeError("processes want their handler as an argument of run")
        elif self._decorated is None:
            raise TypeError("run wants a handler, or one that was decorated before")
        else:
            _exit(self._decorated())

    def run_until_over(self, handler: Handler, *, processes: bool = False) -> End:
        """As ``run``, but returns how it went."""
        _check_plain(handler)
        count = self._config.concurrency
        hands: Hands = Processes(handler, count) if processes else Threads(handler, count)
        return self._run(hands, count)

    def run_batch(self, size: int, max_wait: float, handler: BatchHandler) -> None:
        """Runs ``handler(items)`` with up to ``size`` items at once; a batch that is not full
        goes after ``max_wait`` seconds. The handler returns one result an item, in order, or
        settles each item itself and returns ``None``. An exception in the place of a result settles
        its item as if it had been raised for that item alone."""
        _exit(self.run_batch_until_over(size, max_wait, handler))

    def run_batch_until_over(self, size: int, max_wait: float, handler: BatchHandler) -> End:
        """As ``run_batch``, but returns how it went."""
        _check_plain(handler)
        self._check_batch(size, max_wait)
        count = self._config.concurrency
        return self._run(Batches(handler, size, max_wait, count), size * count)

    def _check_batch(self, size: int, max_wait: float) -> None:
        limits.whole("size", size, 1, limits.SESSION_LEASES_MAX // self._config.concurrency)
        if not 0 <= max_wait <= 3_600:
            raise ValueError(f"max_wait must be 0 to 3600 s, got {max_wait!r}")

    def _run(self, hands: Hands, count: int) -> End:
        signals = Signals()
        pump = Pump(self._config, count, hands.overtime)
        signals.tell(pump.told)
        try:
            hands.start(pump)
            end = pump.wait()
            if end.certificate is not None and not pump.wait_idle(CANCEL_SECONDS):
                log.warning("handlers that do not heed their cancellation are left behind")
            return end
        finally:
            hands.stop()
            pump.stop()
            signals.stop()


class _Loop:
    """What is around a ``for`` loop: signals, the exception that leaves it, and an end under a
    body that does not heed it."""

    def __init__(self, pump: Pump, signals: Signals) -> None:
        self._pump = pump
        self._signals = signals
        signals.tell(pump.told)
        self._heard = threading.Event()
        self._outside = threading.Event()
        self._hook_before = sys.excepthook
        self._hook = self._hear
        sys.excepthook = self._hook
        threading.Thread(target=self._insist, name="gangline-loop", daemon=True).start()

    def over(self) -> None:
        """The worker has ended, and so has the loop."""
        self._outside.set()
        if sys.excepthook is self._hook:
            sys.excepthook = self._hook_before
        self._pump.stop()
        self._signals.stop()

    def left(self) -> None:
        """The loop was left before its end."""
        self._outside.set()
        self._signals.stop()
        if not self._pump.holding():
            self._go()
        else:
            # By which exception is known only when it has reached the top of the program. The
            # thread is no daemon: the interpreter waits for it at its end.
            threading.Thread(target=self._await_hook, name="gangline-leave").start()

    def _await_hook(self) -> None:
        self._heard.wait(HOOK_SECONDS)
        self._go()

    def _hear(self, kind: type[BaseException], error: BaseException,
              trace: Optional[TracebackType]) -> None:
        for item in self._pump.holding():
            if not item.settled:
                item.fail(error.with_traceback(trace))
        self._heard.set()
        self._hook_before(kind, error, trace)
        self._outside.set()
        self._go()

    def _go(self) -> None:
        for item in self._pump.holding():
            try:
                item.retry("the worker left its loop without settling the item")
            except AlreadySettled:
                pass
        self._pump.leave(End(0, "the loop was left"))
        self._pump.wait()
        self.over()

    def _insist(self) -> None:
        """Ends the process when the worker has ended and the loop's body goes on."""
        end = self._pump.wait()
        if end.certificate is not None:
            self._pump.wait_idle(CANCEL_SECONDS)
        if self._outside.is_set() or not self._pump.holding():
            return
        log.warning("the loop's body does not heed its cancellation; exiting with %s", end.code)
        self._pump.stop()
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):
                pass
        os._exit(end.code)


def _exit(end: End) -> None:
    if end.code:
        raise WorkerExit(end)


def _check_plain(handler: Any) -> None:
    if inspect.iscoroutinefunction(handler):
        raise TypeError("a handler is a plain function; call asyncio.run in it for one that is "
                        "async")


def _environment(settings: dict[str, Any]) -> dict[str, Any]:
    """The one place of the package that reads the environment, beside the producer's."""
    found: dict[str, Any] = {}
    for name, variable in (("url", "GANGLINE_URL"), ("queue", "GANGLINE_QUEUE"),
                           ("token", "GANGLINE_TOKEN"), ("name", "GANGLINE_WORKER"),
                           ("grace", "GANGLINE_GRACE_SECONDS")):
        value = os.environ.get(variable)
        if name in settings:
            continue
        if value:
            found[name] = value
        elif name in ("url", "queue"):
            raise ValueError(f"{variable} is not set")
    if "grace" in found:
        text = found["grace"]
        if not text.isdigit():
            raise ValueError(f"GANGLINE_GRACE_SECONDS must be a whole number of seconds, "
                             f"got {text!r}")
        found["grace"] = float(text)
    return found
