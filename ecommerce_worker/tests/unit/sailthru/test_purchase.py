"""What Sailthru is told of carts, purchases and enrolments, and what of what the shop says is refused."""

import contextlib
import json
import threading
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecommerce_worker.clients.ecommerce import Ecommerce
from ecommerce_worker.errors import (
    ApiError,
    NotFound,
    PeerFailure,
    Rejected,
    Skip,
    Throttled,
    Transient,
    Unauthorized,
    WrongArguments,
)
from ecommerce_worker.sailthru.client import Sailthru
from ecommerce_worker.sailthru.purchase import Course, Courses, Enrolment, Purchases, cents, course_in
from ecommerce_worker.testing.peer import reply
from ecommerce_worker.tests.support.clock import Clock
from ecommerce_worker.tests.support.sailthru import Account, connecting, options, refusal

ANN = 'ann@example.com'
RUN = 'course-v1:edX+T+1'
PAGE = f'http://lms.example.com/courses/{RUN}/info'
OTHER = 'http://lms.example.com/courses/course-v1:edX+U+1/info'

CART = Enrolment(ANN, PAGE, True, 'verified', unit_cost=Decimal('49.00'), course_id=RUN, currency='USD',
                 message_id='bid-1')
BOUGHT = Enrolment(ANN, PAGE, False, 'professional', unit_cost='49.00', course_id=RUN, currency='USD', sku='8CF08E5')
UPGRADED = replace(BOUGHT, mode='verified')
AUDITING = replace(BOUGHT, mode='audit', unit_cost=Decimal('0.00'))

TEMPLATES = {'SAILTHRU_UPGRADE_TEMPLATE': 'Upgrade', 'SAILTHRU_PURCHASE_TEMPLATE': 'Purchase',
             'SAILTHRU_ENROLL_TEMPLATE': 'Enroll', 'SAILTHRU_ABANDONED_CART_TEMPLATE': 'Cart'}


@pytest.fixture
def account():
    return Account(users={ANN: {'vars': {'name': 'Ann', 'unenrolled': [OTHER]}}},
                   content={PAGE: {'title': 'Demo', 'tags': ['a', 'b'], 'vars': {'level': 'easy'}}})


class Shop:
    """The shop's courses; an error in place of one is raised."""

    def __init__(self, **courses):
        self.courses = courses
        self.asked = []

    def __call__(self, course_id):
        self.asked.append(course_id)
        found = self.courses.get('known', NotFound('no', status=404))
        if isinstance(found, Exception):
            raise found
        return found


@pytest.fixture
def shop():
    return Shop()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def purchases(peer, api, account, shop, clock):
    """Reports to that account: ``purchases(SAILTHRU_ENROLL_TEMPLATE='Enroll')``."""
    def make(**given):
        found = options(peer(account), **given)
        return Purchases(Sailthru.of(found, connecting(api, connections=16)), found, shop, clock=clock)

    return make


def reported(account):
    """What was posted as purchases."""
    return [data for call, data in account.calls if call == 'POST purchase']


def names(account):
    return [call for call, _ in account.calls]


# --- What is told ---------------------------------------------------------------------------------------------------


def test_a_cart_is_reported_with_its_reminder_and_nothing_else(purchases, account):
    purchases(**TEMPLATES).report(CART, 'task-1')
    assert account.calls == [('GET content', {'id': PAGE}), ('POST purchase', {
        'email': ANN,
        'items': [{
            'id': 'course-v1:edX+T+1-verified', 'url': PAGE, 'price': 4900, 'qty': 1, 'title': 'Demo',
            'tags': ['a', 'b'], 'vars': {'level': 'easy', 'mode': 'verified', 'course_run_id': RUN,
                                         'purchase_sku': None}}],
        'incomplete': True, 'message_id': 'bid-1', 'reminder_template': 'Cart', 'reminder_time': '+60 minutes'})]


