"""Sharing threads: each lane (the runs that wait for one shop or one vendor) may keep only so many busy.

::

    comes ──► there is room for its lane ──► a thread
                  │ there is none                ▲ one of its lane ended
                  ▼                              │
              waits in hand, if its turn comes within MOMENT
                  │ else, or if its lane has become slow
                  ▼
              sent away, into RabbitMQ's waiting room, and comes again

A lane may have as many threads as are free beside it (``weight`` times as many): alone it has half of them all, two
greedy ones have a third each, three a quarter, and there is always as much left for one more.  It does not need to know
response times: a fast service frees its threads quickly, and never comes near its share.
"""

from __future__ import annotations

import random
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

T = TypeVar('T', bound=Hashable)

#: Seconds that a message may wait in memory for its turn.
MOMENT: Final = 1.0

#: The longest time in seconds for which a message is sent away.
LONGEST: Final = 300.0

#: How many of the messages sent away return per second, at least.
SLOWEST: Final = 2.0

#: The weight of the newest run in the average duration.
NEWEST: Final = 0.2


class _Lane(Generic[T]):
    def __init__(self) -> None:
        #: When each began, and the sum of that.
        self.running: dict[T, float] = {}
        self.begun = 0.0
        self.waiting: deque[T] = deque()
        #: How long a run takes, in seconds.
        self.pace = 0.0
        #: When the last of the messages sent away returns.
        self.slot = 0.0

    def rate(self, now: float) -> float:
        """How many runs end per second, as observed."""
        count = len(self.running)
        age = now - self.begun / count if count else 0.0
        # Where nothing of it runs, since others have all threads, one of it is next.
        return max(1, count) / max(self.pace, age, 1e-6)

    def begin(self, item: T, now: float) -> None:
        """Its run begins."""
        self.running[item] = now
        self.begun += now

    def end(self, item: T) -> float:
        """Its run has ended; when it began."""
        began = self.running.pop(item)
        self.begun = self.begun - began if self.running else 0.0
        return began


class Lanes(Generic[T]):
    """The lanes of one worker.

    ``start`` is called with what is to run now, ``send_away`` with what is to come again and in how many seconds, each
    in the thread that gave the occasion.
    """

    def __init__(self, room: int, start: Callable[[T], None], send_away: Callable[[T, float], None], *,
                 weight: float = 1.0, clock: Callable[[], float] = time.monotonic,
                 jitter: Callable[[], float] = random.random) -> None:
        self._room = room
        self._start = start
        self._send_away = send_away
        self._weight = weight
        self._clock = clock
        self._jitter = jitter
        self._lock = threading.Lock()
        self._lanes: dict[str, _Lane[T]] = {}
        self._where: dict[T, str] = {}
        #: Those with something that waits; the one whose turn is next comes first.
        self._queue: OrderedDict[str, None] = OrderedDict()
        self._fixed: set[T] = set()
        self._running = 0
        self._closed = False

    def offer(self, name: str, item: T, *, stays: bool = False) -> None:
        """Something has come; what ``stays`` is never sent away, and left alone once closed."""
        with self._lock:
            if self._closed and stays:
                return
            now = self._clock()
            lane = self._lanes.setdefault(name, _Lane())
            delay = None
            if self._closed:
                delay = 1.0
            elif not lane.waiting and self._has_room(lane):
                self._begin(name, lane, item, now)
            elif stays or (len(lane.waiting) + 1) / lane.rate(now) <= MOMENT:
                if stays:
                    self._fixed.add(item)
                lane.waiting.append(item)
                self._queue.setdefault(name)
                return
            else:
                delay = self._delay(lane, now)
        if delay is None:
            self._start(item)
        else:
            self._send_away(item, delay)

    def left(self, item: T) -> None:
        """Its run has ended; idempotent, and harmless for what never ran."""
        with self._lock:
            name = self._where.pop(item, None)
            if name is None:
                return
            lane, now = self._lanes[name], self._clock()
            took = now - lane.end(item)
            lane.pace += NEWEST * (took - lane.pace) if lane.pace else took
            self._running -= 1
            started = self._next(now)
        for each in started:
            self._start(each)

    def look(self) -> None:
        """Send away what waits in a lane that has become slow."""
        away: list[tuple[T, float]] = []
        with self._lock:
            now = self._clock()
            for name in list(self._queue):
                lane = self._lanes[name]
                while lane.waiting and lane.waiting[-1] not in self._fixed \
                        and len(lane.waiting) / lane.rate(now) > MOMENT:
                    away.append((lane.waiting.pop(), self._delay(lane, now)))
                if not lane.waiting:
                    del self._queue[name]
        for each, delay in away:
            self._send_away(each, delay)

    def close(self) -> None:
        """Start nothing any more: waiting and new messages are sent away.

        What stays is left to the end of the connection, by which it is delivered again; sent away, nothing would tell
        that a run of it may have begun before, or how often.
        """
        with self._lock:
            self._closed = True
            waiting = [item for name in self._queue for item in self._lanes[name].waiting if item not in self._fixed]
            self._forget()
        for item in waiting:
            self._send_away(item, 1.0)

    def forget(self, running: Callable[[T], bool]) -> None:
        """A connection is lost, and all that waited with it; so is what was to run, but for what is running."""
        with self._lock:
            self._forget()
            for item, name in list(self._where.items()):
                if not running(item):
                    del self._where[item]
                    self._lanes[name].end(item)
                    self._running -= 1

    def running(self) -> list[tuple[str, T, float]]:
        """The running messages: lane, message, and seconds so far."""
        with self._lock:
            now = self._clock()
            return [(name, item, now - self._lanes[name].running[item]) for item, name in self._where.items()]

    def waiting(self) -> int:
        """How many messages wait."""
        with self._lock:
            return sum(len(self._lanes[name].waiting) for name in self._queue)

    def _forget(self) -> None:
        for name in self._queue:
            self._lanes[name].waiting.clear()
        self._queue.clear()
        self._fixed.clear()

    def _has_room(self, lane: _Lane[T]) -> bool:
        free = self._room - self._running
        return free > 0 and (not lane.running or len(lane.running) < self._weight * free)

    def _begin(self, name: str, lane: _Lane[T], item: T, now: float) -> None:
        lane.begin(item, now)
        self._where[item] = name
        self._running += 1

    def _next(self, now: float) -> list[T]:
        """The next runs to start: one of each lane in turn."""
        found: list[T] = []
        for name in list(self._queue):
            lane = self._lanes[name]
            if not self._has_room(lane):
                continue
            item = lane.waiting.popleft()
            self._fixed.discard(item)
            self._begin(name, lane, item, now)
            found.append(item)
            if lane.waiting:
                self._queue.move_to_end(name)
            else:
                del self._queue[name]
        return found

    def _delay(self, lane: _Lane[T], now: float) -> float:
        """The delay of the next one: twice as many return as end, so that no thread is idle and few return in vain."""
        slot = max(lane.slot, now + self._jitter()) + 1 / max(SLOWEST, 2 * lane.rate(now))
        if slot - now > LONGEST:
            return LONGEST * (1 + self._jitter()) / 2
        lane.slot = slot
        return slot - now
