"""The ``ecommerce-worker`` command: one file for each group of commands."""

from ecommerce_worker.cli import (  # noqa: F401 - each adds its commands
    check,
    console,
    demo,
    doctor,
    erase,
    flower,
    intake,
    orders,
    parked,
    processes,
    queues,
    reconcile,
    resubmit,
    smoke,
    status,
)
from ecommerce_worker.cli.root import main

__all__ = ['main']
