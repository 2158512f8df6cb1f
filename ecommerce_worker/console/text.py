"""What the ledger knows, in plain words; pure."""

from __future__ import annotations

from datetime import datetime

from ecommerce_worker.durations import span
from ecommerce_worker.ledger.queries import Entry
from ecommerce_worker.ledger.words import kind_of, state_of


def sentence(order: Entry, now: datetime) -> str:
    """Where the order is."""
    what = f'The {kind_of(order.task)}'
    why = order.reason.rstrip('.')
    match order.state:
        case 'fulfilled':
            times = f', at the {ordinal(order.attempts)} try' if order.attempts > 1 else ''
            return f'{what} was {state_of(order.state, order.task)} on {when(order.last_seen)}{times}.'
        case 'waiting' if order.next_try and order.next_try < now:
            late = span((now - order.next_try).total_seconds())
            return (f'{what} was to be tried again {late} ago, but nothing was heard of it: is a worker running? '
                    f'At its last try: {why}.')
        case 'waiting':
            due = 'waits for its next try'
            if order.next_try:
                due = f'is tried again in {span((order.next_try - now).total_seconds())}'
            return f'{what} {due}. At its last try: {why}.'
        case 'parked':
            return f'{what} is stuck until a person decides, since {when(order.last_seen)}: {why}.'
        case 'discarded':
            return f'{what} was given up on {when(order.last_seen)}: {why}.'
        case _:
            age = span((now - order.last_seen).total_seconds())
            return f'{what} is with a worker, or about to be, for {age}, since {when(order.last_seen)}.' + (
                f' Last heard: {why}.' if why else '')


def when(moment: datetime) -> str:
    """The time, to the minute."""
    return f'{moment:%Y-%m-%d %H:%M} UTC'


def ordinal(number: int) -> str:
    """``1st``, ``2nd``, ``11th``."""
    last = {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')
    return f'{number}{"th" if number % 100 in (11, 12, 13) else last}'
