"""What a worker program gets: one leased item, and the ways to end its lease."""

from __future__ import annotations

import json
import math
import threading
import traceback as tracebacks
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Optional

from . import _limits as limits
from ._wire import encode, new_item
from .errors import AlreadySettled, Fatal, Permanent, RetryLater


@dataclass(frozen=True)
class Leased:
    """An item as the service hands it out."""

    id: int
    lease: int
    attempt: int
    key: Optional[str]
    time_limit_ms: Optional[int]
    traceparent: Optional[str]
    raw: str


@dataclass(frozen=True)
class Verdict:
    """How a lease ends, but for the lease's number, which may become newer meanwhile."""

    id: int
    outcome: str
    result: Optional[str] = None
    error: Optional[str] = None
    delay_ms: Optional[int] = None
    spawn: tuple[str, ...] = field(default=())
    stop: Optional[str] = None

    def wire(self, lease: int) -> str:
        """Returns the settle as JSON text."""
        fields: dict[str, Any] = {"id": self.id, "lease": lease, "outcome": self.outcome}
        if self.error is not None:
            fields["error"] = self.error
        if self.delay_ms is not None:
            fields["delayMs"] = self.delay_ms
        if self.stop is not None:
            fields["stop"] = self.stop
        text = json.dumps(fields)
        if self.spawn:
            text = f'{text[:-1]}, "spawn": [{",".join(self.spawn)}]}}'
        if self.result is not None:
            text = f'{text[:-1]}, "result": {self.result}}}'
        return text


@dataclass(frozen=True)
class Progress:
    """How far the work on an item is, but for the lease's number."""

    id: int
    fraction: Optional[float]
    text: Optional[str]

    def wire(self, lease: int) -> dict[str, Any]:
        """Returns it as it is sent."""
        fields: dict[str, Any] = {"id": self.id, "lease": lease}
        if self.fraction is not None:
            fields["fraction"] = self.fraction
        if self.text is not None:
            fields["text"] = self.text
        return fields


