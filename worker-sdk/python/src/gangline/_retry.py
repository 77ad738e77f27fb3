"""When to send a call again that was not answered.

Every wait is drawn between nothing and a bound that doubles from try to try ("full jitter"): many
workers that lost the service in the same moment do not come back in one. What the service asks
for itself (``Retry-After``) is waited on top of that.
"""

from __future__ import annotations

from .errors import GanglineError


class Backoff:
    """The waits between tries of one kind of call, in seconds: at most ``first`` at the first
    try, twice that at the next, and never longer than ``longest``."""

    def __init__(self, first: float, longest: float) -> None:
        self._first = first
        self._longest = longest
        self._bound = first

    def answered(self) -> None:
        """Begins anew: the last call was answered."""
        self._bound = self._first

    def draw(self) -> float:
        """Draws the next wait."""
        import random  # Here, since the heartbeats' process seldom needs it.

        bound = min(self._bound, self._longest)
        self._bound = bound * 2
        return random.uniform(0.0, bound)

    def after(self, error: GanglineError) -> float:
        """Draws the next wait after ``error``: at least as long as the service has asked for."""
        return (error.retry_after or 0.0) + self.draw()
