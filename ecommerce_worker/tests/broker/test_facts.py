"""Workers tell their own story: a fact of each run in the ledger's queue, whatever happens to the broker."""

import threading
import time
from dataclasses import replace
from functools import partial

import pytest
from kombu import Queue

from ecommerce_worker.broker import facts as facts_module
from ecommerce_worker.broker import publishing, topology
from ecommerce_worker.broker.facts import Reporter
from ecommerce_worker.broker.notes import NOTES, Notes, ParkingNote
from ecommerce_worker.broker.wire import Raw
from ecommerce_worker.fulfillment.names import FULFILL
from ecommerce_worker.telemetry.run import RunReport
from ecommerce_worker.testing.shop import Answer
from ecommerce_worker.tests.support.harness import QUEUE, eventually, shop_app

REPORT = RunReport('done', task='a.b', id='id-1', key='EDX-1', site='edx', attempt=1, seconds=0.1, queue=QUEUE)


@pytest.fixture
def facts(facts):
    """Takes the facts from the ledger's queue, in which there are none yet: ``facts(2)`` waits for two."""
    def taken(number=0):
        eventually(lambda: facts.depth(topology.LEDGER) >= number)
        with facts.connection() as connection:
            queue = Queue(topology.LEDGER).bind(connection.channel())
            return [(message.delivery_info['routing_key'], RunReport.read(
                         message.body.encode() if isinstance(message.body, str) else bytes(message.body)))
                    for message in iter(lambda: queue.get(no_ack=True), None)]

    return taken


@pytest.fixture
def reporter(link):
    """A reporter to that broker."""
    with shop_app(link.url) as app:
        reporter = Reporter(app, bound=50, repeatable=['a.b'])
        yield reporter
        reporter.end(0)


@pytest.mark.parametrize('pool', ['threads', 'prefork', 'solo'])
def test_a_worker_tells_how_each_run_ended(broker, shop, start_worker, publish, facts, pool):
    shop.tell('add', [{'number': 'EDX-1'}, {'number': 'EDX-2', 'status': 'Complete'}])
    worker = start_worker('--pool', pool, '--concurrency', '2', MAX_FULFILLMENT_RETRIES=0).ready()
    began = time.time()
    message = publish('EDX-1', site_code='edx', email_opt_in=True)
    eventually(lambda: worker.settled('EDX-1'))
    publish('EDX-404', site_code='edx')
    broker.publish_raw(b'nonsense', content_type='application/json')
    found = dict(facts(3))
    assert len(found) == 3, found
    done = found['done.ecommerce_worker.fulfillment.v1.tasks.fulfill_order']
    assert (done.id, done.key, done.site, done.queue, done.attempt) == (message.id, 'EDX-1', 'edx', QUEUE, 1)
    assert (done.root_id, done.status, done.next_try) == (message.id, None, None)
    assert began < done.started < done.ended < time.time()
    assert done.worker.startswith('ecommerce-')
    parked = found['parked.ecommerce_worker.fulfillment.v1.tasks.fulfill_order']
    assert (parked.key, parked.status, parked.attempt) == ('EDX-404', 404, 1)
    unread = found['parked.unknown']
    assert (unread.attempt, unread.queue, unread.key) == (0, QUEUE, '')
    assert 'the body is not valid application/json' in unread.reason
    assert {parked.id, unread.id} == {message.headers[NOTES]['id'] for message in broker.parked()}


def test_a_worker_that_is_told_to_stop_tells_the_last(shop, start_worker, publish, facts):
    shop.tell('add', [{'number': f'EDX-{number}'} for number in range(20)])
    worker = start_worker().ready()
    for number in range(20):
        publish(f'EDX-{number}', site_code='edx')
    eventually(lambda: worker.log.count('done: ') >= 20)
    assert worker.stop() == 0
    assert sorted(fact.key for _, fact in facts(20)) == sorted(f'EDX-{number}' for number in range(20))


def test_a_worker_without_facts_is_one_all_the_same(broker, shop, start_worker, publish, facts):
    shop.tell('add', [{'number': 'EDX-1'}])
    worker = start_worker(PUBLISH_FACTS=False).ready()
    publish('EDX-1', site_code='edx')
    eventually(lambda: worker.settled('EDX-1') == 'done')
    assert worker.stop() == 0
    assert facts() == []