class Item:
    """One item, leased to this worker. It is settled once: by ``done``, ``retry``, ``dead``,
    ``release`` or ``stop``, or in a handler by what it returns or raises.

    As a context manager it turns an exception of its body into a retry, and the worker lives on::

        for item in worker:
            with item:
                item.done(work(item.payload))
    """

    def __init__(self, leased: Leased, settle: Callable[[Verdict], None],
                 report: Callable[[Progress], None]) -> None:
        self._leased = leased
        self._settle = settle
        self._report = report
        self._lock = threading.Lock()
        self._settled = False
        self._spawned: list[str] = []
        self._cancelled = threading.Event()
        self._on_cancel: Callable[[], None] = lambda: None
        self._payload: Any = None
        self._decoded = False
        self._given_up = False

    def __repr__(self) -> str:
        key = f" key={self.key!r}" if self.key is not None else ""
        return f"<gangline.Item {self.id}{key} attempt={self.attempt}>"

    @property
    def id(self) -> int:
        """The item's number in its queue."""
        return self._leased.id

    @property
    def key(self) -> Optional[str]:
        """What the producer calls it."""
        return self._leased.key

    @property
    def attempt(self) -> int:
        """Which try this is, from 1."""
        return self._leased.attempt

    @property
    def traceparent(self) -> Optional[str]:
        """W3C trace context of the producer."""
        return self._leased.traceparent

    @property
    def raw(self) -> str:
        """The payload as JSON text, exactly as the producer sent it."""
        return self._leased.raw

    @property
    def payload(self) -> Any:
        """The payload, decoded; integers of any size survive.

        Raises ``Permanent`` where Python cannot decode it: no other attempt could either.
        """
        if not self._decoded:
            try:
                self._payload = json.loads(self.raw)
            except (ValueError, RecursionError) as error:
                raise Permanent(f"the payload: {error}") from error
            self._decoded = True
        return self._payload

    @property
    def cancelled(self) -> bool:
        """Whether the result is wanted no more: the queue is over, the item was cancelled or is
        past its time limit, or the worker has to leave now."""
        return self._cancelled.is_set()

    def wait_cancelled(self, timeout: Optional[float] = None) -> bool:
        """Waits until ``cancelled``, for at most ``timeout`` seconds."""
        return self._cancelled.wait(timeout)

    def progress(self, fraction: Optional[float] = None, text: Optional[str] = None) -> None:
        """Says how far the work is: a fraction from 0 to 1, a short text, or both.

        People see it with the item and where it is asked what keeps a queue open. It goes with
        the next heartbeat, the newest only, so that it may be said as often as is convenient. Of
        a text the first 200 bytes are shown.
        """
        share = None
        if fraction is not None and not math.isnan(fraction):
            share = min(max(float(fraction), 0.0), 1.0)
        if text is not None:
            data = str(text).encode("utf-8", "replace")[:limits.PROGRESS_TEXT_BYTES_MAX]
            text = data.decode("utf-8", "ignore")
        if not self._settled:
            self._report(Progress(self.id, share, text))

    def _cancel(self) -> None:
        self._cancelled.set()
        self._on_cancel()

    @property
    def settled(self) -> bool:
        """Whether the item has been settled here."""
        return self._settled

    def done(self, result: object = None) -> None:
        """Records the result: any JSON value of at most 1 MiB, or a ``RawJson``.

        Returns at once; the result is delivered beside the work, and sent again until it is
        delivered. Raises ``ValueError`` or ``TypeError`` for what is no JSON value or too large.
        """
        self._end(self._done(result, None))

    def stop(self, result: object = None, *, success: bool = True) -> None:
        """Records the result, and stops the whole queue in that very step: what was looked for is
        found (or, with ``success=False``, the job cannot succeed any more)."""
        self._end(self._done(result, "success" if success else "failure"))

    def _done(self, result: object, stop: Optional[str]) -> Verdict:
        text = encode(result)
        count = len(text.encode())
        if count > limits.PAYLOAD_BYTES_MAX:
            raise ValueError(f"the result must be at most {limits.PAYLOAD_BYTES_MAX} bytes, "
                             f"got {count}")
        return Verdict(self.id, "done", result=text, spawn=tuple(self._spawned), stop=stop)

    def retry(self, error: object, *, delay: Optional[float] = None) -> None:
        """Says that the attempt has failed; the item is tried again after the queue's back-off,
        or after ``delay`` seconds."""
        self._end(Verdict(self.id, "retry", error=_tail(error),
                          delay_ms=limits.millis("delay", delay, 0, limits.DELAY_MS_MAX)))

    def dead(self, error: object, *, stop: bool = False) -> None:
        """Says that no attempt would end otherwise; ``stop`` ends the whole queue as failed."""
        self._end(Verdict(self.id, "dead", error=_tail(error), stop="failure" if stop else None))

    def release(self) -> None:
        """Gives the item back unworked; no attempt is counted."""
        self._end(Verdict(self.id, "release"))

    def spawn(self, payload: object, *, key: Optional[str] = None, priority: Optional[int] = None,
              delay: Optional[float] = None, time_limit: Optional[float] = None,
              max_attempts: Optional[int] = None) -> None:
        """Adds an item in the step that records this item's result; nothing happens unless it is
        done. ``delay`` and ``time_limit`` are in seconds. At most 1,024 an item."""
        if len(self._spawned) >= limits.SPAWN_ITEMS_MAX:
            raise ValueError(f"at most {limits.SPAWN_ITEMS_MAX} items may be spawned")
        self._spawned.append(new_item(payload, key, priority, delay, time_limit, max_attempts,
                                      self.traceparent))

    def fail(self, error: BaseException) -> None:
        """Settles by an exception: ``Permanent`` is dead, ``Fatal`` stops the queue as failed,
        ``RetryLater`` names its delay, anything else is a retry with the traceback's end."""
        if isinstance(error, Permanent):
            self.dead(error, stop=isinstance(error, Fatal))
        elif isinstance(error, RetryLater):
            self.retry(error, delay=error.delay)
        else:
            self.retry("".join(tracebacks.format_exception(
                type(error), error, error.__traceback__)))

    def __enter__(self) -> Item:
        return self

    def __exit__(self, kind: Optional[type[BaseException]], error: Optional[BaseException],
                 trace: Optional[TracebackType]) -> bool:
        if error is None:
            return False
        if not self._settled:
            self.fail(error)
        # Leaving the program is not a failure that the worker lives on after.
        return isinstance(error, Exception)

    def _end(self, verdict: Verdict) -> None:
        with self._lock:
            if self._settled:
                raise AlreadySettled(f"item {self.id} has been settled already")
            self._settled = True
        self._settle(verdict)


def _tail(error: object) -> str:
    """The end of a text, where the reason stands, cut as the service would cut it."""
    data = str(error).rstrip().encode("utf-8", "replace")
    return data[-limits.ERROR_BYTES_MAX:].decode("utf-8", "ignore")


__all__ = ["Item", "Leased", "Progress", "Verdict"]
