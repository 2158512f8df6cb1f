"""The console's pages: who sees what, who may do what, and what becomes of it."""

import contextlib
import re
import time
from datetime import UTC, datetime
from urllib.parse import quote

import pytest

from ecommerce_worker.broker.notes import NOTES
from ecommerce_worker.broker.wire import Raw
from ecommerce_worker.enrolment.learner import masked, pseudonym
from ecommerce_worker.ledger.incoming import Parcel
from ecommerce_worker.schedule.claims import id_of
from ecommerce_worker.schedule.entries import RETENTION, Entry
from ecommerce_worker.telemetry.run import RunReport
from ecommerce_worker.telemetry.tally import Tally
from ecommerce_worker.testing.peer import Peer, reply
from ecommerce_worker.tests.support.console import Console
from ecommerce_worker.tests.support.ledger import Refused, environment_of

FULFILL = 'ecommerce_worker.fulfillment.v1.tasks.fulfill_order'
MAIL = 'ecommerce_worker.email.v1.api.send_refund_email'
QUEUE = 'ecommerce.fulfillment'
SECRET = 'learner@example.com'
LEARNER_KEY = 'a key of more than thirty-two characters'


class Shop:
    """A shop that tells how its orders stand."""

    def __init__(self):
        self.peer = Peer(self.answer)
        self.forget()

    def forget(self):
        self.statuses, self.failing = {}, False
        self.peer.requests.clear()

    def answer(self, request):
        if self.failing:
            return reply(503)
        number = request.target.rstrip('/').rpartition('/')[2]
        status = self.statuses.get(number, 'Open')
        return reply(200, f'{{"number": "{number}", "status": "{status}"}}'.encode()) if status else reply(404)

    @property
    def asked(self):
        return [(request.method, request.target) for request in self.peer.requests]


@pytest.fixture(scope='module')
def served(tmp_path_factory):
    """A console and the shop that it asks."""
    shop = Shop()
    console = Console({
        **environment_of({'NAME': str(tmp_path_factory.mktemp('console') / 'ledger.sqlite3')}),
        'WORKER_CONFIGURATION_MODULE': 'ecommerce_worker.configuration.test', 'ECOMMERCE_WORKER_BROKER_URL': 'memory://',
        'ECOMMERCE_WORKER_ALLOW_UNSAFE_BROKER': 'true', 'ECOMMERCE_WORKER_ECOMMERCE_API_ROOT': shop.peer.url,
        'ECOMMERCE_WORKER_JWT_SECRET_KEY': 'a secret of more than thirty-two bytes',
        'ECOMMERCE_WORKER_RESENDS_PER_HOUR': '2', 'ECOMMERCE_WORKER_LEARNER_KEY': LEARNER_KEY,
        'ECOMMERCE_WORKER_LEARNER_KEY_BEFORE': LEARNER_KEY[::-1]})
    yield console, shop
    console.close()
    shop.peer.close()


@pytest.fixture
def console(served):
    """The console, empty."""
    console, shop = served
    shop.forget()
    console('clear')
    console('queued', QUEUE)
    return console


@pytest.fixture
def shop(served, console):
    return served[1]


def fact(outcome='done', ago=0.0, **other):
    return RunReport(outcome, started=time.time() - ago, **{
        'attempt': 1, 'task': FULFILL, 'id': 'id-1', 'key': 'EDX-1', 'site': 'edx', 'queue': QUEUE, **other})


def parcel(key='EDX-1', task=FULFILL, **header):
    notes = {'queue': QUEUE, 'attempt': 3, 'history': [], 'id': f'id-{key}', 'task': task, 'key': key,
             'site': 'edx', 'reason': 'the shop failed (500)', 'parked_at': time.time(), **header}
    body = b'[["%s"], {"site_code": "edx", "to": "%s"}, {}]' % (key.encode(), SECRET.encode())
    return Parcel.of(Raw(body, 'application/json', 'utf-8', {'task': task, 'lang': 'py', NOTES: notes},
                         {'correlation_id': f'id-{key}'}))


def park(console, *keys, **other):
    """Park messages; their numbers."""
    console('recording.record', (), [parcel(key, **other) for key in keys])
    return console('rows', 'ParkedMessage', 'pk')


def decide(console, who, action, *numbers, reason='they called', **other):
    return console('visit', '/parked/decide/', who=who, follow=True, send={
        'action': action, 'message': [str(number) for number in numbers], 'reason': reason, 'sure': 'yes', **other})


def audits(console):
    return console('rows', 'Audit', 'who', 'action', 'key', 'reason')


PAGES = ['/', '/orders/?q=EDX-1', '/orders/1/', '/intakes/', '/parked/', '/parked/1/', '/auth/user/', '/ledger/audit/']