def test_what_is_told_while_the_broker_is_away_is_published_when_it_is_back(link, reporter, facts, caplog):
    reporter.reported(REPORT)
    facts(1)
    with link.interrupted():
        for number in range(40):
            reporter.reported(replace(REPORT, id=f'id-{number}'))
        eventually(lambda: 'reports cannot be published' in caplog.text)
    assert {fact.id for _, fact in facts(40)} == {f'id-{number}' for number in range(40)}
    eventually(lambda: 'reports are published again: dropped=0' in caplog.text)
    assert caplog.text.count('reports cannot be published') == 1


def test_of_too_many_the_oldest_are_dropped_and_counted(link, reporter, facts, caplog):
    with link.interrupted():
        reporter.reported(REPORT)
        eventually(lambda: 'reports cannot be published' in caplog.text)
        for number in range(80):
            reporter.reported(replace(REPORT, id=f'id-{number}'))
    # The one in hand, and the newest that are kept.
    assert {fact.id for _, fact in facts(51)} >= {f'id-{number}' for number in range(30, 80)}
    eventually(lambda: 'reports are published again: dropped=30' in caplog.text)


def test_an_end_does_not_wait_for_a_broker_that_is_away(link, reporter, facts, caplog):
    with link.interrupted():
        reporter.reported(REPORT)
        reporter.end(0.01)
        assert 'some reports were not published before the process ended: dropped=1' in caplog.text


def test_the_ledgers_queue_keeps_the_newest_and_not_for_ever(broker, facts):
    found = broker.node.ctl('list_queues', 'name', 'arguments', 'durable')
    [line] = [line for line in found.splitlines() if line.startswith(topology.LEDGER)]
    for part in ('"x-max-length",500000', '"x-message-ttl",1209600000', '"x-overflow","drop-head"', 'true'):
        assert part in line


@pytest.mark.parametrize('arguments, outcome', [(('resend',), 'resent'), (('discard', '--yes'), 'discarded')])
def test_what_a_person_does_with_a_parked_message_is_a_fact(shop, broker, command, facts, arguments, outcome):
    shop.add_order('EDX-1')
    with shop_app(broker.url) as app, broker.connection() as connection:
        topology.declare_parked(connection)
        body = b'[["EDX-1"], {"site_code": "edx"}, {}]'
        publishing.park(app, Raw(body, 'application/json', 'utf-8', {'task': FULFILL, 'id': 'id-1'}),
                        ParkingNote(id='id-1', task=FULFILL, key='EDX-1', site='edx', reason='why',
                                    notes=Notes(queue=QUEUE)))
    done = command('parked', arguments[0], '--order', 'EDX-1', *arguments[1:])
    assert done.returncode == 0, done.stderr
    [(key, fact)] = facts(1)
    assert (key, fact.outcome, fact.key, fact.id) == (f'{outcome}.{FULFILL}', outcome, 'EDX-1', 'id-1')
    assert (fact.site, fact.attempt) == ('edx', 0)


def test_a_site_given_by_position_is_that_of_the_patience_of_the_report_and_of_the_note(
        broker, start_worker, publish, facts):
    start_worker(MAX_FULFILLMENT_RETRIES=5, SITE_OVERRIDES={'edx': {'MAX_FULFILLMENT_RETRIES': 0}}).ready()
    publish('EDX-404', 'edx')
    note = eventually(lambda: broker.parked_order('EDX-404'))
    [(_, report)] = facts(1)
    assert (note['site'], report.site, report.outcome, report.attempt) == ('edx', 'edx', 'parked', 1)


def test_a_worker_that_is_killed_takes_no_parking_with_it(shop, broker, start_worker, publish, facts, command):
    worker = start_worker(MAX_FULFILLMENT_RETRIES=0).ready()
    message = publish('EDX-404')
    eventually(lambda: broker.parked_order('EDX-404'))
    worker.kill()
    facts()
    shop.add_order('EDX-404')
    assert command('parked', 'resend', '--all').returncode == 0
    parked, resent = (fact for _, fact in facts(2))
    assert (parked.outcome, parked.id, parked.attempt, parked.status) == ('parked', message.id, 1, 404)
    assert parked.worker.startswith('ecommerce-')
    assert (resent.outcome, resent.id) == ('resent', message.id)


def test_a_message_is_sent_again_before_the_run_that_follows_from_it(
        shop, broker, start_worker, publish, facts, command):
    shop.add_order('EDX-1', Answer(status=500).always())
    start_worker(MAX_FULFILLMENT_RETRIES=0).ready()
    publish('EDX-1')
    eventually(lambda: broker.parked_order('EDX-1'))
    facts(1)
    assert command('parked', 'resend', '--all').returncode == 0
    # The first one comes with the message once more.
    found = {fact.fact: fact for _, fact in facts(3)}.values()
    assert [fact.outcome for fact in sorted(found, key=lambda fact: fact.started)] == ['parked', 'resent', 'parked']


