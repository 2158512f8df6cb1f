"""What the demonstration expects of each order and mail, and what it makes of one that ends otherwise."""

import io
import re
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from ecommerce_worker.demo.cover import covers
from ecommerce_worker.demo.orders import (
    CAMPUS,
    HOPELESS,
    IN_MID_FLIGHT,
    LETTERS,
    MUG,
    NEWCOMER,
    REFUSALS,
    TROUBLES,
    TWICE,
    End,
    Letter,
    Outcome,
    Seen,
    Shape,
    Story,
    counted,
    faults,
    retold,
)
from ecommerce_worker.demo.screen import Screen, Tail
from ecommerce_worker.demo.stage import HURRIED, Interruptions
from ecommerce_worker.demo.story import Play
from ecommerce_worker.testing.shop import Call, Order

STORY = Story('EDX-1', 'nothing special', opt_in=True)
FULFILLED = Order('EDX-1', 'Complete', email_opt_in=True, fulfilments=1)
PUT = Call('1', 100.0, 'PUT', '/', order='EDX-1', status=200, duration=0.1)
GOOD = Seen(FULFILLED, (PUT,))

LETTER = Letter(7, 'nothing special', 'ann@acme.example')
MAIL = Call('2', 100.0, 'POST', '/', mail='id', status=202, duration=0.1)
LIMITED = replace(MAIL, id='3', time=97.0, status=429)
REPORT = Call('4', 101.0, 'POST', '/', assignment='7', status=200, duration=0.1)
SENT = Seen(calls=(MAIL, REPORT))
LATE = replace(LETTER, tries=2, pause=3)
REFUSED = replace(LETTER, end=End.PARKED, reason='refuses it')

PARKED = Story('EDX-1', 'nobody knows it', end=End.PARKED, puts=0, reason='there is no task')


def later(call, seconds, **changes):
    return replace(call, time=call.time + seconds, **changes)


def test_an_order_that_ended_as_it_should_has_no_fault():
    assert faults(STORY, GOOD) == []
    assert faults(PARKED, Seen(parked=("there is no task 'x'",))) == []
    assert faults(replace(STORY, end=End.LEFT_ALONE), Seen(Order('EDX-1', 'Complete'), (PUT,))) == []


@pytest.mark.parametrize('story, seen, fault', [
    (STORY, Seen(), 'it is unknown, not fulfilled'),
    (STORY, Seen(Order('EDX-1'), (PUT,)), 'it is open, not fulfilled'),
    (STORY, replace(GOOD, parked=('given up',)), 'it is parked, not fulfilled'),
    (STORY, replace(GOOD, order=replace(FULFILLED, fulfilments=2)), 'the shop fulfilled it 2 times'),
    (STORY, replace(GOOD, order=replace(FULFILLED, fulfilments=0)), 'it is left alone, not fulfilled'),
    (STORY, replace(GOOD, order=replace(FULFILLED, email_opt_in=False)), 'the shop received email_opt_in=False'),
    (STORY, replace(GOOD, calls=()), 'the shop was asked 0 times, not 1'),
    (STORY, replace(GOOD, calls=(PUT, PUT)), 'the shop was asked 2 times, not 1'),
    (replace(STORY, puts=2), replace(GOOD, calls=(PUT, later(PUT, 1, overlapping=True))),
     'the shop was asked again during the first call'),
    (replace(STORY, puts=2, pause=4), replace(GOOD, calls=(PUT, later(PUT, 3.9))),
     'the shop was asked again before 4 s had passed'),
    (replace(STORY, end=End.LEFT_ALONE), GOOD, 'it is fulfilled, not left alone'),
    (PARKED, Seen(), 'it is unknown, not parked'),
    (PARKED, Seen(parked=('something else',)), 'it is parked for another reason: something else'),
    (PARKED, Seen(parked=('there is no task', 'there is no task')), 'it is parked 2 times'),
], ids=lambda value: value if isinstance(value, str) else '')
def test_an_order_that_ended_otherwise_has_a_fault(story, seen, fault):
    assert fault in faults(story, seen)


def test_a_mail_that_ended_as_it_should_has_no_fault():
    assert faults(LETTER, SENT) == []
    assert faults(LATE, Seen(calls=(LIMITED, MAIL, REPORT))) == []
    assert faults(REFUSED, Seen(calls=(replace(MAIL, status=400),), parked=('SendGrid refuses it',))) == []


