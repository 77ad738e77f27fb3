"""What can go wrong, as a caller can tell it apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional

if TYPE_CHECKING:
    from .worker import End


class GanglineError(Exception):
    """Anything that a call of the queue service can end with but an answer."""

    retry_after: Optional[float] = None
    """The wait in seconds that the service asks for, if it does."""

    @property
    def is_retryable(self) -> bool:
        """Whether the same call may succeed later."""
        return False

    @property
    def may_have_taken_effect(self) -> bool:
        """Whether the service may have done what the call was for, although there is no answer
        that says so."""
        return False


class Refused(GanglineError):
    """The service refuses the call; nothing has changed.

    ``code`` is stable (``queue_sealed``, ``out_of_bounds``, ...); ``field`` names what is at
    fault, as in ``items[3].priority``, where it is one field.
    """

    def __init__(self, status: int, code: str, detail: str, field: Optional[str] = None,
                 certificate: Optional[dict[str, Any]] = None) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.field = field
        self.certificate = certificate

    @property
    def may_have_taken_effect(self) -> bool:
        # Lines of a stream are taken as they come.
        return self.code == "incomplete_stream"


class Unauthorized(Refused):
    """The credentials are missing, unknown, or not enough."""


class Unavailable(GanglineError):
    """The service cannot be reached or is busy; the call may be sent again. ``arrived`` says
    whether the service may have got it."""

    def __init__(self, detail: str, retry_after: Optional[float] = None,
                 arrived: bool = True) -> None:
        super().__init__(f"the queue service does not answer: {detail}")
        self.retry_after = retry_after
        self.arrived = arrived

    @property
    def is_retryable(self) -> bool:
        return True

    @property
    def may_have_taken_effect(self) -> bool:
        return self.arrived


class ProtocolError(GanglineError):
    """What answered is no Gangline service, or one that speaks otherwise."""

    def __init__(self, detail: str) -> None:
        super().__init__(f"the queue service gave an answer that is not understood: {detail}")

    @property
    def may_have_taken_effect(self) -> bool:
        return True


class NotSettled(RuntimeError):
    """The loop asked for the next item while it still held the last one."""


class AlreadySettled(RuntimeError):
    """The item was settled before, or given up at its time limit."""


class Permanent(Exception):
    """Raised by a handler: the item is dead, no other attempt would end otherwise."""


class Fatal(Permanent):
    """Raised by a handler: the item is dead and no other would end otherwise, so the whole queue
    is stopped as failed."""


class RetryLater(Exception):
    """Raised by a handler: try again after ``delay`` seconds instead of the queue's back-off."""

    def __init__(self, error: object, delay: float) -> None:
        super().__init__(str(error))
        self.delay = delay


class WorkerExit(SystemExit):
    """Ends the process with the exit code that tells how the worker went; never raised for 0."""

    def __init__(self, end: End) -> None:
        super().__init__(end.code)
        self.end = end
