"""Support staff and operators before the console, from the shop's message to the page and back."""

import re
import subprocess
import sys
import time
from datetime import UTC, datetime

from selenium.webdriver.common.by import By

from ecommerce_worker.testing.shop import Answer
from ecommerce_worker.tests.browser.conftest import PASSWORD, choose_password
from ecommerce_worker.tests.support.harness import eventually

#: What a beat leaves behind that is gone.
BEGUN = """
import sys
from ecommerce_worker.ledger.setup import open_ledger
open_ledger()
from ecommerce_worker.ledger.schedule_store import LedgerFirings
LedgerFirings(300.0).begin('resubmit (600 s)', float(sys.argv[1]))
"""


def stuck(shop, publish, browser, *numbers):
    """Publish orders that the shop refuses, and wait until they are seen to be parked."""
    for number in numbers:
        shop.add_order(number)
        shop.fault(number, Answer(status=400).always())
        publish(number, site_code='edx')

    def parked():
        # The message and the fact of its run come on different ways.
        for number in numbers:
            browser.open(f'/orders/?q={number}')
            if 'try 1: parked' not in browser.text:
                return False
        browser.open('/parked/')
        return all(number in browser.text for number in numbers)

    eventually(parked)


def test_support_finds_a_stuck_order_reads_why_and_sends_it_again(at_work, shop, publish, browser, person):
    person('sue', 'support')
    stuck(shop, publish, browser, 'EDX-10001')
    browser.open('/')
    browser.write('q', 'EDX-10001')
    browser.press('Find')
    browser.says('The order has been parked since', 'the shop refuses it (400)', 'try 1: parked')
    assert not browser.has('Discard')
    shop.repair('EDX-10001')
    browser.write('reason', 'the course is open again')
    browser.press('Resend')
    browser.says('1 message resent.', 'resent by sue: the course is open again')
    eventually(lambda: shop.orders['EDX-10001'].status == 'Complete')

    def fulfilled():
        browser.open('/orders/?q=EDX-10001')
        return 'The order was fulfilled on' in browser.text

    eventually(fulfilled)


def test_a_viewer_may_look_and_is_refused_the_rest(at_work, shop, publish, browser, person):
    person('vic', 'viewer')
    stuck(shop, publish, browser, 'EDX-10002')
    browser.follow('EDX-10002')
    browser.says('The order has been parked since', 'Your role may view messages, but not resend them.')
    assert not browser.has('Resend')
    browser.open('/auth/user/')
    browser.says('Your role does not permit this')


def test_an_operator_begins_by_the_printed_link_and_sends_many_again_at_once(
        at_work, console, shop, publish, browser):
    browser.open(console.invitation)
    browser.says('Choose a password for operator')
    choose_password(browser)
    browser.log_in('operator')
    numbers = [f'EDX-{number}' for number in range(10010, 10013)]
    stuck(shop, publish, browser, *numbers)
    for number in numbers[:2]:
        shop.repair(number)
    shop.add_order(numbers[2], status='Complete')
    browser.will_say('/', '3 of fulfill_order', '1 worker running', 'ecommerce.fulfillment')
    browser.follow('Parked')
    browser.write('reason', 'the shop is right again')
    browser.press('Select all on this page')
    browser.press('Resend')
    browser.says('2 messages resent.', f'{numbers[2]}: not resent: the shop has already fulfilled it')
    eventually(lambda: all(shop.orders[number].status == 'Complete' for number in numbers))
    browser.follow('Who did what')
    browser.says('resent', 'the shop is right again')
    browser.press('Log out')
    browser.open('/parked/')
    assert 'Password' in browser.text
    assert numbers[2] not in browser.text


def test_a_page_tells_which_processes_are_missing(console, browser, person):
    person('vic', 'viewer')
    browser.will_say('/', 'No worker is running', 'No recorder is running: the ledger is not updated',
                     'No beat has ever run')


def test_the_schedule_shows_what_is_overdue_and_later_what_was_missed(at_work, settings, start, browser, person):
    due = time.time() // 600 * 600
    subprocess.run([sys.executable, '-c', BEGUN, str(due - 3600)], env=settings, check=True)
    person('vic', 'viewer')
    browser.will_say('/', '1 recorder running', 'No beat has ever run', 'ecommerce-worker beat',
                     'SCHEDULE[resubmit] has been overdue since',
                     f'overdue since {datetime.fromtimestamp(due - 3000, UTC):%Y-%m-%d %H:%M}')
    start('beat')

    def fired():
        # What a page shows is looked up one after the other, while beat goes on.
        browser.open('/')
        text = browser.text
        return (re.search(r'(?s)(done|skipped).* [56] missed, 20', text) and 'The last sign of life from beat' in text
                and 'verdue' not in text)

    eventually(fired)
    row = browser.chrome.find_element(By.XPATH, '//table[contains(@class, "schedule")]/tbody/tr').text
    assert row.startswith('resubmit\nevery 10 minutes\nresubmit_orders\n')


