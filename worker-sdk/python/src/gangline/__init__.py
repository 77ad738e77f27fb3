"""Workers and producers for Gangline.

A worker takes items from one queue until the queue is over, and its exit code tells how it went::

    from gangline import Worker

    for item in Worker.from_env():
        item.done(len(item.payload["text"].split()))

A producer fills a queue, seals it, and waits for the certificate::

    from gangline import Producer

    with Producer.from_env("texts") as texts:
        for text in ("one", "two words"):
            texts.push({"text": text})
        texts.seal()
    print(texts.wait().counts.done)

All durations are seconds, as everywhere in Python's standard library, unless a name ends in
``_ms``: those are the wire's own milliseconds.
"""

from ._wire import Certificate, Counts, RawJson
from .errors import (
    Fatal,
    GanglineError,
    NotSettled,
    Permanent,
    ProtocolError,
    Refused,
    RetryLater,
    Unauthorized,
    Unavailable,
    WorkerExit,
)
from .item import Item
from .producer import Producer, PushReport, Result
from .worker import End, Worker

__all__ = [
    "Certificate",
    "Counts",
    "End",
    "Fatal",
    "GanglineError",
    "Item",
    "NotSettled",
    "Permanent",
    "Producer",
    "ProtocolError",
    "PushReport",
    "RawJson",
    "Refused",
    "Result",
    "RetryLater",
    "Unauthorized",
    "Unavailable",
    "Worker",
    "WorkerExit",
]
