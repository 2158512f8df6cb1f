"""When to try again: a function of the error, how often and how long it has been tried; no clock, no I/O."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from ecommerce_worker.errors import ApiError, Held, Rejected, Transient

#: The longest single wait, in seconds, that any peer can ask for with ``Retry-After``.
LONGEST_WAIT = 24 * 3600.0


@dataclass(frozen=True)
class Policy:
    """Patience by time for outages, by count for refusals.

    An outage (no answer, 429, 502-504 …) says nothing about the order: it is waited out for ``give_up_after`` seconds,
    with full jitter under an exponential ceiling so that a shop that comes back is not stampeded.  A refusal
    stays the same however often it is asked, but an early 404 is normal (the shop may publish before it
    commits): it is asked again ``refusals`` times, 1, 2, 4 … seconds apart.  A 500 counts as a refusal: the shop
    answers it for ever to an order that it can no longer ship.
    """

    refusals: int = 11
    give_up_after: float = 3 * 24 * 3600.0
    shortest: float = 1.0
    longest: float = 900.0
    #: Whether a 500 is an answer about the message, rather than an outage.
    counts_500: bool = True
    jitter: Callable[[], float] = field(default=random.random, repr=False, compare=False)

    def counts(self, error: ApiError) -> bool:
        """Whether this error is a refusal, counted, rather than an outage, waited out."""
        return isinstance(error, Rejected) or (error.status == 500 and self.counts_500)

    def next_delay(self, error: BaseException, attempt: int, age: float) -> float | None:
        """Seconds until the next try, or None to give up.

        ``attempt`` is how many tries have ended in this kind of error (refusal or outage), this one included, from
        1; ``age`` for how many seconds it has been made to wait; for what was not tried (``Held``), and is never given
        up for it, for how many it has been put off.  An error that is not of another service is never retried.
        """
        if not isinstance(error, ApiError):
            return None
        if isinstance(error, Held):
            return moment(age, self.longest, error.retry_after or 0.0, self.jitter)
        if self.counts(error):
            if attempt > self.refusals:
                return None
            wait = float(2 ** (attempt - 1))
        elif isinstance(error, Transient):
            if age >= self.give_up_after:
                return None
            ceiling = min(self.longest, self.shortest * 2.0 ** min(attempt, 32))
            wait = self.shortest + self.jitter() * max(0.0, ceiling - self.shortest)
            wait = min(wait, max(self.shortest, self.give_up_after - age))
        else:
            return None
        return min(LONGEST_WAIT, max(wait, error.retry_after or 0.0))


@dataclass(frozen=True)
class Regular:
    """Retries at a fixed interval, as for mail vendors: ``attempts`` more after the first.

    Refusals are not retried.
    """

    every: float = 3600.0
    attempts: int = 6
    jitter: Callable[[], float] = field(default=random.random, repr=False, compare=False)

    def counts(self, error: ApiError) -> bool:
        """Whether this error is a refusal rather than an outage."""
        return isinstance(error, Rejected)

    def next_delay(self, error: BaseException, attempt: int, age: float) -> float | None:
        """Seconds until the next try, or None to give up; see :meth:`Policy.next_delay`."""
        if isinstance(error, Held):
            return moment(age, self.every, error.retry_after or 0.0, self.jitter)
        if not isinstance(error, Transient) or attempt > self.attempts:
            return None
        return min(LONGEST_WAIT, max(self.every, error.retry_after or 0.0))


def moment(age: float, longest: float, at_least: float = 0.0, jitter: Callable[[], float] = random.random) -> float:
    """Seconds until what was put off ``age`` seconds ago, and not tried since, comes again.

    The longer it takes the less often, and spread so that all have their turn; up to ``longest`` beyond ``at_least``.
    """
    return at_least + jitter() * min(longest, max(2.0, age / 2))


#: The retry policy of a task.
Patience = Policy | Regular