def test_pages_fit_a_phone_and_are_dark_where_that_is_wished(at_work, shop, publish, browser, person):
    person('olga', 'operator')
    stuck(shop, publish, browser, 'EDX-10003')
    browser.chrome.set_window_size(400, 800)
    for scheme, bright in (('light', True), ('dark', False)):
        browser.chrome.execute_cdp_cmd('Emulation.setEmulatedMedia', {
            'features': [{'name': 'prefers-color-scheme', 'value': scheme}]})
        for path in ('/', '/parked/', '/orders/?q=EDX-10003', '/login/?x=1'):
            browser.open(path)
            body = browser.chrome.find_element(By.TAG_NAME, 'body')
            assert body.get_property('scrollWidth') <= browser.chrome.get_window_size()['width'], path
            red = int(body.value_of_css_property('background-color').partition('(')[2].partition(',')[0])
            assert (red > 128) is bright, (path, scheme)


#: Puts names into the ledger that are as long as they may be, and have no space.
LONG = """
import time
from ecommerce_worker.ledger.setup import open_ledger
open_ledger()
from ecommerce_worker.ledger import decisions, recording
from ecommerce_worker.ledger.models import ParkedMessage
from ecommerce_worker.broker.notes import NOTES
from ecommerce_worker.broker.wire import Raw
from ecommerce_worker.ledger.incoming import Parcel
from ecommerce_worker.telemetry.run import RunReport
from ecommerce_worker.telemetry.tally import Tally

for task in ('ecommerce_worker.fulfillment.v1.tasks.fulfill_order', 'a_task.' + 't' * 240):
    key, reason = 'K' * 128, 'there_is_no_task_' + 'r' * 900
    fact = RunReport('parked', started=time.time() - 9000, attempt=1, task=task, id='i' * 255 + task[:0], key=key,
                     site='s' * 128, reason=reason, queue='q' * 255, worker='w' * 255)
    notes = {'queue': 'q' * 255, 'attempt': 1, 'history': [], 'id': 'i' * 255, 'task': task, 'key': key,
             'reason': reason, 'parked_at': time.time() - 9000 + len(task), 'fact': fact.as_body().decode()}
    recording.record([RunReport('retrying', started=time.time() - 9000, attempt=1, task=task, id='o' * 200,
                                key='O' * 128, site='s' * 128, reason=reason)],
                     [Parcel.of(Raw(b'{}', None, None, {NOTES: notes}))])
recording.record(tallies=[Tally(
    intake='i' * 128, process='a' * 32, hour=int(time.time() // 3600 * 3600), number=1, kind='k' * 128, state='dry',
    url='https://hooks.example.com/in/' + 'u' * 400, test_orders='run', counts={'ignored': {'r' * 100: 9}},
    times=(9, *[0] * 12), last=time.time())])
decisions.write_down('p' * 150, 'resent', 'y' * 900, message_id='i' * 255, key='K' * 128, task='t' * 255)
"""


def test_long_names_break_nothing_on_a_small_phone(console, settings, browser, person):
    person('olga', 'operator')
    subprocess.run([sys.executable, '-c', LONG], env=settings, check=True)
    browser.chrome.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', {
        'width': 360, 'height': 740, 'deviceScaleFactor': 1, 'mobile': False})
    for path in ('/', '/intakes/', '/parked/', '/orders/', '/orders/?q=K', '/orders/1/', '/orders/2/', '/auth/user/',
                 '/auth/user/add/', '/ledger/audit/', '/password_change/', '/nothing/'):
        browser.open(path)
        page = browser.chrome.find_element(By.TAG_NAME, 'html')
        assert page.get_property('scrollWidth') <= page.get_property('clientWidth') <= 360, path


def test_a_form_that_was_filled_in_outlives_the_end_of_a_login(console, settings, browser, person):
    person('olga', 'operator')
    subprocess.run([sys.executable, '-c', LONG], env=settings, check=True)
    browser.open('/parked/')
    browser.write('reason', 'they called')
    browser.press('Select all on this page')
    assert [box.is_selected() for box in boxes(browser)] == [True, True]
    browser.chrome.delete_cookie('console_session')
    browser.press('Resend')
    browser.says('Nothing was done: your login had expired.')
    browser.write('username', 'olga')
    browser.write('password', PASSWORD)
    browser.press('Log in')
    browser.says('2 messages')
    assert [box.is_selected() for box in boxes(browser)] == [True, True]
    reason = browser.chrome.find_element(By.XPATH, '//input[@name="reason"]')
    assert reason.get_property('value') == 'they called'


def boxes(browser):
    """What messages are chosen by."""
    return browser.chrome.find_elements(By.XPATH, '//input[@type="checkbox"][@name="message"]')


def test_chromium_has_nothing_to_complain_about(console, browser, person):
    person('olga', 'operator')
    for path in ('/', '/parked/', '/auth/user/', '/auth/user/add/', '/ledger/audit/'):
        browser.open(path)
        assert browser.chrome.get_log('browser') == [], path
