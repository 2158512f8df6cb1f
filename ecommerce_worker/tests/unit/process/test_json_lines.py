"""Log lines as JSON: each record one object on one line, in the names of ECS, whatever is in it."""

import json
import logging
import subprocess
import sys
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecommerce_worker import __version__, correlation, logs
from ecommerce_worker.process import role
from ecommerce_worker.process.json_lines import LONGEST, JsonLines, line
from ecommerce_worker.process.output import Queued, outlet
from ecommerce_worker.telemetry.log import Lines
from ecommerce_worker.telemetry.run import RunReport

#: The first keys of a line, in this order.
HEAD = ['@timestamp', 'log.level', 'message', 'service.name', 'service.version', 'service.role', 'process.pid',
        'log.logger']


class Kept(logging.Handler):
    """Keeps what the formatter makes of records."""

    def __init__(self, logger):
        super().__init__()
        self.logger, self.lines = logger, []
        self.setFormatter(JsonLines())

    def emit(self, record):
        self.lines.append(self.format(record))

    def read(self):
        assert outlet.flush(10)
        return [json.loads(it) for it in self.lines]


@pytest.fixture
def kept(request):
    """What is made of the records of a logger behind the handler that each of our processes has."""
    logger = logging.getLogger(request.node.name)
    kept = Kept(logger)
    logger.handlers, logger.propagate, logger.level = [Queued([kept])], False, logging.DEBUG
    yield kept
    logger.handlers = []


def test_a_record_of_ours_has_its_sentence_and_its_fields(kept):
    logs.Log(kept.logger).warning('a job was not woken up', entry='nightly', error='TimeoutError', seconds=0.25)
    (said,) = kept.read()
    assert list(said)[:8] == HEAD
    assert {**said, '@timestamp': '', 'process.pid': 0, 'log.logger': ''} == {
        '@timestamp': '', 'log.level': 'warning', 'message': 'a job was not woken up',
        'service.name': 'ecommerce-worker', 'service.version': __version__, 'service.role': role.name(),
        'process.pid': 0, 'log.logger': '', 'labels.entry': 'nightly', 'error.type': 'TimeoutError',
        'event.duration': 250_000_000}


def test_a_time_is_utc_to_the_millisecond():
    assert json.loads(line('info', 'it', created=1_795_000_000.0625))['@timestamp'] == '2026-11-18T11:06:40.062Z'


def test_a_run_has_all_that_is_reported_of_it(kept, monkeypatch):
    monkeypatch.setattr('ecommerce_worker.telemetry.log.logger', logs.Log(kept.logger))
    Lines().reported(RunReport(
        'retrying', task='fulfill_order', id='id-1', key='EDX-1', site='edx', attempt=2, started=1_795_000_000.0,
        seconds=0.25, next_try=1_795_000_008.25, reason='the shop failed (503)', root_id='root-1', status=503,
        queue='ecommerce.fulfillment'))
    (said,) = kept.read()
    assert {name: value for name, value in said.items() if name not in HEAD or name == 'message'} == {
        'message': 'retrying', 'event.action': 'retrying', 'event.outcome': 'unknown', 'event.duration': 250_000_000,
        'event.reason': 'the shop failed (503)', 'ecommerce.task': 'fulfill_order', 'ecommerce.key': 'EDX-1',
        'ecommerce.site': 'edx', 'ecommerce.id': 'id-1', 'ecommerce.root_id': 'root-1', 'ecommerce.attempt': 2,
        'ecommerce.queue': 'ecommerce.fulfillment', 'ecommerce.status': 503,
        'ecommerce.next_try': '2026-11-18T11:06:48.250Z'}


@pytest.mark.parametrize('outcome, success', [
    ('done', 'success'), ('skipped', 'success'), ('retrying', 'unknown'), ('parked', 'failure'),
    ('returned', 'failure'), ('accepted', 'unknown'), ('resent', 'unknown'), ('discarded', 'failure')])
def test_an_outcome_is_a_success_or_not(kept, monkeypatch, outcome, success):
    monkeypatch.setattr('ecommerce_worker.telemetry.log.logger', logs.Log(kept.logger))
    Lines().reported(RunReport(outcome))
    assert [(it['event.action'], it['event.outcome']) for it in kept.read()] == [(outcome, success)]


