"""The calls of a worker: one session, its leases, its settles.

At most two calls are out at a time: one that asks for items, which the service may hold, and
beside it one that settles. Each has a thread. A call that was not answered is sent again as it
was, which the service takes for the same one. A third thread watches the deadlines. All state
is under one lock; no call is made while it is held.
"""

from __future__ import annotations

import json
import logging
import math
import secrets
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Optional

from . import _limits as limits
from ._heart import Heart
from ._http import Address, Connection
from ._retry import Backoff
from ._wire import Certificate, Raw, certificate_of
from .errors import GanglineError, ProtocolError, Unauthorized, Unavailable
from .item import Item, Leased, Progress, Verdict

log = logging.getLogger("gangline")

AHEAD_SECONDS = 0.1
"""Items are leased ahead only if they start within this time."""
AHEAD_HANDLER_SECONDS = 1.0
"""Nothing is leased ahead when handlers take longer than this."""
LINGER_SECONDS = 0.01
"""How long results of fast handlers wait for others, while there is more to start."""
LINGER_SETTLES = 64
HOLD_MS = 20_000
CALL_BYTES = 8 << 20
"""Bytes of settles after which a call takes no more; the rest goes with the next."""
LEAVE_SECONDS = 2.0
"""How much of the grace period is left for the last settles and the leave."""
CANCEL_SECONDS = 5.0
"""How long handlers may take to notice that their results are wanted no more."""
PROGRESS_SECONDS = 0.25
"""How often the heartbeats' process is told at most how far the work is."""
RETRY_FIRST = 0.05
RETRY_LONGEST = 2.0


@dataclass(frozen=True)
class End:
    """How a worker has ended; ``code`` is the exit code that tells it."""

    code: int
    """0 only when the whole job is done; 70 stopped with failure, 143 or 130 told to go, 69
    service lost, 77 credentials refused, 2 set up in a way that cannot work."""
    reason: str
    certificate: Optional[Certificate] = None


@dataclass(frozen=True)
class Config:
    """Settings of a worker, checked."""

    address: Address
    queue: str
    name: str
    concurrency: int
    grace: float
    service_deadline: float
    attempts: Optional[int]


class Running:
    """An item that is being worked on."""

    def __init__(self, item: Item, leased: Leased, now: float) -> None:
        self.item = item
        self.attempt = leased.attempt
        # The newest lease: when a session was lost, its items may come back to the next one
        # while their handlers still run.
        self.lease = leased.lease
        self.began = now
        self.limit_at = math.inf if leased.time_limit_ms is None else (
            now + leased.time_limit_ms / 1_000)
        self.overtime_at = self.limit_at + CANCEL_SECONDS

    def cancel(self) -> None:
        self.item._cancel()
        self.limit_at = math.inf


