"""JSON as it travels: payloads and results pass through byte for byte, never re-encoded."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Optional

from . import _limits as limits
from .errors import ProtocolError


class RawJson(str):
    """JSON text that is sent as it is, in place of a value that would be encoded.

    It is one JSON value; one that is none makes the call raise ``ValueError``.
    """

    __slots__ = ()


def encode(value: object) -> str:
    """Returns a value as JSON text. Integers of any size survive; NaN and infinities are none.

    Raises ``ValueError`` or ``TypeError`` for what JSON cannot say.
    """
    if isinstance(value, RawJson):
        json.loads(value, parse_int=str, parse_float=str, parse_constant=_no_constant)
        # A line break between tokens would end the line of a stream.
        return str(value).replace("\n", " ").replace("\r", " ")
    return json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON")


def new_item(payload: object, key: Optional[str] = None, priority: Optional[int] = None,
             delay: Optional[float] = None, time_limit: Optional[float] = None,
             max_attempts: Optional[int] = None, traceparent: Optional[str] = None) -> str:
    """Returns a new item as JSON text, checked; times are in seconds."""
    text = encode(payload)
    count = len(text.encode())
    if count > limits.PAYLOAD_BYTES_MAX:
        raise ValueError(f"payload must be 0 to {limits.PAYLOAD_BYTES_MAX} bytes, got {count}")
    fields: dict[str, object] = {}
    if key is not None:
        fields["key"] = limits.short_text("item key", key, limits.KEY_BYTES_MAX)
    if priority is not None:
        fields["priority"] = limits.whole("priority", priority, 0, limits.PRIORITY_MAX)
    if delay is not None:
        fields["delayMs"] = limits.millis("delay", delay, 0, limits.DELAY_MS_MAX)
    if time_limit is not None:
        fields["timeLimitMs"] = limits.millis("time_limit", time_limit, 1,
                                              limits.TIME_LIMIT_MS_MAX)
    if max_attempts is not None:
        fields["maxAttempts"] = limits.whole("max_attempts", max_attempts, 1, limits.ATTEMPTS_MAX)
    if traceparent is not None:
        fields["traceparent"] = limits.short_text("traceparent", traceparent,
                                                  limits.TRACEPARENT_BYTES_MAX)
    return with_raw(fields, "payload", text)


def with_raw(fields: dict[str, Any], name: str, text: str) -> str:
    """Returns an object of ``fields`` with one more that is JSON text already."""
    rest = json.dumps(fields)[1:-1]
    return f'{{{rest}{", " if rest else ""}"{name}":{text}}}'


_SPACE = re.compile(r"[ \t\r\n]*")
_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_SCALAR = re.compile(r"[^\s,\]}]+")
_STEP = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)


class Raw:
    """A JSON value as a slice of a text, which is decoded only where asked to.

    A payload may nest deeper or have longer numbers than Python's decoder takes; that must fail
    its own item, not the answer that it came in.
    """

    def __init__(self, text: str) -> None:
        self.text = text

    def decode(self) -> Any:
        return json.loads(self.text)

    def members(self) -> dict[str, Raw]:
        """Returns the members of an object."""
        found = {}
        at = self._open("{")
        while self.text[at:at + 1] != "}":
            end = _end(self.text, at)
            name = json.loads(self.text[at:end])
            at = self._expect(":", _skip(self.text, end))
            end = _end(self.text, at)
            found[name] = Raw(self.text[at:end])
            at = self._next(end, "}")
        return found

    def elements(self) -> list[Raw]:
        """Returns the elements of an array."""
        found = []
        at = self._open("[")
        while self.text[at:at + 1] != "]":
            end = _end(self.text, at)
            found.append(Raw(self.text[at:end]))
            at = self._next(end, "]")
        return found

    def _open(self, bracket: str) -> int:
        return self._expect(bracket, _skip(self.text, 0))

    def _expect(self, wanted: str, at: int) -> int:
        if self.text[at:at + 1] != wanted:
            raise ProtocolError(f"{wanted!r} expected in {self.text[:80]!r}")
        return _skip(self.text, at + 1)

    def _next(self, end: int, close: str) -> int:
        at = _skip(self.text, end)
        return at if self.text[at:at + 1] == close else self._expect(",", at)


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _end(text: str, at: int) -> int:
    """Returns where the value that begins at ``at`` ends."""
    if text[at:at + 1] == '"':
        found = _STRING.match(text, at)
    elif text[at:at + 1] in ("{", "["):
        depth = 0
        for step in _STEP.finditer(text, at):
            bracket = text[step.start()]
            if bracket in "{[":
                depth += 1
            elif bracket in "}]":
                depth -= 1
                if depth == 0:
                    return step.end()
        found = None
    else:
        found = _SCALAR.match(text, at)
    if found is None:
        raise ProtocolError(f"no JSON: {text[at:at + 80]!r}")
    return found.end()


@dataclass(frozen=True)
class Counts:
    """How many items are where; every item is in exactly one of them."""

    ready: int
    delayed: int
    leased: int
    done: int
    dead: int
    cancelled: int
    abandoned: int


@dataclass(frozen=True)
class Certificate:
    """The proof that a queue is over."""

    queue: str
    uid: str
    phase: str
    """``drained`` or ``stopped``."""
    cause: str
    """``drained``, ``worker``, ``stop`` or ``deleted``."""
    outcome: str
    """``success`` or ``failure``."""
    reason: Optional[str]
    ended_by: Optional[str]
    created_at: str
    ended_at: str
    counts: Counts
    digest: str
    """Sum modulo 2^256 of SHA-256(id as 8 bytes big-endian + result bytes), 64 hex digits."""
    history_uncertain: bool
    durability: Optional[str] = None
    """The weakest of what the acknowledgements of this queue promised: ``replicated``,
    ``synced``, ``logged`` or ``memory``; ``None`` when that is not known."""

    @property
    def succeeded(self) -> bool:
        """Whether the queue was drained, or stopped with success."""
        return self.outcome == "success"


def certificate_of(wire: Any) -> Certificate:
    """Reads a certificate; unknown fields are ignored."""
    try:
        names = Counts.__dataclass_fields__
        counts = Counts(**{name: int(wire["counts"][name]) for name in names})
        return Certificate(
            queue=wire["queue"], uid=wire["uid"], phase=wire["phase"], cause=wire["cause"],
            outcome=wire["outcome"], reason=wire.get("reason"), ended_by=wire.get("endedBy"),
            created_at=wire["createdAt"], ended_at=wire["endedAt"], counts=counts,
            digest=wire["digest"], history_uncertain=bool(wire.get("historyUncertain", False)),
            durability=wire.get("durability"))
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolError(f"a certificate without {error}") from error
