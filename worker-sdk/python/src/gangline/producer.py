"""A producer: fills a queue, seals it, waits for its end, reads its results."""

from __future__ import annotations

import http.client
import json
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Optional, Union

from . import _limits as limits
from ._http import STREAM_SECONDS, Address, Connection
from ._retry import Backoff
from ._wire import Certificate, Counts, Raw, certificate_of, new_item
from .errors import GanglineError, ProtocolError, Unavailable

log = logging.getLogger("gangline")

BATCH_BYTES = 4 << 20
"""Bytes of items after which a batch goes although it has fewer than 1,000."""
SEGMENT_BYTES = 1 << 20
"""Bytes of lines after which a segment of a stream goes."""
SEGMENT_NAME_BYTES = 16
"""What the number of a segment may add to a stream's key."""
WAIT_SECONDS = 20.0
RETRY_FIRST = 0.05
RETRY_LONGEST = 5.0

Source = Union[Iterable[Any], Callable[[], Iterable[Any]]]


@dataclass(frozen=True)
class PushReport:
    """What became of pushed items."""

    added: int
    duplicates: int
    """Those that were there before, by their key."""
    sealed: bool


@dataclass(frozen=True)
class Result:
    """One recorded result."""

    id: int
    key: Optional[str]
    result: Any
    attempt: int
    took_ms: int
    raw: str
    """The result as JSON text, exactly as the worker gave it."""


