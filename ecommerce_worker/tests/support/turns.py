"""Turns that many want at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

from ecommerce_worker.errors import Taken


def at_work(turn: Callable[[int], AbstractContextManager[Any]], *, seconds: float, again: float) -> list[int]:
    """How many of eight threads were at it, itself included, while each had its turn, for so many seconds.

    ``turn`` is given a thread's number; one that finds it taken comes again after ``again`` seconds.
    """
    under_way: list[int] = []
    seen: list[int] = []
    pause = threading.Event()

    def run(number: int) -> None:
        while True:
            try:
                with turn(number):
                    under_way.append(1)
                    pause.wait(seconds)
                    seen.append(len(under_way))
                    under_way.pop()
                    return
            except Taken:
                pause.wait(again)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(run, range(8)))
    return seen