def tally(**other):
    return Tally(**{'intake': 'shop', 'process': 'a' * 32, 'hour': int(time.time() // 3600 * 3600), 'number': 1,
                    'kind': 'shopify', 'url': 'https://hooks.example.com/in/shop', 'state': 'live',
                    'test_orders': 'ignore', 'counts': {'accepted': {'': 3}, 'refused': {'signature': 2}},
                    'times': (*[0] * 4, 9, *[0] * 8), 'last': time.time(), **other})


# -- what came in -----------------------------------------------------------------------------------------------------

def test_an_intake_shows_its_address_and_what_came_of_all_its_processes(console):
    console('recording.record', tallies=[tally(), tally(process='b' * 32)])
    words = console('visit', '/intakes/', who='viewer').words
    assert 'https://hooks.example.com/in/shop Kind shopify Processes 2' in words
    assert '99 % answered in 20 ms or less' in words
    assert 'Refused Unavailable 6 0 0 0 4 0 4 refused: signature' in words
    assert 'Test mode' not in words


@pytest.mark.parametrize('given, said', [
    ({'state': 'dry'}, 'It is dry : deliveries are checked, but nothing is published.'),
    ({'test_orders': 'run'}, 'Test mode: test orders are run like all others.'),
    ({'last': None}, 'Last seen nothing yet'),
    ({'intake': '-', 'counts': {'refused': {'no such intake': 7}}},
     '7 deliveries named an intake that does not exist.')])
def test_what_is_not_as_usual_of_an_intake_is_said(console, given, said):
    console('recording.record', tallies=[tally(**given)])
    assert said in console('visit', '/intakes/', who='viewer').words


def test_without_an_intake_the_page_says_so(console):
    assert 'No intakes: shops that deliver' in console('visit', '/intakes/', who='viewer').words


# -- who may come in --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('path', PAGES)
def test_nobody_sees_anything_without_a_login(console, path):
    found = console('visit', path)
    assert (found.status, found.headers['Location']) == (302, f'/login/?next={quote(path)}')


@pytest.mark.parametrize('path', PAGES)
def test_who_has_no_role_sees_nothing(console, path):
    found = console('visit', path, who='somebody', follow=True)
    assert 'not authorized' in found.words
    assert 'EDX' not in found.words.replace('EDX-1 ', '')


@pytest.mark.parametrize('who, seen', [('viewer', 0), ('support', 0), ('operator', 1)])
def test_people_and_decisions_are_for_operators(console, who, seen):
    for path in ('/auth/user/', '/ledger/audit/'):
        assert console('visit', path, who=who).status == (200 if seen else 403)
    assert console('visit', '/', who=who).text.count('Who did what') == seen


def test_pages_load_nothing_from_elsewhere_and_are_in_nobodys_frame(console):
    found = console('visit', '/', who='viewer')
    assert "default-src 'none'" in found.headers['Content-Security-Policy']
    assert 'unsafe' not in found.headers['Content-Security-Policy']
    assert found.headers['X-Frame-Options'] == 'DENY'
    assert 'no-store' in found.headers['Cache-Control']
    assert not re.search(r'<script|style="|onclick', found.text)


def test_styles_are_served(console):
    for path in ('/static/console/console.css', '/static/admin/css/base.css', '/static/admin/css/dark_mode.css'):
        assert console('visit', path).status == 200


def test_another_host_name_is_refused(console):
    assert console('visit', '/', host='evil.example').status == 400


def test_a_page_that_is_not_there_says_so(console):
    found = console('visit', '/orders/77/', who='viewer')
    assert (found.status, 'Page not found' in found.words) == (404, True)


# -- logging in -------------------------------------------------------------------------------------------------------

PASSWORD = {'new_password1': 'correct horse 7', 'new_password2': 'correct horse 7'}


def test_a_link_lets_its_person_choose_a_password_once(console):
    link = console('invite', 'ada', 'support')
    *_, chosen, logged_in = console('browse', [
        (link, None), (re.sub('[^/]+/$', 'set-password/', link), PASSWORD),
        ('/login/', {'username': 'ada', 'password': 'correct horse 7', 'next': '/parked/'})])
    assert chosen.headers['where'] == '/login/'
    assert (logged_in.headers['where'], 'Log out' in logged_in.words) == ('/parked/', True)
    [again] = console('browse', [(link, None)])
    assert 'This link is no longer valid' in again.words


@pytest.mark.parametrize('password, complaint', [('short', 'at least 12'), ('password1234', 'too common')])
def test_a_password_that_is_easy_to_guess_is_refused(console, password, complaint):
    link = console('invite', 'ada')
    _, found = console('browse', [(link, None), (re.sub('[^/]+/$', 'set-password/', link), {
        'new_password1': password, 'new_password2': password})])
    assert complaint in found.words


def test_a_new_link_ends_the_force_of_the_one_before(console):
    first = console('invite', 'ada')
    console('invite', 'ada')
    [found] = console('browse', [(first, None)])
    assert 'no longer valid' in found.words


@pytest.mark.parametrize('name, role, complaint', [
    ('a b', '', 'not a valid user name'), ('a' * 151, '', 'at most 150'), ('ada', 'king', 'viewer, support, operator')])
def test_nonsense_is_invited_by_nobody(console, name, role, complaint):
    with pytest.raises(Refused, match=complaint):
        console('invite', name, role)
    assert console('people') == []


def test_five_wrong_passwords_lock_a_name_and_a_new_link_unlocks_it(console):
    def login(name, password):
        return [('/login/', None), ('/login/', {'username': name, 'password': password, 'next': '/'})]

    link = console('invite', 'ada')
    console('browse', [(link, None), (re.sub('[^/]+/$', 'set-password/', link), PASSWORD)])
    wrong = [found for _ in range(5) for found in console('browse', login('ada', 'wrong'))[1:]]
    assert [found.status for found in wrong] == [200] * 4 + [429]
    locked = console('browse', login('ada', 'correct horse 7'))[1]
    assert (locked.status, 'Too many wrong passwords' in locked.words) == (429, True)
    assert console('browse', login('bob', 'wrong'))[1].status == 200
    link = console('invite', 'ada')
    console('browse', [(link, None), (re.sub('[^/]+/$', 'set-password/', link), PASSWORD)])
    assert 'Log out' in console('browse', login('ada', 'correct horse 7'))[1].words


def test_a_form_without_its_token_is_refused(console):
    [number] = park(console, 'EDX-1')
    [found] = console('browse', [('/parked/decide/', {
        'action': 'discard', 'message': str(number), 'reason': 'x'})], who='operator')
    assert found.status == 403
    assert console('queries.count_parked') == 1


def test_an_operator_gives_roles_and_nothing_beyond(console):
    page = console('visit', '/auth/user/', who='operator')
    console('visit', '/', who='viewer')
    [number] = console('people', username='viewer')
    page = console('visit', f'/auth/user/{number}/change/', who='operator')
    assert page.status == 200
    assert 'is_superuser' not in page.text
    assert 'user_permissions' not in page.text


# -- looking ----------------------------------------------------------------------------------------------------------

def test_the_front_page_shows_how_things_stand(console):
    console('recording.record', [fact('retrying', 7200, reason='the shop failed (503)', next_try=time.time() + 600),
                               fact('done', 60, key='EDX-2', id='id-2')], [parcel('EDX-3')])
    words = console('visit', '/', who='viewer').words
    assert ('0 queued for a worker 0 orders with a worker 1 orders waiting for the next try 1 parked messages '
            '1 orders fulfilled') in words
    assert ('EDX-1 , first seen 2 hours ago. The order will be retried in 9 minutes. Last try: the shop failed '
            '(503)') in words
    assert '1 of fulfill_order : the shop failed (500)' in words
    assert 'The last hour: 1 done, 0 to be retried, 0 parked' in words
    assert 'The last day: 1 done, 1 to be retried, 0 parked' in words


def test_an_order_is_found_by_its_number_or_a_part_of_it(console):
    console('recording.record', [fact(), fact(key='EDX-10', id='id-10'), fact(key='EDX-11', id='id-11')])
    found = console('visit', '/orders/?q=EDX-1', who='viewer', follow=True)
    assert 'The order was fulfilled on' in found.words
    assert 'EDX-10' not in found.words
    assert {'EDX-10', 'EDX-11'} <= set(console('visit', '/orders/?q=EDX', who='viewer').words.split())
    assert {'EDX-10', 'EDX-11'} <= set(console('visit', '/orders/?q=x-1', who='viewer').words.split())
    assert console('visit', '/orders/?q=11', who='viewer').status == 302
    missing = console('visit', '/orders/?q=EDX-7', who='viewer').words
    assert 'No order number in the ledger contains EDX-7' in missing
    assert 'resubmit --order EDX-7 asks the shop' in missing
    by_mail = console('visit', '/orders/?q=student@example.com', who='viewer').words
    assert 'The ledger stores no email addresses.' in by_mail
    assert 'resubmit' not in by_mail


def test_all_orders_are_listed_a_page_at_a_time_or_those_of_a_state(console):
    console('recording.record', [fact(key=f'EDX-{number}', id=f'id-{number}', ago=number) for number in range(1, 61)])
    console('recording.record', [fact('retrying', key='EDX-99', id='id-99'), fact(key='a@b.c', id='id-98', task=MAIL)])
    first, second = (console('visit', f'/orders/?page={page}', who='viewer').words for page in (1, 2))
    assert '62 in total, page 1' in first
    assert ('EDX-1 ' in first, 'EDX-60 ' in first, 'EDX-60 ' in second) == (True, False, True)
    assert 'Next page' in first
    assert 'Previous page' in second
    for path, count in (('/orders/?state=waiting', 1), ('/orders/?state=nonsense', 62), ('/orders/?q=', 62),
                        ('/orders/?state=overdue', 0)):
        assert f'{count} in total' in console('visit', path, who='viewer').words
    assert 'The mail was done on' in first
    assert 'href="/orders/"' in console('visit', '/parked/', who='viewer').text


def test_orders_mails_and_jobs_are_counted_apart(console):
    console('recording.record', [
        fact(), fact('retrying', key='a@b.c', id='id-2', task=MAIL), fact(key='', id='id-3', task=RESUBMIT.task),
        fact('retrying', 7200, key='', id='id-4', task=RESUBMIT.task)])
    words = console('visit', '/', who='viewer').words
    assert '0 orders waiting for the next try' in words
    assert '1 orders fulfilled' in words
    assert 'Mails: 1 waiting Jobs: 1 done, 1 waiting' in words
    assert 'The oldest unfulfilled order None.' in words


@pytest.mark.parametrize('path', ['/', '/orders/', '/orders/?q=nothing', '/parked/', '/auth/user/', '/ledger/audit/'])
def test_what_is_wrong_stands_at_the_top_of_every_page(console, path):
    console('recording.record', [fact('retrying', 9000, next_try=time.time() - 8000)])
    console('execute', "UPDATE ledger_order SET heard = '2026-01-01 00:00:00'")
    console('firings', 'tick', 'one', time.time() - 7300)
    found = console('visit', path, who='operator')
    assert ('1 order overdue: no report when one was due. Which? See ecommerce-worker orders list --overdue'
            in found.words)
    assert 'No beat is running: the last sign of life was 2 hours ago.' in found.words
    content = found.text.index('id="content"')
    assert found.text.index('No beat is running') < content
    assert 'errornote' not in found.text[content:]
    assert 'EDX-1' in console('visit', '/orders/?state=overdue', who='viewer').words
    assert 'No beat is running' not in console('visit', '/login/').words


def test_reports_that_were_lost_are_counted_where_people_look(console):
    console('recording.record', [fact(teller='a' * 32, number=3)])
    assert '2 reports of runs lost in the last 7 days' in console('visit', '/', who='viewer').words


@pytest.mark.parametrize('path', [
    '/orders/?q=%00', '/orders/?q=%25', '/orders/?q=%ED%A0%80', '/orders/?state=x', '/orders/?q=<script>', '/orders/',
    '/parked/?page=0', '/parked/?page=99999', '/parked/?page=%C2%B2', '/parked/?key=%00&task=x'])
def test_whatever_is_asked_is_answered(console, path):
    found = console('visit', path, who='viewer')
    assert found.status == 200
    assert '<script' not in found.text


def test_an_order_has_its_story(console):
    console('recording.record', [fact('retrying', 60, seconds=1.5, reason='the shop failed (503)'),
                               fact('parked', 30, attempt=2, reason='the shop refuses it (400)')],
            [parcel(reason='the shop refuses it (400)')])
    [number] = console('rows', 'Order', 'pk')
    words = console('visit', f'/orders/{number}/', who='viewer').words
    assert 'The order has been parked since' in words
    assert 'try 1: to be retried after 1.50 s, the shop failed (503)' in words
    assert 'try 2: parked , the shop refuses it (400)' in words
    assert 'Your role may view messages, but not resend them.' in words


ENROLMENT = 'ecommerce_worker.enrolment.tasks.'


def line(number='#1', key=LEARNER_KEY, **other):
    return fact(**{'task': f'{ENROLMENT}enroll_line', 'key': f'{number} 1', 'id': f'{number} 1', 'order_number': number,
                   'product': 'PY101', 'course': 'course-v1:edX+PY101+1', 'mode': 'verified',
                   'learner': pseudonym(key, SECRET), 'mask': masked(SECRET), **other})


def test_an_order_shows_what_became_of_each_of_its_lines_and_no_address(console):
    console('recording.record', [fact(task=f'{ENROLMENT}enroll', key='#1', id='root'),
                                 line(outcome='parked', reason='its enrolment period is over')])
    order, row = (console('rows', 'Order', 'pk', key=key)[0] for key in ('#1', '#1 1'))
    page = console('visit', f'/orders/{order}/', who='viewer')
    assert 'Its lines' in page.words
    for shown in ('#1 1', 'PY101', 'course-v1:edX+PY101+1 (verified)', 'l…@e….com', 'its enrolment period is over'):
        assert shown in page.words
    assert f'href="/orders/{row}/"' in page.text
    page = console('visit', f'/orders/{row}/', who='viewer')
    assert 'Order #1 Product PY101 Course course-v1:edX+PY101+1 (verified) Learner l…@e….com' in page.words
    assert SECRET not in page.text


def test_a_learner_is_found_by_an_address_that_the_ledger_does_not_have(console):
    console('recording.record', [line(), line('#2'), line('#3', key=LEARNER_KEY[::-1]),
                                 line('#4', learner=pseudonym(LEARNER_KEY, 'bob@example.com'))])
    found = console('visit', '/orders/', who='viewer', send={'q': SECRET.upper()})
    assert found.status == 200  # and no other page, whose URL would have the address
    assert [f'>#{number} 1<' in found.text for number in range(1, 5)] == [True, True, True, False]
    assert SECRET not in str(console('rows', 'Order', 'key', 'reason', 'learner', 'mask'))
    assert 'None of its orders' in console('visit', '/orders/', who='viewer', send={'q': 'x@example.com'}).words


def test_the_results_for_a_number_have_a_url(console):
    console('recording.record', [fact('parked'), fact('parked', key='EDX-12', id='id-2')])
    found = console('visit', '/orders/', who='viewer', send={'q': 'EDX'}, follow=True)
    assert (found.status, 'Orders like EDX' in found.words) == (200, True)


def test_parked_messages_are_filtered_and_paged(console):
    park(console, *(f'EDX-{number}' for number in range(100, 160)))
    park(console, 'MAIL-1', task=MAIL, reason='no vendor')
    assert '61 messages, page 1' in console('visit', '/parked/', who='viewer').words
    second = console('visit', '/parked/?page=2', who='viewer').words
    assert ('EDX-159' in second, 'EDX-100' in second, 'Next page' in second) == (True, False, False)
    for query, count in {'key=EDX-10': 10, f'task={MAIL}': 1, 'reason=no%20vendor': 1, 'site=edx': 61}.items():
        assert f'{count} message' in console('visit', f'/parked/?{query}', who='viewer').words


def test_personal_data_is_shown_to_operators_only_who_ask_for_it_on_record(console):
    console('recording.record', [fact('parked')], [parcel()])
    [number], [order] = console('rows', 'ParkedMessage', 'pk'), console('rows', 'Order', 'pk')
    for who in ('viewer', 'support', 'operator'):
        for path in ('/', f'/orders/{order}/', '/parked/', '/orders/?q=EDX'):
            assert SECRET not in console('visit', path, who=who, follow=True).text
    for who in ('viewer', 'support'):
        assert console('visit', f'/parked/{number}/body/', who=who, send={}).status == 403
    assert console('visit', f'/parked/{number}/body/', who='operator').status == 405
    assert audits(console) == []
    assert SECRET in console('visit', f'/parked/{number}/body/', who='operator', send={}).text
    assert audits(console) == [('operator', 'read', 'EDX-1', 'contents viewed')]


def test_the_audit_log_writes_times_as_all_pages_do(console):
    console('recording.record', [fact('parked')], [parcel()])
    [number] = console('rows', 'ParkedMessage', 'pk')
    console('visit', f'/parked/{number}/body/', who='operator', send={})
    [at] = console('rows', 'Audit', 'at')
    assert f' {at:%Y-%m-%d %H:%M:%S} operator read ' in console('visit', '/ledger/audit/', who='operator').words


# -- the schedule -----------------------------------------------------------------------------------------------------

RESUBMIT = Entry('resubmit', 'ecommerce_worker.resubmit.tasks.resubmit_orders', interval=600)


def of_schedule(console):
    """What the front page says of it, and at its top."""
    return console('visit', '/', who='viewer').words


def firing(console, ago, *, published=True, missed=0):
    """A beat, alive, has fired or left out the entry when it was due so many firings ago; when that was."""
    due = (time.time() // 600 - ago) * 600
    console('firings', 'tick', 'one', time.time())
    console('firings', 'begin', RESUBMIT.key, due - 6000)
    console('firings', 'claim', RESUBMIT.key, due, 'one', due)
    console('firings', 'fired' if published else 'expired', RESUBMIT.key, due, 'one', missed)
    return due


def minute(seconds):
    return f'{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}'


def test_the_schedule_shows_what_was_fired_how_it_ended_and_when_it_is_due_next(console):
    due = firing(console, 0)
    assert 'resubmit every 10 minutes resubmit_orders' in of_schedule(console)
    task, id_ = RESUBMIT.task, id_of(RESUBMIT, due)
    console('recording.record', [fact('accepted', 10, task=task, key='', id=id_, attempt=0)])
    assert f'{minute(due)} no report yet' in of_schedule(console)
    console('recording.record', [fact('retrying', 9, task=task, key='', id=id_),
                               fact('skipped', 5, task=task, key='', id=id_, reason='messages are queued'),
                               fact('parked', 1, task=task, key='', id='another')])
    words = of_schedule(console)
    assert f'{minute(due)} skipped : messages are queued ' in words
    assert minute(due + 600) in words or minute(due + 1200) in words
    assert 'The last sign of life from beat' in words
    assert 'verdue' not in words
    assert 'missed' not in words


def test_a_page_without_a_beat_says_what_that_means(console):
    assert 'No beat has ever run.' in of_schedule(console)
    assert 'start one with ecommerce-worker beat' in of_schedule(console)
    assert 'alarm">No beat' not in console('visit', '/', who='viewer').text
    assert 'when a beat runs' in of_schedule(console)
    assert 'No running beat knows' not in of_schedule(console)
    console('firings', 'tick', 'one', time.time() - 7300)
    assert 'No beat is running: the last sign of life was 2 hours ago.' in of_schedule(console)


def test_what_nobody_has_fired_is_overdue(console):
    due = firing(console, 3)
    words = of_schedule(console)
    assert f'SCHEDULE[resubmit] has been overdue since {minute(due + 600)} UTC: no beat has fired it.' in words
    assert f'overdue since {minute(due + 600)}' in words


def test_what_the_recorder_does_is_shown_and_is_not_beats(console):
    console('firings', 'tick', 'one', time.time())
    assert 'retention 30 3 * * * retention not yet' in of_schedule(console)
    assert 'No running beat knows SCHEDULE[resubmit].' in of_schedule(console)
    entry = Entry('retention', RETENTION, crontab='30 3 * * *')
    due = (time.time() - 3.5 * 3600) // 86_400 * 86_400 + 3.5 * 3600
    console('firings', 'begin', entry.key, due - 86_400)
    console('firings', 'claim', entry.key, due, 'one', due)
    console('firings', 'fired', entry.key, due, 'one', 0)
    assert f'retention 30 3 * * * retention {minute(due)} {minute(due + 86_400)}' in of_schedule(console)


def test_an_entry_that_no_beat_knows_is_named(console):
    console('firings', 'tick', 'one', time.time())
    assert 'No running beat knows SCHEDULE[resubmit]. Restart beat after changing SCHEDULE.' in of_schedule(console)
    assert 'not yet' in of_schedule(console)


@pytest.mark.parametrize('published, said', [(True, '5 missed, '), (False, '6 missed, ')])
def test_what_was_missed_is_shown(console, published, said):
    due = firing(console, 0, published=published, missed=5)
    assert said + minute(due) in of_schedule(console)


def test_what_was_missed_is_not_shown_for_ever(console):
    firing(console, 8 * 144, missed=5)
    assert 'missed' not in of_schedule(console)


@pytest.mark.parametrize('schedule, zone, said', [
    ("{'mail': {'task': 'x.y', 'interval': 60}}", 'UTC',
     'Beat cannot start with these settings: environment ECOMMERCE_WORKER_SCHEDULE: SCHEDULE[mail] names the task x.y'),
    (str({name: {'enabled': False} for name in ('resubmit', 'retention', 'housekeeping')}), 'UTC',
     'SCHEDULE is empty.'),
    ("{'resubmit': {'crontab': '0 3 * * sun', 'interval': None}}", 'Europe/Berlin', '0 3 * * sun (Europe/Berlin)')])
def test_other_schedules_are_shown_as_they_are(tmp_path, schedule, zone, said):
    with contextlib.closing(Console({
            **environment_of({'NAME': str(tmp_path / 'ledger.sqlite3')}), 'ECOMMERCE_WORKER_SCHEDULE': schedule,
            'ECOMMERCE_WORKER_CELERY_TIMEZONE': zone,
            'ECOMMERCE_WORKER_BROKER_URL': 'amqp://127.0.0.1:1//'})) as console:
        assert said in of_schedule(console)


# -- deciding ---------------------------------------------------------------------------------------------------------

def test_support_sends_a_parked_order_again(console, shop):
    [number] = park(console, 'EDX-1')
    found = decide(console, 'support', 'resend', number)
    assert '1 message resent.' in found.words
    assert shop.asked == [('GET', '/orders/EDX-1/')]
    [headers] = console('queued', QUEUE)
    assert headers['task'] == FULFILL
    assert audits(console) == [('support', 'resent', 'EDX-1', 'they called')]
    assert console('rows', 'ParkedMessage', 'body', 'settled') == [(None, 'resent')]
    [order] = console('rows', 'Order', 'pk')
    assert 'resent by support: they called' in console('visit', f'/orders/{order}/', who='viewer').words


@pytest.mark.parametrize('who, action, status', [
    ('viewer', 'resend', 403), ('viewer', 'discard', 403), ('support', 'discard', 403), ('support', 'purge', 403),
    ('support', 'resend', 200), ('operator', 'discard', 200), ('operator', 'resend', 200)])
def test_each_role_decides_as_far_as_it_may(console, who, action, status):
    [number] = park(console, 'EDX-1')
    assert decide(console, who, action, number).status == status
    assert console('queries.count_parked') == (1 if status == 403 else 0)
    assert len(audits(console)) == (0 if status == 403 else 1)


@pytest.mark.parametrize('status, why', [
    ('Complete', 'the shop has already fulfilled it (Complete)'),
    ('Payment Error', 'its status there is Payment Error'), (None, 'does not know it (404)')])
def test_what_the_shop_would_not_fulfil_is_not_sent(console, shop, status, why):
    [number] = park(console, 'EDX-1')
    shop.statuses['EDX-1'] = status
    assert why in decide(console, 'support', 'resend', number).words
    assert (console('queries.count_parked'), console('queued', QUEUE), audits(console)) == (1, [], [])


def test_a_shop_is_asked_about_each_order_since_it_may_fail_for_one_only(console, shop):
    shop.failing = True
    found = decide(console, 'operator', 'resend', *park(console, 'EDX-1', 'EDX-2'))
    assert found.words.count('not resent: the shop failed (503)') == 2
    assert sorted(path for _, path in shop.asked) == ['/orders/EDX-1/', '/orders/EDX-2/']
    assert (console('queries.count_parked'), console('queued', QUEUE)) == (2, [])


def test_the_shop_is_not_asked_about_what_is_no_order(console, shop):
    assert '1 message resent' in decide(console, 'support', 'resend', *park(console, 'x@y', task=MAIL)).words
    assert shop.asked == []


def test_an_order_is_sent_so_often_in_an_hour_and_no_more(console):
    *_, found = [decide(console, 'support', 'resend', park(console, 'EDX-1')[-1]) for _ in range(3)]
    assert 'EDX-1: not resent: already resent 2 times within an hour' in found.words
    assert (len(console('queued', QUEUE)), console('queries.count_parked')) == (2, 1)
    assert '1 message resent' in decide(console, 'support', 'resend', park(console, 'EDX-2')[-1]).words


def test_of_several_messages_of_one_order_that_are_sent_at_once_no_more_are_than_in_an_hour(console):
    *_, numbers = [park(console, 'EDX-1') for _ in range(3)]
    found = decide(console, 'operator', 'resend', *numbers)
    assert '2 messages resent.' in found.words
    assert found.words.count('EDX-1: not resent: already resent 2 times within an hour') == 1
    assert (len(console('queued', QUEUE)), console('queries.count_parked'), len(audits(console))) == (2, 1, 2)


@pytest.mark.parametrize('numbers, reason, why', [
    ([1], '', 'give a reason'), ([1], ' \x00', 'give a reason'), ([], 'x', 'no message was selected')])
def test_without_a_message_or_a_reason_nothing_is_done(console, numbers, reason, why):
    assert why in decide(console, 'operator', 'discard', *(park(console, 'EDX-1') if numbers else []),
                         reason=reason).words
    assert audits(console) == []


def test_nothing_is_thrown_away_by_a_slip(console):
    assert 'tick "for good"' in decide(console, 'operator', 'discard', *park(console, 'EDX-1'), sure='').words
    assert (console('queries.count_parked'), audits(console)) == (1, [])


def test_what_was_chosen_and_written_outlives_a_mistake_and_a_reload(console):
    _, two = park(console, 'EDX-1', 'EDX-2')
    page, sent = '/parked/?key=EDX', {'message': str(two), 'reason': 'they called', 'back': '/parked/?key=EDX'}
    _, refused, again, elsewhere, done, after = console('browse', [
        (page, None), ('/parked/decide/', {**sent, 'action': 'discard'}), (page, None), ('/parked/', None),
        ('/parked/decide/', {**sent, 'action': 'discard', 'sure': 'yes'}), (page, None)], who='operator')
    assert 'tick "for good"' in refused.words
    for found in (refused, again):
        assert 'value="they called"' in found.text
        assert checked(found) == [two]
    assert checked(elsewhere) == []
    assert '1 message discarded.' in done.words
    assert (checked(after), 'they called' in after.text) == ([], False)


def test_choosing_all_keeps_what_was_written(console):
    numbers = park(console, 'EDX-1', 'EDX-2')
    found = decide(console, 'support', 'all', shown=[str(number) for number in numbers], back='/parked/')
    assert checked(found) == numbers
    assert 'value="they called"' in found.text
    assert checked(decide(console, 'support', 'none', *numbers, back='/parked/')) == []
    assert audits(console) == []


def test_what_the_shop_did_not_let_go_stays_chosen(console, shop):
    shop.statuses['EDX-2'] = 'Complete'
    one, two = park(console, 'EDX-1', 'EDX-2')
    found = decide(console, 'support', 'resend', one, two, back='/parked/')
    assert '1 message resent.' in found.words
    assert checked(found) == [two]


def test_what_was_chosen_and_written_outlives_the_end_of_a_login(console):
    _, two = park(console, 'EDX-1', 'EDX-2')
    link = console('invite', 'ada', 'operator')
    console('browse', [(link, None), (re.sub('[^/]+/$', 'set-password/', link), PASSWORD)])
    sent = {'action': 'resend', 'message': str(two), 'reason': 'they called', 'back': '/parked/'}
    *_, asked, found = console('browse', [
        ('/login/', None), ('/parked/decide/', sent),
        ('/login/', {'username': 'ada', 'password': 'correct horse 7', 'next': '/parked/'})])
    assert asked.headers['where'] == '/login/'
    assert found.headers['where'] == '/parked/'
    assert 'Nothing was done: your login had expired.' in found.words + asked.words
    assert checked(found) == [two]
    assert 'value="they called"' in found.text
    assert console('queries.count_parked') == 2


@pytest.mark.parametrize('origin, status', [('http://127.0.0.1:8130', 302), ('https://evil.example', 403), ('', 403)])
def test_a_form_without_its_cookie_is_kept_only_if_it_is_of_this_console(console, origin, status):
    [number] = park(console, 'EDX-1')
    found = console('visit', '/parked/decide/', without_token=origin, send={
        'action': 'resend', 'message': [str(number)], 'reason': 'they called', 'back': '/parked/'})
    assert found.status == status
    assert console('queries.count_parked') == 1
    if status == 403:
        assert 'Nothing was done.' in found.words


def checked(page):
    """The numbers of the messages that are chosen on a page."""
    return [int(number) for number in re.findall(r'name="message" value="(\d+)"[^>]* checked', page.text)]


def test_many_are_decided_at_once_and_what_somebody_else_settled_is_told(console):
    numbers = park(console, 'EDX-1', 'EDX-2', 'EDX-3')
    decide(console, 'operator', 'discard', numbers[0])
    found = decide(console, 'operator', 'resend', *numbers)
    assert '2 messages resent.' in found.words
    assert f'Message {numbers[0]} is no longer parked' in found.words
    assert len(console('queued', QUEUE)) == 2
    assert 'was discarded' in decide(console, 'operator', 'discard', numbers[0]).words


@pytest.mark.parametrize('back, where', [
    ('/orders/1/', '/orders/1/'), ('https://evil.example/', '/parked/'), ('//evil.example/', '/parked/'),
    ('/\\evil.example', '/parked/'), ('', '/parked/')])
def test_after_a_decision_nobody_is_led_to_another_server(console, back, where):
    found = console('visit', '/parked/decide/', who='operator', send={'action': 'resend', 'back': back})
    assert found.headers['Location'] == where


def test_the_models_are_those_that_the_migrations_make(console):
    assert console('drifted') is False


def test_behind_a_proxy_with_tls_cookies_are_for_https_only_and_one_host_name_is_answered(tmp_path):
    with contextlib.closing(Console({
            **environment_of({'NAME': str(tmp_path / 'ledger.sqlite3')}),
            'ECOMMERCE_WORKER_CONSOLE_URL': 'https://orders.example.com'})) as console:
        cookie = console('visit', '/login/', host='orders.example.com').headers['Set-Cookie']
        assert {'Secure', 'HttpOnly', 'SameSite=Lax'} <= set(cookie.replace(';', '').split())
        assert console('setting', 'SESSION_COOKIE_SECURE') is True
        assert console('visit', '/login/').status == 400


def test_a_broker_that_is_away_is_said_to_be(tmp_path):
    with contextlib.closing(Console({
            **environment_of({'NAME': str(tmp_path / 'ledger.sqlite3')}),
            'ECOMMERCE_WORKER_BROKER_URL': 'amqp://127.0.0.1:1//'})) as console:
        console('recording.record', (), [parcel()])
        words = console('visit', '/', who='viewer').words
        assert '1 parked' in words
        assert 'RabbitMQ is unreachable' in words
        [number] = console('rows', 'ParkedMessage', 'pk')
        console('execute', f"UPDATE ledger_parkedmessage SET task = '{MAIL}'")
        assert 'RabbitMQ did not accept it; it stays parked' in decide(console, 'support', 'resend', number).words
        assert (audits(console), console('queries.count_parked')) == ([], 1)