class Pump:
    """Everything of a worker but what runs its handlers."""

    def __init__(self, config: Config, hands: int,
                 overtime: Optional[Callable[[Item], None]] = None) -> None:
        self.config = config
        self.hands = hands
        self.end: Optional[End] = None
        self.news = threading.Condition(threading.RLock())
        self._overtime = overtime
        self._session: Optional[str] = None
        self._uid: Optional[str] = None
        self._interval_ms = 5_000
        self._nonce = secrets.randbits(63)
        self._number = 1
        self._ready: deque[Leased] = deque()
        self._running: dict[int, Running] = {}
        self._settles: deque[str] = deque()
        self._in_flight: list[str] = []
        # A settle that stops the queue is not answered yet: nothing more is begun.
        self._stopping = False
        self._started: list[int] = []
        self._progress: dict[int, Progress] = {}
        # When it is to be told, and when it was last.
        self._progress_at = math.inf
        self._progress_told = -math.inf
        self._handler_time: Optional[float] = None
        self._ask_at = 0.0
        self._settle_at = 0.0
        self._linger_until = 0.0
        self._backoff = Backoff(RETRY_FIRST, RETRY_LONGEST)
        self._asked_at = 0.0
        self._silent_since: Optional[float] = None
        self._leaving: Optional[End] = None
        self._cancel_at = math.inf
        self._go_at = math.inf
        self._asking = Connection(config.address)
        self._settling = Connection(config.address)
        self._path = f"/v1/queues/{config.queue}/exchange"
        self._heart = Heart({"url": config.address.url, "token": config.address.token,
                             "queue": config.queue, "worker": config.name}, self._hear)
        for run in (self._ask, self._settle, self._watch):
            threading.Thread(target=self._guarded, args=(run,), daemon=True,
                             name=f"gangline{run.__name__}").start()

    def _guarded(self, run: Callable[[], None]) -> None:
        """A thread that dies must end the worker, or it would wait forever."""
        try:
            run()
        except Exception as error:
            log.exception("the worker has met what it cannot go on after")
            with self.news:
                self._finish(End(2, f"{type(error).__name__}: {error}"))

    # What those who run handlers call.

    def take(self, until: float = math.inf) -> Optional[Item]:
        """Returns the next item, or none when the worker ends, or at ``until`` on the monotonic
        clock. Waits while all hands are full."""
        with self.news:
            while self.end is None:
                now = time.monotonic()
                may_begin = self._leaving is None and not self._stopping
                if may_begin and self._ready and len(self._running) < self.hands:
                    return self._start(self._ready.popleft(), now)
                if now >= until or (self._leaving is not None and until < math.inf):
                    return None
                self.news.wait(min(until - now, 3_600.0))
            return None

    def _start(self, leased: Leased, now: float) -> Item:
        item = Item(leased, self._note, self._said)
        self._running[leased.id] = Running(item, leased, now)
        self._started.append(leased.id)
        self._changed()
        return item

    def _said(self, progress: Progress) -> None:
        """Keeps the newest of each item for the next heartbeat."""
        with self.news:
            if progress.id not in self._running:
                return
            self._progress[progress.id] = progress
            if self._progress_at == math.inf:
                self._progress_at = self._progress_told + PROGRESS_SECONDS
                self.news.notify_all()

    def _tell_progress(self, now: float) -> None:
        said = [progress.wire(self._running[progress.id].lease)
                for progress in self._progress.values() if progress.id in self._running]
        self._progress.clear()
        self._progress_at, self._progress_told = math.inf, now
        self._heart.report(said)

    def _note(self, verdict: Verdict) -> None:
        """Puts down how an item has ended."""
        with self.news:
            running = self._running.get(verdict.id)
            if running is None:
                return  # Given up at its time limit, or the worker is at its end.
            del self._running[verdict.id]
            now = time.monotonic()
            took = now - running.began
            mean = self._handler_time
            # A quarter of the newest and three of the older ones.
            self._handler_time = took if mean is None else (mean * 3 + took) / 4
            failed = verdict.outcome in ("retry", "dead")
            if failed and self._leaving is not None and running.item.cancelled:
                # Cut short by us; that is no failure of the item.
                verdict = Verdict(verdict.id, "release")
            elif verdict.outcome == "retry" and self.config.attempts is not None \
                    and running.attempt >= self.config.attempts:
                verdict = Verdict(verdict.id, "dead", error=verdict.error)
            if verdict.stop is not None:
                self._stopping = True
                self._linger_until = 0.0
            elif not self._settles:
                fast = self._handler_time < LINGER_SECONDS
                self._linger_until = now + LINGER_SECONDS if fast else 0.0
            self._settles.append(verdict.wire(running.lease))
            self._changed()

    def holding(self) -> list[Item]:
        """Returns the items that are being worked on."""
        with self.news:
            return [running.item for running in self._running.values()]

    def leave(self, end: End, grace: Optional[float] = None) -> None:
        """Stops taking items, lets handlers end within the grace period, and leaves."""
        with self.news:
            if self._leaving is not None or self.end is not None:
                return
            self._leaving = end
            grace = self.config.grace if grace is None else grace
            self._cancel_at = time.monotonic() + max(grace - LEAVE_SECONDS, 0.0)
            self._go_at = self._cancel_at + LEAVE_SECONDS / 2
            self._ready.clear()
            self._asking.cut()
            self._changed()

    def told(self, number: int) -> None:
        """Acts on a signal."""
        interrupted = number == signal.SIGINT
        self.leave(End(130, "interrupted") if interrupted else End(143, "told to go"))

    def wait(self) -> End:
        """Waits for the end."""
        with self.news:
            while self.end is None:
                self.news.wait(3_600.0)
            return self.end

    def wait_idle(self, seconds: float) -> bool:
        """Waits until no handler runs, after the end."""
        with self.news:
            return self.news.wait_for(lambda: not self._running, timeout=seconds)

    # The calls.

    def _ahead(self) -> int:
        """How many items to have in hand beyond those that run."""
        mean = self._handler_time
        if mean is None or mean >= AHEAD_HANDLER_SECONDS:
            return 0
        a_hand = int(AHEAD_SECONDS / max(mean, 50e-6))
        return min(a_hand * self.hands, limits.SESSION_LEASES_MAX - self.hands)

    def _wanted(self) -> tuple[int, int]:
        """How many items to ask for now, and how many of them start at once."""
        ahead = self._ahead()
        free = max(self.hands - len(self._running), 0)
        wanted = max(free + ahead - len(self._ready), 0)
        # Asking for a few at a time would cost a call each; half of the store is early enough.
        low = free > len(self._ready) or (len(self._ready) * 2 <= ahead and ahead > 0)
        return (wanted if low else 0), max(free - len(self._ready), 0)

    def _request(self) -> dict[str, Any]:
        request: dict[str, Any] = {"worker": self.config.name, "nonce": self._nonce}
        if self._session is not None:
            request["session"] = self._session
        if self._uid is not None:
            request["uid"] = self._uid
        return request

    def _ask(self) -> None:
        while True:
            with self.news:
                while True:
                    if self.end is not None or self._leaving is not None:
                        return
                    now = time.monotonic()
                    wanted, starting = self._wanted()
                    if wanted and now >= self._ask_at:
                        break
                    self.news.wait(max(self._ask_at - now, 0.001) if wanted else 3_600.0)
                self._asked_at = now
                request = self._request()
                asked_as, started = self._session, self._started
                if asked_as is not None and started:
                    request["started"], self._started = started, []
                else:
                    started = []
                request["lease"] = {"number": self._number, "max": wanted, "starting": starting,
                                    "waitMs": HOLD_MS}
            try:
                text = self._asking.call("POST", self._path, json.dumps(request).encode(),
                                         hold=HOLD_MS / 1_000)
                with self.news:
                    self._asked(asked_as, text)
            except GanglineError as error:
                with self.news:
                    if asked_as == self._session:
                        self._started[:0] = started
                    self._ask_at = time.monotonic() + self._unanswered(error)

    def _ask_after(self, wait: dict[str, Any]) -> float:
        """Returns when to ask again after a call that brought nothing. One that was held may be
        followed at once; one that was not, at the time that the answer names, or once this worker
        has settled something."""
        now = time.monotonic()
        if now - self._asked_at >= HOLD_MS / 2_000:
            return 0.0
        return now + max(wait["retryMs"] / 1_000, RETRY_FIRST)

    def _asked(self, asked_as: Optional[str], text: str) -> None:
        lease = self._absorb(asked_as, text)
        self._ask_at = 0.0
        if lease is None:
            return
        if "items" in lease:
            self._number += 1
            for leased in map(_leased, lease["items"].elements()):
                running = self._running.get(leased.id)
                if running is not None:
                    running.lease = leased.lease
                elif self._leaving is not None:
                    self._settles.append(Verdict(leased.id, "release").wire(leased.lease))
                else:
                    self._ready.append(leased)
        else:
            self._ask_at = self._ask_after(lease["wait"].decode())
        self._changed()

    def _settle(self) -> None:
        while True:
            with self.news:
                while True:
                    if self.end is not None:
                        return
                    now = time.monotonic()
                    at = self._settle_at
                    if self._ready and len(self._settles) < LINGER_SETTLES:
                        at = max(at, self._linger_until)
                    if self._settles and now >= at:
                        break
                    self.news.wait(max(at - now, 0.001) if self._settles else 3_600.0)
                asked_as = self._session
                body, started = self._with_settles(self._request())
            try:
                text = self._settling.call("POST", self._path, body)
                with self.news:
                    self._absorb(asked_as, text)
                    self._in_flight = []
                    if not self._settles:
                        self._stopping = False
                    self._settle_at = self._ask_at = 0.0
                    self._changed()
            except GanglineError as error:
                with self.news:
                    self._settles.extendleft(reversed(self._in_flight))
                    self._in_flight = []
                    if asked_as == self._session:
                        self._started[:0] = started
                    self._settle_at = time.monotonic() + self._unanswered(error)

    def _with_settles(self, request: dict[str, Any]) -> tuple[bytes, list[int]]:
        """Takes settles for one call, which are in flight until it is answered, and tells which
        items have been started."""
        size = 0
        while self._settles and len(self._in_flight) < limits.SETTLES_MAX and size < CALL_BYTES:
            self._in_flight.append(self._settles.popleft())
            size += len(self._in_flight[-1])
        started: list[int] = []
        if self._session is not None and self._started:
            request["started"] = started = self._started
            self._started = []
        text = json.dumps(request)
        return f'{text[:-1]}, "settles": [{",".join(self._in_flight)}]}}'.encode(), started

    def _absorb(self, asked_as: Optional[str], text: str) -> Optional[dict[str, Raw]]:
        """Takes in what any answer may say; returns its lease part."""
        reply = Raw(text).members()
        self._silent_since = None
        self._backoff.answered()
        if "over" in reply:
            self._over(reply["over"].decode())
            return None
        if "heartbeatMs" in reply:
            self._interval_ms = int(reply["heartbeatMs"].decode())
        for settled in reply["settled"].decode() if "settled" in reply else ():
            if settled["status"] != "ok":
                log.info("the settle of item %s did not count: %s", settled["id"],
                         settled["status"])
        # An answer to an older session says nothing about the present one.
        if asked_as != self._session:
            return None
        if "uid" in reply:
            self._uid = reply["uid"].decode()
        if "sessionEnd" in reply:
            self._lose_session(reply["sessionEnd"].decode())
            return None
        if "session" in reply:
            self._session = reply["session"].decode()
        if "lost" in reply:
            self._lose(reply["lost"].decode())
        return reply["lease"].members() if "lease" in reply else None

    def _lose_session(self, end: str) -> None:
        """The handlers run on, and settle late under the next session."""
        log.warning("the session has ended (%s); opening a new one", end)
        self._session = None
        self._nonce = secrets.randbits(63)
        self._number = 1
        self._ready.clear()
        self._started = []
        self._changed()

    def _lose(self, lost: list[int]) -> None:
        """These items are somebody else's, or nobody's, by now."""
        for number in lost:
            running = self._running.get(number)
            if running is not None:
                running.cancel()
                continue
            for leased in list(self._ready):
                if leased.id == number:
                    self._ready.remove(leased)
                    # Says that we know; nothing else comes of it.
                    self._settles.append(Verdict(number, "release").wire(leased.lease))
        self._changed()

    def _hear(self, heard: dict[str, Any]) -> None:
        """What a heartbeat has heard."""
        with self.news:
            if self.end is not None:
                return
            if "over" in heard:
                self._over(heard["over"])
            elif heard["session"] == self._session:
                if "sessionEnd" in heard:
                    self._lose_session(heard["sessionEnd"])
                else:
                    self._lose(heard["lost"])

    def _unanswered(self, error: GanglineError) -> float:
        """Returns the seconds until the next try, or ends the worker."""
        if isinstance(error, Unavailable):
            if self._silent_since is None and self._leaving is None:
                log.warning("%s; trying again", error)
            if self._silent_since is None:
                self._silent_since = time.monotonic()
            self._changed()
            return self._backoff.after(error)
        if isinstance(error, Unauthorized):
            self._finish(End(77, str(error)))
        else:
            self._finish(End(2, str(error)))
        return 0.0

    # The end.

    def _over(self, wire: Any) -> None:
        certificate = certificate_of(wire)
        code = 0 if certificate.succeeded else 70
        self._finish(End(code, f"the queue is over: {certificate.phase}", certificate))

    def _finish(self, end: End) -> None:
        if self.end is not None:
            return
        self.end = end
        if end.code:
            log.error("worker %s ends with exit code %s: %s", self.config.name, end.code,
                      end.reason)
        for running in self._running.values():
            running.cancel()
        self.news.notify_all()

    def stop(self) -> None:
        """Lets go of connections and the heartbeats' process, after the end."""
        self._heart.stop()
        self._asking.cut()
        self._settling.cut()

    def _changed(self) -> None:
        """Says to the heart which session to keep alive, and wakes who waits."""
        holds = bool(self._running or self._ready or self._settles or self._in_flight)
        beat = None
        if holds and self._session is not None:
            beat = {"session": self._session, "uid": self._uid, "interval_ms": self._interval_ms}
        self._heart.set(beat)
        self.news.notify_all()

    def _watch(self) -> None:
        """Keeps the deadlines."""
        while True:
            overdue: list[Item] = []
            with self.news:
                if self.end is not None:
                    return
                now = time.monotonic()
                in_hand = bool(self._running or self._settles or self._in_flight)
                if self._leaving is not None and (not in_hand or now >= self._go_at):
                    break
                if now >= self._cancel_at:
                    self._cancel_at = math.inf
                    for running in self._running.values():
                        running.cancel()
                lost_at = math.inf
                if self._silent_since is not None and not in_hand:
                    lost_at = self._silent_since + self.config.service_deadline
                if now >= lost_at:
                    self._finish(End(69, f"the queue service at {self.config.address.url} did not "
                                         f"answer for {self.config.service_deadline:g} s"))
                    return
                if now >= self._progress_at:
                    self._tell_progress(now)
                wake_at = min(self._cancel_at, self._go_at, lost_at, self._progress_at)
                for running in list(self._running.values()):
                    if now >= running.limit_at:
                        running.cancel()
                    if now >= running.overtime_at:
                        running.overtime_at = math.inf
                        overdue.append(running.item)
                    wake_at = min(wake_at, running.limit_at, running.overtime_at)
                if not overdue:
                    self.news.wait(min(max(wake_at - now, 0.001), 3_600.0))
            for item in overdue:
                if self._overtime is not None:
                    self._overtime(item)
        self._say_leave()

    def _say_leave(self) -> None:
        """Delivers what is left and gives back the rest. Hearing that the queue is over makes
        this the better end."""
        with self.news:
            end = self._leaving
            assert end is not None, "it was looked at before"
            asked_as = self._session
            # What is in flight unanswered is said again: a repeat changes nothing.
            self._settles.extendleft(reversed(self._in_flight))
            self._in_flight = []
            body, _ = self._with_settles({**self._request(), "leave": True})
        try:
            text = Connection(self.config.address).call("POST", self._path, body,
                                                        timeout=LEAVE_SECONDS / 2)
            reply = Raw(text).members()
            if "over" in reply:
                with self.news:
                    self._over(reply["over"].decode())
        except GanglineError as error:
            if asked_as is not None:
                log.warning("could not take leave; the session ends by its deadline: %s", error)
        with self.news:
            self._finish(end)


def _leased(raw: Raw) -> Leased:
    members = raw.members()

    def optional(name: str) -> Any:
        return members[name].decode() if name in members else None

    try:
        return Leased(id=members["id"].decode(), lease=members["lease"].decode(),
                      attempt=members["attempt"].decode(), key=optional("key"),
                      time_limit_ms=optional("timeLimitMs"), traceparent=optional("traceparent"),
                      raw=members["payload"].text)
    except KeyError as error:
        raise ProtocolError(f"an item without {error}") from error
