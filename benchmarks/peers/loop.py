"""The bare loop: threads that take order numbers from standard input, and call the shop.  No broker, no promise."""

from __future__ import annotations

import sys
import threading
from queue import SimpleQueue

from benchmarks.peers.fulfil import fulfil


def main() -> None:
    """Run with so many threads until standard input ends."""
    numbers: SimpleQueue[str] = SimpleQueue()

    def work() -> None:
        while number := numbers.get():
            fulfil(number)

    threads = [threading.Thread(target=work) for _ in range(int(sys.argv[1]))]
    for thread in threads:
        thread.start()
    for line in sys.stdin:
        numbers.put(line.strip())
    for _ in threads:
        numbers.put('')


if __name__ == '__main__':
    main()
