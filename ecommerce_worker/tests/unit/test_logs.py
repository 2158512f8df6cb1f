"""Log lines: fields that cannot be mistaken, and no line that is not one, whoever logs."""

import ast
import io
import logging
from pathlib import Path

import pytest

import ecommerce_worker
from ecommerce_worker import logs
from ecommerce_worker.process.output import Queued, outlet

#: What somebody would have the log say.
FORGED = '2026-11-27 12:00:00,000 INFO 1 [x] y.py:1 - done: task=fulfill_order key=EDX-9'

#: Each ends a line for some reader of lines, or is obeyed by a terminal.
BREAKS = ['\n', '\r', '\r\n', '\x0b', '\x0c', '\x1c', '\x85', '\u2028', '\u2029', '\x1b[1A\x1b[2K', '\x00', '\x08']

#: What a logger is called by.
METHODS = ('debug', 'info', 'warning', 'error', 'exception', 'critical', 'log')

ROOT = Path(ecommerce_worker.__file__).parent


@pytest.fixture
def written():
    """A logger behind the handler that each of our processes has, and what comes out of it."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter('%(asctime)s %(levelname)s - %(message)s'))
    logger = logging.getLogger('another.package')
    before = logger.handlers, logger.propagate, logger.level
    logger.handlers, logger.propagate = [Queued([handler])], False
    logger.setLevel(logging.DEBUG)

    def read() -> list[str]:
        assert outlet.flush(10)
        return stream.getvalue().splitlines()

    yield logger, read
    logger.handlers, logger.propagate = before[:2]
    logger.setLevel(before[2])


def line(caplog, *args, **fields):
    with caplog.at_level(logging.INFO):
        logs.of('ours').info(*args, **fields)
    return caplog.messages[-1]


@pytest.mark.parametrize('value, shown', [
    ('EDX-1', 'EDX-1'), ('', '-'), (None, '-'), (7, '7'), (0.25, '0.250'), (True, 'True'), ('EDX 1', '"EDX 1"'),
    ('a"b', r'"a\"b"'), ('a\\b', r'"a\\b"'), ('a=b', '"a=b"'), ('a\nb', r'"a\nb"'), ('\ud800', r'"\ud800"'),
    (['a', 'b c'], '"[\'a\', \'b c\']"')])
def test_a_field_is_one_word(caplog, value, shown):
    assert line(caplog, 'it happened', key=value, id='x') == f'it happened: key={shown} id=x'


def test_a_sentence_in_a_field_is_in_quotes(caplog):
    assert line(caplog, 'it happened', reason='', how='failed') == 'it happened: reason="" how="failed"'


def test_a_line_without_fields_is_the_sentence(caplog):
    assert line(caplog, 'it happened') == 'it happened'


def test_a_record_has_its_sentence_and_its_fields(caplog):
    line(caplog, 'it happened', key='EDX 1', seconds=0.25)
    record = caplog.records[-1]
    assert (record.sentence, record.fields) == ('it happened', {'key': 'EDX 1', 'seconds': 0.25})
    assert record.filename == 'test_logs.py'


def test_lines_of_a_detail_are_indented(caplog):
    assert line(caplog, 'it happened', id='x', detail=f'  File "a"\n{FORGED}\n') == (
        f'it happened: id=x\n    File "a"\n  {FORGED}')


@pytest.mark.parametrize('separator', BREAKS, ids=ascii)
@pytest.mark.parametrize('given', ['field', 'sentence', 'detail', 'another library', 'traceback', 'stack'])
def test_nobody_forges_a_line(written, given, separator):
    logger, read = written
    evil = f'x{separator}{FORGED}'
    ours = logs.Log(logger)
    if given == 'field':
        ours.warning('it happened', id=evil, reason=evil)
    elif given == 'sentence':
        ours.warning(evil)
    elif given == 'detail':
        ours.warning('it happened', detail=evil)
    elif given == 'another library':
        logger.debug('Received %s', evil)
    elif given == 'stack':
        logger.handle(logger.makeRecord('x', logging.ERROR, 'f', 1, 'it happened', (), None, sinfo=evil))
    else:
        try:
            raise ValueError(evil)
        except ValueError:
            logger.exception('it failed')
    lines = read()
    assert lines
    assert not [it for it in lines[1:] if not it.startswith('  ')]
    assert all(it.isprintable() for it in lines)


def test_the_lines_of_another_library_stay_lines(written):
    logger, read = written
    logger.warning('Cannot connect.\nTrying again.\n\tsoon')
    assert [it.partition(' - ')[2] or it for it in read()] == ['Cannot connect.', '  Trying again.', '  \tsoon']


def calls(tree):
    """The calls of a module's logger."""
    for node in ast.walk(tree):
        if (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
                and getattr(node.func.value, 'id', '') in ('logger', '_logger') and node.func.attr in METHODS):
            yield node


def test_each_of_our_calls_has_a_sentence_and_fields_and_each_logger_is_ours():
    wrong, seen = [], 0
    for path in sorted(ROOT.rglob('*.py')):
        if path.is_relative_to(ROOT / 'tests'):
            continue
        tree = ast.parse(path.read_bytes())
        found = list(calls(tree))
        seen += len(found)
        wrong += [f'{path.name}:{call.lineno}' for call in found
                  if len(call.args) != (2 if call.func.attr == 'log' else 1)
                  or isinstance(call.args[-1], ast.JoinedStr | ast.BinOp)]
        wrong += [f'{path.name}: {ast.unparse(node)}' for node in ast.walk(tree) if isinstance(node, ast.Call)
                  and ast.unparse(node) == 'logging.getLogger(__name__)']
    assert not wrong
    assert seen > 50
