"""The state of an order in plain words; pure."""

from __future__ import annotations

from datetime import datetime

from ecommerce_worker.durations import span
from ecommerce_worker.ledger.queries import Entry
from ecommerce_worker.ledger.words import kind_of, state_of
from ecommerce_worker.words import full_stop


def sentence(order: Entry, now: datetime) -> str:
    """The state of the order, as a sentence."""
    what = f'The {kind_of(order.task)}'
    why = full_stop(order.reason)
    match order.state:
        case 'fulfilled':
            times = f', at the {ordinal(order.attempts)} try' if order.attempts > 1 else ''
            return f'{what} was {state_of(order.state, order.task)} on {when(order.last_seen)}{times}.'
        case 'waiting' if order.next_try and order.next_try < now:
            late = span((now - order.next_try).total_seconds())
            return (f'{what} is overdue: its next try was due {late} ago and has not been reported. '
                    f'Is a worker running? Last try: {why}')
        case 'waiting':
            due = 'is waiting for its next try'
            if order.next_try:
                due = f'will be retried in {span((order.next_try - now).total_seconds())}'
            return f'{what} {due}. Last try: {why}'
        case 'parked':
            return f'{what} has been parked since {when(order.last_seen)}, until a person decides: {why}'
        case 'discarded':
            return f'{what} was discarded on {when(order.last_seen)}: {why}'
        case _:
            age = span((now - order.last_seen).total_seconds())
            return f'{what} has been with a worker, or queued for one, for {age}, since {when(order.last_seen)}.' + (
                f' Last report: {why}' if order.reason else '')


def when(moment: datetime) -> str:
    """The time, to the minute."""
    return f'{moment:%Y-%m-%d %H:%M} UTC'


def ordinal(number: int) -> str:
    """``1st``, ``2nd``, ``11th``."""
    last = {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')
    return f'{number}{"th" if number % 100 in (11, 12, 13) else last}'