def test_a_purchase_takes_the_course_off_those_left_and_then_is_reported(purchases, account):
    account.users[ANN]['vars']['unenrolled'] = [OTHER, PAGE]
    purchases(**TEMPLATES).report(BOUGHT, 'task-1')
    assert account.calls[1:] == [
        ('GET user', {'id': ANN, 'fields': {'vars': 1}}),
        ('POST user', {'id': ANN, 'key': 'email', 'vars': {'unenrolled': [OTHER]}}),
        ('POST purchase', {
            'email': ANN,
            'items': [{
                'id': 'course-v1:edX+T+1-professional', 'url': PAGE, 'price': 4900, 'qty': 1, 'title': 'Demo',
                'tags': ['a', 'b'], 'vars': {'level': 'easy', 'mode': 'professional', 'course_run_id': RUN,
                                             'purchase_sku': '8CF08E5'}}],
            'incomplete': False, 'send_template': 'Purchase', 'purchase_keys': {'extid': 'task-1'}})]


@pytest.mark.parametrize('mode, template, looks_at_the_user', [
    ('verified', 'Upgrade', False), ('audit', 'Enroll', True), ('honor', 'Enroll', True),
    ('professional', 'Purchase', True), ('no-id-professional', 'Purchase', True), ('credit', 'Purchase', True),
    ('Verified', 'Purchase', True)])
def test_the_mode_decides_the_mail_and_whether_the_enrolment_is_new(purchases, account, mode, template,
                                                                    looks_at_the_user):
    purchases(**TEMPLATES).report(replace(BOUGHT, mode=mode))
    assert reported(account)[0]['send_template'] == template
    assert ('GET user' in names(account)) is looks_at_the_user
    assert 'reminder_template' not in reported(account)[0]


@pytest.mark.parametrize('enrolment', [CART, UPGRADED, AUDITING, BOUGHT], ids=['cart', 'upgrade', 'free', 'bought'])
def test_without_a_template_no_mail_is_asked_for(purchases, account, enrolment):
    purchases().report(enrolment)
    assert not {'send_template', 'reminder_template', 'reminder_time'} & reported(account)[0].keys()
    assert reported(account)[0]['incomplete'] is enrolment.purchase_incomplete


def test_the_delay_of_a_reminder_is_in_minutes(purchases, account):
    purchases(SAILTHRU_ABANDONED_CART_TEMPLATE='Cart', SAILTHRU_ABANDONED_CART_DELAY=5).report(CART)
    assert reported(account)[0]['reminder_time'] == '+5 minutes'


@pytest.mark.parametrize('given', [None, ''])
def test_what_led_to_it_is_left_out_where_nobody_knows(purchases, account, given):
    purchases().report(replace(CART, message_id=given))
    assert 'message_id' not in reported(account)[0]


def test_what_is_free_is_reported_at_zero_whatever_the_minimum_cost(purchases, account):
    purchases(SAILTHRU_MINIMUM_COST=100).report(AUDITING)
    assert reported(account)[0]['items'][0]['price'] == 0


def test_a_purchase_without_a_name_of_ours_has_none(purchases, account):
    purchases().report(BOUGHT)
    assert 'purchase_keys' not in reported(account)[0]


# --- The list of courses left ---------------------------------------------------------------------------------------


@pytest.mark.parametrize('known', [
    None, [], {}, {'name': 'Ann'}, {'unenrolled': None}, {'unenrolled': []}, {'unenrolled': 'no list'},
    {'unenrolled': [OTHER]}, {'unenrolled': {'0': PAGE}}], ids=repr)
def test_a_list_that_does_not_change_is_not_written(purchases, account, known):
    account.users[ANN] = {'vars': known}
    purchases().report(BOUGHT)
    assert names(account) == ['GET content', 'GET user', 'POST purchase']


def test_a_learner_whom_sailthru_does_not_know_has_left_nothing(purchases, account):
    account.users.clear()
    purchases().report(BOUGHT)
    assert names(account) == ['GET content', 'GET user', 'POST purchase']