class Producer:
    """A queue, seen by whoever fills it. Threads may share it for ``push`` and ``flush``; one call
    goes out at a time.

    Every call is sent again until it is answered: for at most ``patience`` seconds without a sign
    of the service, then ``Unavailable`` is raised. A repeat changes nothing, since every push
    carries an Idempotency-Key. A service that is short of memory or disk says how long to wait,
    and the producer waits.

    Items go in batches of 1,000 or 4 MiB; ``push`` waits while a full batch is sent. With
    ``linger`` a batch that is not full goes after so many seconds, from a thread of its own; what
    goes wrong there is raised by the next call.

    As a context manager it sends what is buffered at its end.
    """

    def __init__(self, url: str, queue: str, token: Optional[str] = None, *,
                 patience: float = 120.0, linger: Optional[float] = None) -> None:
        if linger is not None and not 0 <= linger <= 3_600:
            raise ValueError(f"linger must be 0 to 3600 s, got {linger!r}")
        self._address = Address(url, token)
        self._connection = Connection(self._address)
        self._path = f"/v1/queues/{limits.queue_name(queue)}"
        self.queue = queue
        self._patience = patience
        self._items: list[str] = []
        self._bytes = 0
        self._batch: Optional[tuple[str, bytes, int]] = None
        self._added = 0
        self._duplicates = 0
        self._linger = linger
        self._lock = threading.RLock()
        self._lingering: Optional[threading.Timer] = None
        self._failed: Optional[GanglineError] = None

    @classmethod
    def from_env(cls, queue: Optional[str] = None, **settings: Any) -> Producer:
        """Takes ``GANGLINE_URL``, ``GANGLINE_TOKEN`` and, without ``queue``, ``GANGLINE_QUEUE``
        from the environment. Raises ``ValueError`` where one is missing."""
        url = os.environ.get("GANGLINE_URL")
        queue = queue or os.environ.get("GANGLINE_QUEUE")
        if not url:
            raise ValueError("GANGLINE_URL is not set")
        if not queue:
            raise ValueError("GANGLINE_QUEUE is not set")
        settings.setdefault("token", os.environ.get("GANGLINE_TOKEN"))
        return cls(url, queue, **settings)

    def __enter__(self) -> Producer:
        return self

    def __exit__(self, kind: Optional[type[BaseException]], error: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        try:
            if error is None:
                self.flush()
        finally:
            self.close()

    def close(self) -> None:
        """Closes the connection; a later call opens another. What is buffered stays so, and no
        timer sends it."""
        with self._lock:
            self._disarm()
            self._connection.close()

    def configure(self, *, max_attempts: Optional[int] = None, session_ms: Optional[int] = None,
                  heartbeat_ms: Optional[int] = None, retry_base_ms: Optional[int] = None,
                  retry_cap_ms: Optional[int] = None, max_leased: Optional[int] = None,
                  retention_ms: Optional[int] = None,
                  seal_when_idle_ms: Optional[int] = None, time_limit_ms: Optional[int] = None,
                  results_bytes_max: Optional[int] = None) -> None:
        """Makes the queue if there is none, and changes the settings that are given; those in
        ``_ms`` are milliseconds. 0 switches off the last three."""
        settings = {"maxAttempts": max_attempts, "sessionMs": session_ms,
                    "heartbeatMs": heartbeat_ms, "retryBaseMs": retry_base_ms,
                    "retryCapMs": retry_cap_ms, "maxLeased": max_leased,
                    "retentionMs": retention_ms, "sealWhenIdleMs": seal_when_idle_ms,
                    "timeLimitMs": time_limit_ms, "resultsBytesMax": results_bytes_max}
        given = {name: value for name, value in settings.items() if value is not None}
        self._call("PUT", "", json.dumps(given).encode())

    def push(self, payload: object, *, key: Optional[str] = None, priority: Optional[int] = None,
             delay: Optional[float] = None, time_limit: Optional[float] = None,
             max_attempts: Optional[int] = None, traceparent: Optional[str] = None) -> None:
        """Adds an item to the batch, which is sent when it is full, by ``flush``, ``seal``, or
        the end of the ``with`` block.

        ``payload`` is any JSON value of at most 1 MiB, or a ``RawJson``. A second item of the
        same ``key`` is not taken. ``priority`` is 0 to 9, higher first. ``delay`` is how long the
        item is not handed out, ``time_limit`` how long one attempt may take, in seconds.
        """
        self._add(new_item(payload, key, priority, delay, time_limit, max_attempts, traceparent))

    def _add(self, text: str) -> None:
        with self._lock:
            self._raise_failed()
            self._items.append(text)
            self._bytes += len(text)
            if len(self._items) >= limits.PUSH_ITEMS_MAX or self._bytes >= BATCH_BYTES:
                self.flush()
            elif self._linger is not None and self._lingering is None:
                self._lingering = threading.Timer(self._linger, self._lingered)
                self._lingering.daemon = True
                self._lingering.start()

    def _lingered(self) -> None:
        with self._lock:
            if self._lingering is not threading.current_thread():
                return  # Its batch has gone.
            try:
                self.flush()
            except GanglineError as error:
                self._failed = error

    def _disarm(self) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None

    def _raise_failed(self) -> None:
        failed, self._failed = self._failed, None
        if failed is not None:
            raise failed

    def flush(self) -> PushReport:
        """Sends what is buffered; returns the totals of all batches of this producer so far.

        After ``Unavailable`` the batch is kept, and goes with the next flush under its old key.
        """
        with self._lock:
            self._disarm()
            self._raise_failed()
            return self._flush()

    def _flush(self) -> PushReport:
        sealed = False
        while self._batch is not None or self._items:
            if self._batch is None:
                body = f'{{"items":[{",".join(self._items)}]}}'.encode()
                self._batch = (uuid.uuid4().hex, body, len(self._items))
                self._items, self._bytes = [], 0
            key, body, _ = self._batch
            try:
                reply = json.loads(self._call("POST", "/items", body, {"idempotency-key": key}))
            except Unavailable:
                raise
            except GanglineError:
                self._batch = None  # It would be refused again.
                raise
            self._batch = None
            self._added += reply["added"]
            self._duplicates += reply["duplicates"]
            sealed = reply["sealed"]
        return PushReport(self._added, self._duplicates, sealed)

    def push_stream(self, payloads: Source, idempotency_key: str, *, seal: bool = False,
                    key: Optional[Callable[[Any], str]] = None) -> PushReport:
        """Pushes any number of payloads as one stream; ``key`` makes an item's key of its
        payload, ``seal`` seals the queue at the proper end.

        It goes in segments of 1 MiB, each sent again until it is answered, so that the stream goes
        on where it stopped, here or in a later run of the program with the same payloads under the
        same ``idempotency_key`` (1 to 240 printable ASCII characters, kept for 24 hours): the
        service skips what it has, and refuses another beginning. ``payloads`` is anything that can
        be iterated over, or a function that returns it; one segment is kept in memory.
        """
        wanted = limits.IDEMPOTENCY_KEY_BYTES_MAX - SEGMENT_NAME_BYTES
        if not (1 <= len(idempotency_key) <= wanted and idempotency_key.isascii()
                and idempotency_key.isprintable()):
            raise ValueError(f"idempotency_key must be 1 to {wanted} printable ASCII characters, "
                             f"got {idempotency_key[:wanted]!r}")
        self.flush()
        added = duplicates = 0
        sealed = False
        source = payloads() if callable(payloads) else payloads
        for number, (body, is_last) in enumerate(_segments(source, key)):
            name = idempotency_key if number == 0 else f"{idempotency_key}/{number}"
            text = self._call("POST", f"/items?seal={'true' if seal and is_last else 'false'}", body,
                              {"content-type": "application/x-ndjson", "idempotency-key": name},
                              timeout=STREAM_SECONDS)
            reply = json.loads(text)
            added += reply["added"]
            duplicates += reply["duplicates"]
            sealed = reply["sealed"]
        return PushReport(added, duplicates, sealed)

    def seal(self) -> None:
        """Sends what is buffered, and says that no more items come from outside."""
        self.flush()
        self._call("POST", "/seal")

    def stop(self, *, success: bool, reason: Optional[str] = None) -> None:
        """Ends the queue before it is drained; what is left is abandoned."""
        body: dict[str, Any] = {"outcome": "success" if success else "failure"}
        if reason is not None:
            body["reason"] = reason
        self._call("POST", "/stop", json.dumps(body).encode())

    def status(self) -> dict[str, Any]:
        """Returns the queue's status, as the service shows it."""
        status: dict[str, Any] = json.loads(self._call("GET", ""))
        return status

    def counts(self) -> Counts:
        """Returns how many items are where."""
        counts = self.status()["counts"]
        return Counts(**{name: counts[name] for name in Counts.__dataclass_fields__})

    def wait(self, timeout: Optional[float] = None) -> Certificate:
        """Waits until the queue is over, and returns the proof.

        Raises ``TimeoutError`` after ``timeout`` seconds.
        """
        self.flush()
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            hold = WAIT_SECONDS
            if until is not None:
                hold = max(min(hold, until - time.monotonic()), 0.0)
            path = f"/wait?until=over&waitMs={int(hold * 1_000)}"
            status = json.loads(self._call("GET", path, hold=hold))
            if status.get("certificate"):
                return certificate_of(status["certificate"])
            if until is not None and time.monotonic() >= until:
                raise TimeoutError(f"queue {self.queue} is not over after {timeout:g} s: "
                                   f"{status['counts']}")

    def results(self, *, follow: bool = False, cursor: int = 0) -> Iterator[Result]:
        """Yields results in the order of their recording, after the first ``cursor`` ones; with
        ``follow`` until the queue is over. A stream that breaks off is continued."""
        connection = Connection(self._address)
        path = f"{self._path}/results"
        retry = _Retry(self._patience)
        try:
            while True:
                query = f"?cursor={cursor}&follow={'true' if follow else 'false'}"
                over = not follow or self.status()["phase"] in ("drained", "stopped")
                try:
                    for line in _lines_of(connection, path + query):
                        cursor += 1
                        retry.answered()
                        yield _result_of(line)
                except Unavailable as error:
                    retry.wait(error)
                    continue
                if over:
                    return
        finally:
            connection.close()

    def _call(self, method: str, call: str, body: Optional[bytes] = None,
              headers: Optional[dict[str, str]] = None, *, hold: float = 0.0,
              timeout: Optional[float] = None) -> str:
        """Sends a call until it is answered."""
        retry = _Retry(self._patience)
        arrived = False
        with self._lock:
            while True:
                try:
                    return self._connection.call(method, self._path + call, body, hold=hold,
                                                 headers=headers, timeout=timeout)
                except Unavailable as error:
                    # Whether any try has arrived is what its sender wants to know.
                    arrived = error.arrived = arrived or error.arrived
                    retry.wait(error)


class _Retry:
    """The waits between tries, and how many seconds of them are enough."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._backoff = Backoff(RETRY_FIRST, RETRY_LONGEST)
        self._since: Optional[float] = None

    def answered(self) -> None:
        self._since = None
        self._backoff.answered()

    def wait(self, error: Unavailable) -> None:
        """Waits, or raises ``error`` when the service has been away for too long."""
        now = time.monotonic()
        if self._since is None or error.retry_after is not None:
            # A service that asks for patience is there.
            self._since = now
        if now - self._since >= self._patience:
            raise error
        log.info("%s; trying again", error)
        time.sleep(self._backoff.after(error))


def _segments(payloads: Iterable[Any],
              key: Optional[Callable[[Any], str]]) -> Iterator[tuple[bytes, bool]]:
    """Yields the lines of payloads in segments, and whether it is the last one."""
    lines: list[bytes] = []
    size = 0
    for payload in payloads:
        if size >= SEGMENT_BYTES:
            yield b"".join(lines), False
            lines, size = [], 0
        line = new_item(payload, key(payload) if key is not None else None).encode() + b"\n"
        lines.append(line)
        size += len(line)
    yield b"".join(lines), True


def _lines_of(connection: Connection, path: str) -> Iterator[str]:
    response = connection.open("GET", path)
    rest = b""
    try:
        while True:
            # Not readline: it takes a stream that was cut for one that has ended.
            part = response.read1(1 << 16)
            if not part:
                break
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                yield line.decode()
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        raise Unavailable(str(error) or type(error).__name__) from error


def _result_of(line: str) -> Result:
    members = Raw(line).members()
    try:
        return Result(id=members["id"].decode(),
                      key=members["key"].decode() if "key" in members else None,
                      result=members["result"].decode(), attempt=members["attempt"].decode(),
                      took_ms=members["tookMs"].decode(), raw=members["result"].text)
    except KeyError as error:
        raise ProtocolError(f"a result without {error}") from error