@pytest.mark.parametrize('seconds', [float('inf'), float('nan')])
def test_a_duration_that_is_no_number_costs_no_line(kept, seconds):
    logs.Log(kept.logger).info('it took', seconds=seconds)
    (said,) = kept.read()
    assert said['message'] == 'it took'
    assert said['event.duration'] == str(seconds)


def test_a_traceback_is_within_the_object(kept):
    try:
        raise ValueError('it\nbroke')
    except ValueError:
        kept.logger.exception('oh %s', 'no')
    (said,) = kept.read()
    assert said['message'] == 'oh no'
    assert said['error.type'] == 'ValueError'
    assert said['error.stack_trace'].splitlines()[0].strip() == 'Traceback (most recent call last):'
    assert 'test_json_lines.py' in said['error.stack_trace']


def test_lines_of_a_detail_are_within_the_object(kept):
    logs.Log(kept.logger).error('a task has a programming error', detail='  File "a"\n    b\n')
    (said,) = kept.read()
    assert (said['message'], said['error.stack_trace']) == ('a task has a programming error', '  File "a"\n    b\n')


def test_a_record_has_the_id_of_who_logged_it(kept):
    with correlation.of('req-1'):
        kept.logger.info('one')
    kept.logger.info('two')
    assert [it.get('ecommerce.request_id') for it in kept.read()] == ['req-1', None]


@given(st.text(), st.dictionaries(st.sampled_from(['key', 'reason', 'error', 'odd']), st.one_of(
    st.text(), st.floats(), st.integers(), st.none(), st.binary(), st.lists(st.text())), max_size=4), st.text())
def test_whatever_it_holds_a_line_is_one_object_and_shows_nothing_that_a_terminal_obeys(sentence, fields, trace):
    text = line('info', sentence, created=1e9, fields={**fields, 'trace': trace})
    assert text.isprintable()
    assert text.encode().decode() == text
    found = json.loads(text, parse_constant=pytest.fail)
    assert all(value.encode() is not None for value in found.values() if isinstance(value, str))
    assert next(iter(found)) == '@timestamp'


@pytest.mark.parametrize('letter', ['a', 'ß', '\U0001f4a9', '\n', '\x1b', '"'])
def test_a_line_has_a_bound_and_of_a_long_text_both_ends(letter):
    text = line('info', f'begin{letter * 50_000}end', created=1e9, fields={
        'reason': f'why{letter * 50_000}so', 'trace': f'first{letter * 90_000}last', 'key': 'EDX-1'})
    assert len(text.encode()) <= LONGEST
    found = json.loads(text)
    for name, ends in (('message', ('begin', 'end')), ('event.reason', ('why', 'so')),
                       ('error.stack_trace', ('first', 'last'))):
        assert (found[name][:len(ends[0])], found[name][-len(ends[1]):]) == ends
    assert found['ecommerce.key'] == 'EDX-1'


def test_many_fields_are_bounded_too():
    text = line('info', 'x' * 20_000, created=1e9, fields={f'name{number}': 'x' * 100 for number in range(2000)})
    assert len(text.encode()) <= LONGEST
    assert json.loads(text)['message'].startswith('xxxxx')


def test_whatever_a_process_says_is_json():
    program = textwrap.dedent("""
        import logging, sys, threading, warnings
        from ecommerce_worker.process import output, role
        role.be('beat')
        output.open_standard()
        logging.basicConfig(stream=sys.stdout, level=logging.INFO)
        output.open_log()
        output.say_in_json()
        print('printed\\n\\ntwice')
        print('to the other', file=sys.stderr)
        logging.getLogger('x').info('logged %s', 'so')
        warnings.warn('be warned')
        later = logging.getLogger('later')
        later.handlers = [logging.StreamHandler(sys.stdout)]
        later.propagate = False
        output.open_log()
        later.warning('opened later')
        def fail():
            raise KeyError('in a thread')
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
        sys.stdout.write('no end of line')
        raise OSError('at the end')
    """)
    ended = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 1
    said = [json.loads(it) for it in (ended.stdout + ended.stderr).splitlines()]
    assert {it['service.role'] for it in said} == {'beat'}
    messages = [it['message'] for it in said]
    assert messages[:2] == ['printed', 'twice']
    assert 'to the other' in messages
    assert 'logged so' in messages
    assert 'opened later' in messages
    assert any('be warned' in it for it in messages)
    assert [it['error.type'] for it in said if it['log.level'] == 'critical'] == ['KeyError', 'OSError']