def test_a_course_that_is_listed_twice_is_taken_off_altogether(purchases, account):
    account.users[ANN]['vars']['unenrolled'] = [PAGE, OTHER, PAGE]
    purchases().report(BOUGHT)
    assert account.users[ANN]['vars'] == {'name': 'Ann', 'unenrolled': [OTHER]}


def test_two_courses_of_one_learner_at_the_same_time_lose_no_change(purchases, account):
    pages = [f'http://lms.example.com/courses/course-v1:edX+C{number}+1/info' for number in range(8)]
    account.users[ANN]['vars']['unenrolled'] = [*pages, OTHER]
    account.content = {page: {'title': 'T'} for page in pages}
    second = threading.Event()

    def read_user(data):
        if names(account).count('GET user') > 1:
            second.set()
        else:
            second.wait(0.2)  # the door is open for another to read the same list; nobody must come in

    account.refuse['GET user'] = read_user
    reports = purchases()
    threads = [threading.Thread(target=reports.report, args=(replace(BOUGHT, course_url=page, email=email),))
               for page, email in zip(pages, [ANN, ANN] * 4, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert account.users[ANN]['vars']['unenrolled'] == [OTHER]
    assert [call for call in names(account) if 'user' in call] == ['GET user', 'POST user'] * 8
    assert len(reported(account)) == 8


@pytest.mark.parametrize('failing', ['GET content', 'GET user', 'POST user', 'POST purchase'])
@pytest.mark.parametrize('code, kind', [(9, PeerFailure), (43, Throttled), (3, Unauthorized)])
def test_an_error_of_any_call_ends_the_report(purchases, account, failing, code, kind):
    account.users[ANN]['vars']['unenrolled'] = [PAGE]
    account.refuse[failing] = refusal(code)
    with pytest.raises(kind):
        purchases().report(BOUGHT)
    assert names(account)[-1] == failing


def test_a_report_that_failed_half_way_is_done_again_as_a_whole_and_changes_nothing_twice(purchases, account):
    account.users[ANN]['vars']['unenrolled'] = [PAGE]
    account.refuse['POST purchase'] = refusal(9)
    reports = purchases()
    with pytest.raises(Transient):
        reports.report(BOUGHT, 'task-1')
    account.refuse.clear()
    reports.report(BOUGHT, 'task-1', repeated=True)
    assert names(account).count('POST user') == 1
    assert list(account.purchases) == ['task-1']


# --- Asking before repeating ----------------------------------------------------------------------------------------


def test_a_purchase_that_sailthru_has_already_is_not_reported_again(purchases, account):
    reports = purchases()
    reports.report(BOUGHT, 'task-1')
    account.calls.clear()
    with pytest.raises(Skip, match='already'):
        reports.report(BOUGHT, 'task-1', repeated=True)
    assert account.calls == [('GET purchase', {'purchase_id': 'task-1', 'purchase_key': 'extid'})]


def test_a_purchase_that_sailthru_does_not_have_is_reported(purchases, account):
    purchases().report(BOUGHT, 'task-1', repeated=True)
    assert names(account) == ['GET purchase', 'GET content', 'GET user', 'POST purchase']


def test_nothing_is_asked_of_a_first_report_nor_of_a_cart(purchases, account):
    reports = purchases()
    reports.report(BOUGHT, 'task-1')
    reports.report(CART, 'task-2', repeated=True)
    reports.report(UPGRADED, repeated=True)
    assert 'GET purchase' not in names(account)
    assert 'purchase_keys' not in reported(account)[1]


@pytest.mark.parametrize('code, kind', [(9, PeerFailure), (3, Unauthorized), (11, Rejected)])
def test_whoever_cannot_ask_does_not_report(purchases, account, code, kind):
    account.refuse['GET purchase'] = refusal(code)
    with pytest.raises(kind):
        purchases().report(BOUGHT, 'task-1', repeated=True)
    assert not reported(account)


# --- The course -----------------------------------------------------------------------------------------------------


def item(account):
    return reported(account)[-1]['items'][0]


def test_a_course_that_sailthru_knows_is_not_asked_of_the_shop(purchases, shop):
    purchases().report(CART)
    assert not shop.asked


def test_a_course_that_sailthru_does_not_know_is_asked_of_the_shop(purchases, account, shop):
    account.content.clear()
    shop.courses['known'] = {'name': 'Café 101', 'verification_deadline': '2030-01-01T00:00:00Z', 'type': 'verified'}
    purchases().report(CART)
    assert shop.asked == [RUN]
    assert item(account)['title'] == 'Café 101'
    assert item(account)['vars'] == {'verification_deadline': '2030-01-01T00:00:00Z', 'mode': 'verified',
                                     'course_run_id': RUN, 'purchase_sku': None}
    assert 'tags' not in item(account)


def test_a_course_without_a_title_at_sailthru_has_that_of_the_shop(purchases, account, shop):
    account.content[PAGE] = {'title': '', 'tags': ['a'], 'vars': {'level': 'easy'}}
    shop.courses['known'] = {'name': 'Demo of the shop', 'verification_deadline': None}
    purchases().report(CART)
    assert (item(account)['title'], item(account)['tags']) == ('Demo of the shop', ['a'])
    assert item(account)['vars'].keys() == {'level', 'mode', 'course_run_id', 'purchase_sku'}


@pytest.mark.parametrize('known', [NotFound('no', status=404), Unauthorized('no', status=403), Rejected('no'),
                                   WrongArguments('no'), {'name': ''}, {'name': None}, {'id': RUN}], ids=repr)
def test_a_course_that_nobody_tells_of_is_reported_by_its_id(purchases, account, shop, known):
    account.content.clear()
    shop.courses['known'] = known
    purchases().report(CART)
    assert item(account)['title'] == 'Course course-v1:edX+T+1 mode: verified'


def test_a_course_without_a_name_leaves_a_line_in_the_log(purchases, account, caplog):
    account.content.clear()
    purchases().report(CART)
    assert caplog.messages == [f'reporting a course without its name: course={RUN} reason="no"']


def test_a_shop_that_is_down_is_waited_for(purchases, account, shop):
    account.content.clear()
    shop.courses['known'] = PeerFailure('down', status=503)
    with pytest.raises(PeerFailure):
        purchases().report(BOUGHT)
    assert names(account) == ['GET content']


@pytest.mark.parametrize('content', [
    {'title': 'T', 'vars': []}, {'title': 'T', 'vars': None, 'tags': []}, {'title': 'T', 'tags': ''}, {'title': 'T'}])
def test_what_is_empty_at_sailthru_is_left_out(purchases, account, content):
    account.content[PAGE] = content
    purchases().report(CART)
    assert 'tags' not in item(account)
    assert item(account)['vars'] == {'mode': 'verified', 'course_run_id': RUN, 'purchase_sku': None}


def test_our_variables_win_over_those_of_the_content(purchases, account):
    account.content[PAGE] = {'title': 'T', 'vars': {'mode': 'x', 'course_run_id': 'y', 'purchase_sku': 'z'}}
    purchases().report(BOUGHT)
    assert item(account)['vars'] == {'mode': 'professional', 'course_run_id': RUN, 'purchase_sku': '8CF08E5'}


def test_a_course_is_kept_for_as_long_as_the_setting_says(purchases, account, clock):
    reports = purchases(SAILTHRU_CACHE_TTL_SECONDS=60)
    reports.report(CART)
    clock.now += 59.9
    reports.report(UPGRADED)
    assert names(account).count('GET content') == 1
    assert item(account)['title'] == 'Demo'
    clock.now += 0.2
    reports.report(UPGRADED)
    assert names(account).count('GET content') == 2


def test_the_shops_description_is_kept_too_but_not_that_there_is_none(purchases, account, shop):
    account.content.clear()
    reports = purchases()
    reports.report(CART)
    reports.report(CART)
    assert shop.asked == [RUN] * 2
    shop.courses['known'] = {'name': 'Demo'}
    reports.report(CART)
    reports.report(CART)
    assert shop.asked == [RUN] * 3


def test_nothing_is_kept_for_no_time(purchases, account):
    reports = purchases(SAILTHRU_CACHE_TTL_SECONDS=0)
    reports.report(CART)
    reports.report(CART)
    assert names(account).count('GET content') == 2


def test_of_too_many_courses_the_oldest_is_given_up(clock):
    courses = Courses(60, clock, most=2)
    for title in 'abac':
        courses.keep(f'http://{title}', Course(title))
    assert [courses.get(f'http://{title}') for title in 'abc'] == [Course('a'), None, Course('c')]


def test_courses_are_bounded_whatever_threads_do(clock):
    courses = Courses(60, clock, most=16)

    def busy(number):
        for round_ in range(200):
            courses.keep(f'{number}-{round_}', Course('T'))
            courses.get(f'{number}-{round_ - 3}')

    threads = [threading.Thread(target=busy, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(courses._kept) == 16


# --- What the shop says ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize('given, expected', [
    (None, 0), (0, 0), (49, 4900), ('49', 4900), ('49.00', 4900), (' 49.5 ', 4950), (Decimal('49.00'), 4900),
    ('49.005', 4901), ('49.004999', 4900), ('0.005', 1), ('0.004', 0), ('49.00499999999999999999999999999999', 4900),
    (Decimal('19.99'), 1999), ('19.99', 1999), (19.99, 1999), (1.1, 110), (0.07, 7), (Decimal('-0.00'), 0),
    ('1e2', 10000), (Decimal('1E-20'), 0), (10**9, 10**11), ('999999999.99', 99999999999)])
def test_cents_are_exact(given, expected):
    assert cents(given) == expected
    assert type(cents(given)) is int


@pytest.mark.parametrize('given', [
    '', ' ', 'abc', '$49', '49,00', '49 USD', 'NaN', 'sNaN', '-NaN', 'Infinity', '-Infinity', Decimal('NaN'),
    Decimal('sNaN'), Decimal('Infinity'), float('nan'), float('inf'), '-1', -1, Decimal('-0.01'), '1e999999999',
    Decimal('1E+999999'), 10**9 + 1, True, False, b'49', ['49'], {'amount': 49}, (0, (4, 9), 0), 49 + 0j, object],
    ids=repr)
def test_what_is_no_amount_is_refused_without_being_shown(given):
    with pytest.raises(WrongArguments, match='unit cost') as caught:
        cents(given)
    assert 'abc' not in str(caught.value)


@given(st.decimals(0, 10**9, places=2))
def test_cents_of_any_price_are_a_hundred_times_it(price):
    assert cents(price) == cents(str(price)) == int(price * 100)


@given(st.text() | st.decimals() | st.floats() | st.integers())
def test_an_amount_is_whole_cents_or_refused(given):
    with contextlib.suppress(WrongArguments):
        assert cents(given) >= 0


@pytest.mark.parametrize('url, course', [
    (PAGE, RUN), ('https://lms.test/courses/edX/Demo/2016/info', 'edX/Demo/2016'),
    ('https://lms.test/courses/course-v1:edX+T+1/about/', RUN), ('https://lms.test/courses/course-v1:edX+T+1', RUN),
    ('https://lms.test/courses/course-v1%3AedX%2BT%2B1/info?a=b#c', RUN), ('https://lms.test/prefix/courses/a/', 'a'),
    ('https://lms.test/courses/', ''), ('https://lms.test/', ''), ('https://lms.test/course/T', '')])
def test_the_url_of_a_course_says_which_it_is(url, course):
    assert course_in(url) == course


def test_without_a_course_id_the_url_is_asked(purchases, account, shop):
    account.content.clear()
    purchases().report(Enrolment(ANN, PAGE, False, 'audit'))
    assert item(account)['id'] == 'course-v1:edX+T+1-audit'
    assert item(account)['vars'] == {'mode': 'audit', 'course_run_id': RUN, 'purchase_sku': None}
    assert item(account)['price'] == 0
    assert shop.asked == [RUN]


WRONG = [
    {'email': ''}, {'email': None}, {'email': 'ann'}, {'email': 'ann@example.com,bob@example.com'}, {'email': 7},
    {'email': 'ann@example.com\n'}, {'course_url': ''}, {'course_url': None}, {'course_url': 'ftp://lms.test/'},
    {'course_url': 'http://'}, {'course_url': 'http://[::1/'}, {'course_url': 'http://lms.test/a b'},
    {'course_url': '/courses/x/info'}, {'mode': ''}, {'mode': ' '}, {'mode': None}, {'mode': 1},
    {'purchase_incomplete': 'False'}, {'purchase_incomplete': None}, {'purchase_incomplete': 1}, {'course_id': 7},
    {'currency': 7}, {'message_id': 1.5}, {'sku': b'8CF08E5'}, {'unit_cost': 'secret'},
    {'unit_cost': -1}, {'course_id': None, 'course_url': 'http://lms.test/'}]


@pytest.mark.parametrize('given', WRONG, ids=repr)
def test_what_cannot_be_reported_is_refused_with_a_reason_that_holds_no_contents(given):
    with pytest.raises(WrongArguments) as caught:
        replace(BOUGHT, **given)
    assert not [value for value in given.values() if isinstance(value, str) and len(value) > 3
                and value in str(caught.value)]


def test_an_enrolment_does_not_show_whose_it_is():
    assert repr(CART) == f'<Enrolment in {RUN} verified (cart)>'
    assert ANN not in f'{BOUGHT} {BOUGHT!r}'


# --- The shop's own courses -----------------------------------------------------------------------------------------


@pytest.fixture
def courses(api):
    """The shop's API at a peer."""
    return lambda server: Ecommerce(api(server.url + 'api/v2/')).course


@pytest.mark.parametrize('course_id, path', [
    (RUN, RUN), ('edX/DemoX/Demo_Course', 'edX/DemoX/Demo_Course'), ('a+b+c', 'a+b+c'),
    ('Ä+b.c+1-~2', '%C3%84+b.c+1-~2')])
def test_a_course_is_asked_for_by_its_id(peer, courses, course_id, path):
    server = peer(reply(body=json.dumps({'name': 'Demo'}).encode()))
    assert courses(server)(course_id) == {'name': 'Demo'}
    request, = server.requests
    assert (request.method, request.target, request.body) == ('GET', f'/api/v2/courses/{path}/', b'')


@pytest.mark.parametrize('course_id', [
    '', '..', '../orders/1', 'a/../b', '../../x', 'a+..+b', 'a+b', 'a+b+c+d', 'a b+c+d', 'a+b+c?x=y', 'a+b+c#d',
    'a+b+c/', '/a/b/c', 'a%2Fb+c+d', 'a+b+c\n'])
def test_what_is_no_course_id_does_not_get_into_a_url(peer, courses, course_id):
    server = peer(reply())
    with pytest.raises(WrongArguments):
        courses(server)(course_id)
    assert not server.requests


@pytest.mark.parametrize('answer, kind', [
    (reply(404, b''), NotFound), (reply(403, b''), Unauthorized), (reply(503, b''), PeerFailure),
    (reply(body=b'[]'), PeerFailure), (reply(body=b'<html>'), PeerFailure)])
def test_what_the_shop_does_not_tell_is_an_error(peer, courses, answer, kind):
    with pytest.raises(ApiError) as caught:
        courses(peer(answer))(RUN)
    assert type(caught.value) is kind