@pytest.mark.parametrize('letter, seen, fault', [
    (LETTER, Seen(), 'it is unknown, not sent'),
    (LETTER, replace(SENT, parked=('given up',)), 'it is parked, not sent'),
    (LETTER, Seen(calls=(MAIL, MAIL, REPORT)), 'the mail service accepted it 2 times'),
    (LETTER, Seen(calls=(LIMITED, MAIL, REPORT)), 'the mail service was asked 2 times, not 1'),
    (LATE, Seen(calls=(replace(LIMITED, time=97.1), MAIL, REPORT)),
     'the mail service was asked again before 3 s had passed'),
    (LETTER, Seen(calls=(MAIL,)), 'it was reported to the shop 0 times'),
    (LETTER, Seen(calls=(MAIL, replace(REPORT, status=500))), 'it was reported to the shop 0 times'),
    (LETTER, Seen(calls=(MAIL, REPORT, REPORT)), 'it was reported to the shop 2 times'),
    (REFUSED, SENT, 'it is sent, not parked'),
    (REFUSED, Seen(calls=(REPORT,), parked=('refuses it',)), 'it was reported to the shop 1 times'),
    (REFUSED, Seen(parked=('is down',)), 'it is parked for another reason: is down'),
], ids=lambda value: value if isinstance(value, str) else '')
def test_a_mail_that_ended_otherwise_has_a_fault(letter, seen, fault):
    assert fault in faults(letter, seen)


def test_each_mail_has_a_fate_of_its_own():
    assert len({letter.assignment for letter in LETTERS}) == len({letter.to for letter in LETTERS}) == len(LETTERS)
    assert [letter.number for letter in LETTERS if letter.end is End.PARKED and letter.reason]
    assert [letter.number for letter in LETTERS if letter.end is End.SENT and letter.pause]


def test_the_pause_that_the_shop_asked_for_is_enough():
    seen = replace(GOOD, calls=(PUT, later(PUT, 4)))
    assert faults(replace(STORY, puts=2, pause=4), seen) == []


def test_every_order_is_another_one_and_every_promised_trouble_is_there():
    stories = [*TROUBLES, HOPELESS, *IN_MID_FLIGHT]
    assert len({story.number for story in stories}) == len(stories) >= 12
    assert {story.shape for story in stories} == set(Shape)
    assert {answer.status for story in stories for answer in story.answers} >= {429, 500, 503}
    assert any(answer.drop and answer.effect for story in stories for answer in story.answers)
    assert any(story.hidden for story in stories)
    assert {End.FULFILLED, End.LEFT_ALONE, End.PARKED} == {story.end for story in stories}


def test_the_worker_is_as_patient_as_the_stories_count_on():
    assert HURRIED['MAX_FULFILLMENT_RETRIES'] == REFUSALS


def test_calls_are_counted_by_kind():
    calls = [PUT, later(PUT, 1), replace(PUT, method='GET'), replace(PUT, method='POST', order=None)]
    assert counted(calls) == '2 PUT 1 GET 1 token'
    assert counted([LIMITED, MAIL, REPORT]) == '2 mail 1 report'
    assert counted([]) == 'none'


def test_what_was_said_several_times_in_a_row_is_told_once():
    assert retold(['busy', 'busy', 'fulfilled']) == 'busy, twice; fulfilled'
    assert retold(['busy', 'busy', 'busy', 'sent again', 'busy']) == 'busy, 3 times; sent again; busy'


def test_an_outcome_is_told_in_plain_words():
    fields = {'attempt': '3', 'seconds': '3.210', 'reason': '', 'next_try': '-'}
    assert Outcome.of('done', fields).told() == 'fulfilled at try 3 after 3.2 s'
    assert Outcome.of('done', {}).told() == 'fulfilled'
    assert Outcome.of('done', {'attempt': '2'}).told('sent') == 'sent at try 2'
    assert Outcome.of('retrying', {'reason': 'the shop failed', 'next_try': '2s'}).told() == 'the shop failed'
    assert not Outcome('retrying').final
    assert Outcome('parked').final


def test_a_tail_gives_each_whole_line_once(tmp_path):
    path = tmp_path / 'log'
    tail = Tail(path)
    assert tail.lines() == []
    path.write_bytes(b'one\ntwo\nthr')
    assert tail.lines() == ['one', 'two']
    assert tail.lines() == []
    with path.open('ab') as file:
        file.write('ee\nvier ü'.encode())
    assert tail.lines() == ['three']


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self):
        return True


def test_colour_is_for_a_terminal_whose_reader_wants_it(monkeypatch):
    monkeypatch.setenv('TERM', 'xterm')
    monkeypatch.delenv('NO_COLOR', raising=False)

    def shown(stream):
        Screen(stream).event('EDX-1', 'done', 'fulfilled', '32')
        return stream.getvalue()

    assert '\033[32mdone' in shown(Terminal())
    assert '\033' not in shown(io.StringIO())
    monkeypatch.setenv('NO_COLOR', '1')
    assert '\033' not in shown(Terminal())