def test_what_is_destroyed_with_its_queue_is_a_fact(broker, publish, facts, command):
    message = publish('EDX-1', site_code='edx')
    publish('ann@example.com', task='tasks.of.next.year', queue='fulfillment')
    broker.publish_raw(b'nonsense', content_type='application/json')
    assert '3 messages destroyed' in command('queues', 'purge', '--yes').stdout
    known, unknown = sorted((fact for _, fact in facts(2)), key=lambda fact: fact.queue)
    assert (known.outcome, known.id, known.key, known.site) == ('discarded', message.id, 'EDX-1', 'edx')
    assert (known.queue, unknown.queue) == (QUEUE, 'fulfillment')
    assert (unknown.outcome, unknown.task, unknown.key) == ('discarded', 'tasks.of.next.year', '')


def test_facts_that_are_destroyed_are_not_told_of(broker, publish, facts, command):
    publish('EDX-1')
    command('queues', 'purge', '--yes')
    eventually(lambda: broker.depth(topology.LEDGER) == 1)
    assert '1 message destroyed' in command('queues', 'purge', topology.LEDGER, '--yes').stdout
    assert facts() == []


def test_a_queue_is_emptied_without_a_word_to_the_ledger_where_there_are_no_facts(broker, publish, facts, command):
    publish('EDX-1')
    assert command('queues', 'purge', '--yes', PUBLISH_FACTS=False).returncode == 0
    assert (broker.depth(QUEUE), facts()) == (0, [])


# -- what is held until its fact is safe ------------------------------------------------------------------------------

def test_orders_that_were_fulfilled_are_told_of_however_often_their_worker_is_killed(
        broker, shop, start_worker, publish, facts):
    numbers = [f'EDX-{number}' for number in range(120)]
    shop.tell('add', [{'number': number} for number in numbers])
    for number in numbers:
        publish(number, site_code='edx')
    for _ in range(3):
        worker = start_worker('--concurrency', '8').ready()
        begun = fulfilled(shop)
        eventually(partial(at_least, shop, min(120, begun + 30)))
        worker.kill()
    worker = start_worker('--concurrency', '8').ready()
    told: set[str] = set()

    def complete():
        told.update(fact.key for _, fact in facts() if fact.outcome in ('done', 'skipped'))
        return told >= set(numbers)

    eventually(complete)
    assert worker.stop() == 0


def at_least(shop, count):
    return fulfilled(shop) >= count


def fulfilled(shop):
    """How many orders the shop has been told to fulfil, each counted once."""
    return len({call.path for call in shop.calls if call.is_put and call.status == 200})


def test_an_order_is_not_acknowledged_before_its_fact_is_safe(link, reporter, facts):
    acknowledged = threading.Event()
    with link.interrupted():
        reporter.reported(REPORT)
        assert reporter.holds('id-1', acknowledged.set, 9)
        assert not acknowledged.wait(0.5)
    facts(1)
    assert acknowledged.wait(30)
    assert not reporter.holds('id-1', acknowledged.set, 9)


def test_only_the_end_of_what_may_be_repeated_is_held(reporter):
    for told in (replace(REPORT, task='mail'), replace(REPORT, outcome='retrying'), replace(REPORT, outcome='parked')):
        reporter.reported(told)
        assert not reporter.holds('id-1', print, 9)


def test_of_what_is_held_the_oldest_is_let_go_if_it_is_too_much_or_for_too_long(link, reporter, monkeypatch):
    let_go: list[int] = []
    with link.interrupted():
        for number in range(3):
            reporter.reported(replace(REPORT, id=f'id-{number}'))
            assert reporter.holds(f'id-{number}', partial(let_go.append, number), 2)
        assert let_go == [0]
        monkeypatch.setattr(facts_module, 'HOLD_SECONDS', 0.0)
        reporter.reported(replace(REPORT, id='id-3'))
        reporter.holds('id-3', partial(let_go.append, 3), 9)
        assert let_go == [0, 1, 2, 3]


def test_each_process_numbers_its_facts_and_drops_leave_a_gap(link, reporter, facts):
    with link.interrupted():
        for number in range(60):
            reporter.reported(replace(REPORT, id=f'id-{number}'))
    found = [fact for _, fact in facts(50)]
    assert {fact.teller for fact in found} == {reporter.name}
    numbers = sorted({fact.number for fact in found})
    assert numbers[-1] == 60
    assert 50 <= len(numbers) <= 51
