"""Ending in time.

::

    SIGTERM, SIGINT ──► takes no more; what runs ends ─────────────────────────────► ends
                              │ SHUTDOWN_SECONDS are over                             ▲
                              ▼                                                       │
    SIGQUIT, or twice ──► what still runs is left: the broker delivers it again ──────┘
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from typing import Any, Final

from billiard import active_children

from ecommerce_worker import runtime

logger = logging.getLogger(__name__)

#: Seconds that a worker has for taking leave of the broker when it does not wait for what runs.
QUICK_SECONDS: Final = 2.0


def end_in_time(how: str = 'Warm', exitcode: int = 0, **_: Any) -> None:
    """Begin to end; what has not ended in time is left to the broker.

    Celery itself waits for ever in a warm shutdown, and in a cold one too if the pool is of threads: Python does not
    end before they do.
    """
    warm = how == 'Warm'
    seconds = runtime.current().settings.SHUTDOWN_SECONDS if warm else QUICK_SECONDS
    timer = threading.Timer(seconds, _leave, (seconds, exitcode))
    timer.daemon = True
    timer.start()


def _leave(seconds: float, exitcode: int) -> None:
    logger.warning('stopped with something still running after %g s; the broker delivers it again', seconds)
    logging.shutdown()
    # What runs in a child would go on, and overlap its next try.
    for child in active_children():
        os.kill(child.pid, signal.SIGKILL)
    # Threads cannot be ended; all messages that are not acknowledged go back to their queues with the connection.
    os._exit(exitcode)