def test_a_table_is_no_wider_than_it_may_be_and_keeps_its_columns(monkeypatch):
    monkeypatch.setenv('COLUMNS', '100')
    stream = io.StringIO()
    Screen(stream).table(('A', 'B', 'C'), [('EDX-1', 'word ' * 60, '✓'), ('EDX-10', 'short', '✗')], flexible=1)
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[0].index('B') == lines[1].index('word') == lines[-1].index('short') == len('EDX-10') + 2
    assert len(lines) > 4


class Shop:
    """What the judge asks of a shop, or of a mail service."""

    def __init__(self, orders: Mapping[str, Order], calls: tuple[Call, ...]) -> None:
        self.orders, self.calls = orders, calls


def judged(story: Story | Letter, seen: Seen, left: Mapping[str, int] | None = None) -> tuple[Play, str]:
    orders = {story.number: seen.order} if seen.order else {}
    stage: Any = SimpleNamespace(
        interruptions=Interruptions(),
        shop=Shop(orders, tuple(call for call in seen.calls if not call.mail)), campus=Shop({}, ()),
        mail=Shop({}, tuple(seen.mails)), published={'id': story.number}, keep_logs=False,
        logs='/somewhere/logs', workers=[SimpleNamespace(ended=True)],
        broker=SimpleNamespace(parked=lambda: [('id', reason) for reason in seen.parked], left=lambda: left or {}))
    stream = io.StringIO()
    play = Play(stage, Screen(stream))
    play.stories.append(story)
    play.judge(0)
    return play, stream.getvalue()


def test_the_status_is_0_when_each_order_ended_as_it_should():
    play, shown = judged(STORY, GOOD)
    assert play.status == 0
    assert re.search(r'EDX-1 .* fulfilled +✓', shown)
    assert not play.stage.keep_logs


def test_the_status_is_0_when_each_mail_ended_as_it_should_and_1_otherwise():
    play, shown = judged(LETTER, SENT)
    assert (play.status, 'All 0 orders and 1 mails ended as they should' in shown) == (0, True)
    assert re.search(r'mail 7 .* 1 mail 1 report .* sent +✓', shown)
    play, shown = judged(LETTER, Seen(calls=(MAIL,)))
    assert (play.status, 'mail 7 did not end as it should' in shown) == (1, True)


def test_the_status_is_1_when_an_order_ended_otherwise_and_the_output_says_which_and_where_to_look():
    play, shown = judged(STORY, replace(GOOD, order=replace(FULFILLED, fulfilments=2)))
    assert play.status == 1
    assert re.search(r'EDX-1 .* fulfilled +✗', shown)
    assert 'EDX-1 did not end as it should: the shop fulfilled it 2 times' in shown
    assert 'The logs are in /somewhere/logs' in shown
    assert play.stage.keep_logs


def test_the_status_is_1_when_a_message_is_left_in_a_queue():
    play, shown = judged(STORY, GOOD, {'ecommerce.fulfillment': 1})
    assert play.status == 1
    assert 'In the queues: 1 left in ecommerce.fulfillment' in shown


def test_a_sites_token_calls_count_as_calls_for_its_order():
    token = replace(PUT, method='POST', order=None, status=503)
    stage: Any = SimpleNamespace(
        interruptions=Interruptions(),
        shop=Shop({}, ()), campus=Shop({'EDX-1': FULFILLED}, (token, PUT)), mail=Shop({}, ()), published={},
        broker=SimpleNamespace(parked=list))
    play = Play(stage, Screen(io.StringIO()))
    play.stories.append(replace(STORY, site=CAMPUS))
    assert counted(play.seen()['EDX-1'].calls) == '1 PUT 1 token'


# -- courses of the academy -------------------------------------------------------------------------------------------

@pytest.mark.parametrize('purchase, seen', [
    (NEWCOMER, Seen(modes=('verified',))), (MUG, Seen(parked=('MUG is not in PRODUCTS; …',), modes=('verified',))),
])
def test_a_purchase_that_ended_as_it_should_has_no_fault(purchase, seen):
    assert faults(purchase, seen) == []


@pytest.mark.parametrize('purchase, seen, fault', [
    (NEWCOMER, Seen(modes=('',)), 'it is open, not enrolled'),
    (NEWCOMER, Seen(modes=('audit',)), 'the learner is audit enrolled in course-v1:Pretend+PY101+2027'),
    (MUG, Seen(parked=('MUG is not in PRODUCTS',), modes=('',)),
     'the learner is not enrolled in course-v1:Pretend+PY101+2027'),
    (MUG, Seen(modes=('verified',)), 'it is enrolled, not parked'),
])
def test_a_purchase_that_ended_otherwise_has_a_fault(purchase, seen, fault):
    assert fault in faults(purchase, seen)


def test_one_of_two_orders_for_a_course_pays_for_it_and_the_one_that_was_given_back_does_not():
    given_back, kept = TWICE
    course, = kept.courses
    assert [covers(it.number, it.learner, course, None) for it in (given_back, kept)] == [True, False]
