"""Bounds of the queue API that are checked here, so that one item fails and not its batch."""

from __future__ import annotations

import re
from typing import Optional

PAYLOAD_BYTES_MAX = 1 << 20
PUSH_ITEMS_MAX = 1_000
SESSION_LEASES_MAX = 1_024
SETTLES_MAX = 1_024
PROGRESS_TEXT_BYTES_MAX = 200
SPAWN_ITEMS_MAX = 1_024
KEY_BYTES_MAX = 512
WORKER_NAME_BYTES_MAX = 128
ERROR_BYTES_MAX = 4_096
IDEMPOTENCY_KEY_BYTES_MAX = 256
TRACEPARENT_BYTES_MAX = 64
PRIORITY_MAX = 9
ATTEMPTS_MAX = 100
DELAY_MS_MAX = 30 * 24 * 60 * 60 * 1_000
TIME_LIMIT_MS_MAX = DELAY_MS_MAX

_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_QUEUE = re.compile(rf"(?:{_LABEL}\.)?{_LABEL}")


def queue_name(text: str) -> str:
    """Returns ``text`` if it names a queue, else raises ``ValueError``."""
    if not _QUEUE.fullmatch(text):
        raise ValueError(
            f"queue name {text[:160]!r} must be a DNS label (lower-case letters, digits and '-', "
            "at most 63 characters), optionally after a namespace and a dot")
    return text


def short_text(what: str, text: str, bytes_max: int) -> str:
    """Returns ``text`` if it is 1 to ``bytes_max`` bytes without control characters."""
    count = len(text.encode("utf-8", "surrogatepass"))
    if not 1 <= count <= bytes_max or any(ord(c) < 32 or 127 <= ord(c) < 160 for c in text):
        raise ValueError(f"{what} must be 1 to {bytes_max} bytes without control characters, "
                         f"got {count}")
    return text


def whole(what: str, value: int, least: int, most: int, unit: str = "") -> int:
    """Returns ``value`` if it is a whole number in its bounds."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{what} must be {least} to {most}{' ' + unit if unit else ''}, "
                         f"got {value!r}")
    return value


def millis(what: str, seconds: Optional[float], least: int, most: int) -> Optional[int]:
    """Returns seconds as the wire's milliseconds, in their bounds; NaN is in none."""
    if seconds is None:
        return None
    if not least <= seconds * 1_000 <= most:
        raise ValueError(f"{what} must be {least / 1_000:g} to {most / 1_000:g} s, got {seconds!r}")
    return round(seconds * 1_000)
