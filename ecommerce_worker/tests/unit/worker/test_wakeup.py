"""What a message wakes, and how many messages become few wake-ups."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from ecommerce_worker import settings
from ecommerce_worker.schedule.entries import Entry
from ecommerce_worker.worker.wakeup import Pending, wakes

MAIL, INDEX = Entry('mail', 'task'), Entry('index', 'task')


def test_entries_are_found_by_their_channel():
    conf = settings.load({
        'ECOMMERCE_WORKER_SCHEDULE': str({name: {'task': 'task', 'interval': 60} for name in ('mail', 'index')}
                                         | {'off': {'enabled': False}}),
        'ECOMMERCE_WORKER_WAKE_UP': str({
            'mail': {'channel': 'django-SHOP', 'message': 'send_queued_mail'}, 'index': {'channel': 'django-SHOP'},
            'off': {'channel': 'other'}})})
    found = wakes(conf)
    assert {channel: [(message, entry.name) for message, entry in listed] for channel, listed in found.items()} == {
        'django-SHOP': [('send_queued_mail', 'mail'), ('', 'index')]}


def test_the_first_wakes_at_once_and_the_others_once_after_the_gap():
    pending = Pending(gap=2)
    fired = []
    for tenth in range(40):
        if tenth < 15:
            pending.wake(MAIL)
        fired += [(tenth, entry.name) for entry in pending.take(100 + tenth / 10)]
    assert fired == [(0, 'mail'), (20, 'mail')]


def test_jobs_do_not_hold_each_other_up():
    pending = Pending(gap=2)
    pending.wake(MAIL)
    assert pending.take(0) == [MAIL]
    pending.wake(MAIL)
    pending.wake(INDEX)
    assert pending.take(0.1) == [INDEX]
    pending.forget()
    assert pending.take(10) == []


@given(st.lists(st.floats(0, 20), max_size=100))
def test_no_message_is_forgotten_and_wake_ups_keep_their_distance(messages):
    pending, fired, waiting = Pending(gap=2), [], sorted(messages)
    for tenth in range(250):
        now = tenth / 10
        while waiting and waiting[0] <= now:
            pending.wake(MAIL)
            waiting.pop(0)
        fired += [now for _ in pending.take(now)]
    assert all(later - earlier > 1.99 for earlier, later in pairwise(fired))
    assert all(any(message <= moment <= message + 2.11 for moment in fired) for message in messages)
