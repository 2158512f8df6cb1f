"""What is found about how things stand, and what is not."""

import pytest

from ecommerce_worker.broker.topology import Depth
from ecommerce_worker.health.broker import Broker
from ecommerce_worker.health.findings import Severity
from ecommerce_worker.health.ledger import Ledger
from ecommerce_worker.health.schedule import Schedule
from ecommerce_worker.health.spool import Spooled
from ecommerce_worker.health.standing import Standing
from ecommerce_worker.health.workers import Workers

#: Two task queues that a worker consumes, and a recorder.
SOUND = {'queues': (Depth('a', 3, 2), Depth('b', 0, 1)), 'consumers': 2, 'recorders': 1, 'is_declared': True}


#: One that answers, a ledger that is read, and a beat.
ALL = {'workers': Workers(1, ('one@here',), {}), 'ledger': Ledger(), 'schedule': Schedule(silent=4, is_wanted=True)}


def found(**seen):
    parts = {name: seen.pop(name, sound) for name, sound in {**ALL, 'spool': None}.items()}
    return Standing(('a', 'b'), Broker(**{**SOUND, **seen}), **parts).findings


def subjects(**seen):
    return [(it.subject, str(it.severity)) for it in found(**seen)]


def test_where_all_is_well_nothing_is_found():
    assert found() == ()


@pytest.mark.parametrize('seen, expected', [
    ({'problem': 'refused', 'consumers': None, 'recorders': None, 'queues': ()}, [('broker', 'trouble')]),
    ({'takes_messages': False, 'workers': None}, [('broker', 'trouble')]),
    ({'missing': ('a',)}, [('queues', 'trouble')]),
    ({'queues': (Depth('a', 1, 0), Depth('b', 0, 1))}, [('queues', 'trouble')]),
    ({'queues': (Depth('a', 0, 0), Depth('b', 0, 1))}, [('queues', 'warning')]),
    ({'queues': (Depth('celery', 0, 0), Depth('b', 0, 1))}, []),
    ({'consumers': 0, 'queues': (), 'workers': Workers(1)}, [('workers', 'trouble')]),
    ({'consumers': 0, 'queues': (), 'workers': None}, [('workers', 'trouble')]),
    ({'workers': Workers(1)}, [('workers', 'trouble')]),
    ({'workers': Workers(1, ('one',), {'parked': 2})}, [('messages', 'trouble')]),
    ({'parked': 2}, [('parked', 'warning')]),
    ({'ledger': Ledger(parked=2)}, [('parked', 'warning')]),
    ({'parked': 2, 'too_large': 1}, [('parked', 'warning'), ('parked', 'warning')]),
    ({'spool': Spooled(1, 10)}, []),
    ({'spool': Spooled(1, 4000)}, [('spool', 'trouble')]),
    ({'spool': Spooled(unreadable=1, drafts=1)}, [('spool', 'trouble'), ('spool', 'warning')]),
    ({'recorders': 0}, [('recorder', 'trouble')]),
    ({'recorders': 0, 'ledger': None}, []),
    ({'ledger': Ledger('of a newer version')}, [('ledger', 'warning')]),
    ({'ledger': Ledger(overdue=1)}, [('orders', 'trouble')]),
    ({'ledger': Ledger(lost=1, lost_days=7)}, [('reports', 'warning')]),
    ({'ledger': Ledger(silent={'shop': 90_000})}, [('intakes', 'warning')]),
    ({'ledger': Ledger(webhooks={'shop': 'has disabled its webhook 7'})}, [('intakes', 'trouble')]),
    ({'schedule': Schedule(is_wanted=True)}, [('beat', 'trouble')]),
    ({'schedule': Schedule(silent=7200, is_wanted=True)}, [('beat', 'trouble')]),
    ({'schedule': Schedule()}, []),
    ({'schedule': Schedule('no file', is_wanted=True)}, [('beat', 'warning')]),
    ({'schedule': Schedule(silent=1, mistakes=('it names no task',))}, [('schedule', 'trouble')]),
    ({'schedule': Schedule(silent=1, overdue=(('mail', 0.0),))}, [('schedule', 'trouble')]),
    ({'schedule': Schedule(silent=1, unknown=('mail',))}, [('schedule', 'warning')]),
], ids=str)
def test_each_thing_that_is_not_well_is_found_once(seen, expected):
    assert subjects(**seen) == expected


@pytest.mark.parametrize('seen', [
    {'consumers': None, 'recorders': None, 'queues': (Depth('a', 5, None), Depth('b', 0, None))},
    {'workers': None}, {'ledger': None}, {'schedule': None}], ids=str)
def test_what_is_unknown_is_no_trouble(seen):
    assert found(**seen) == ()


def test_where_no_worker_ever_was_its_queues_are_not_missed():
    assert subjects(missing=('a',), is_declared=False, consumers=0, queues=(), workers=Workers(1)) == [
        ('workers', 'trouble')]


def test_trouble_comes_first():
    assert [it.severity for it in found(parked=1, recorders=0)] == [Severity.TROUBLE, Severity.WARNING]


def test_a_finding_says_what_is_wrong_and_what_to_do():
    [finding] = found(recorders=0)
    assert finding.text == 'No recorder is running: the ledger is not updated. Start one: `ecommerce-worker recorder`.'
