"""The pictures in docs/images: ``make images`` takes them anew, with the names by which pages of docs/ show them.

Broker, shop, worker, recorder, beat, console and browser are those of the tests of this directory.  What happened
before the picture was taken is written into the ledger as a recorder writes it, the same each time but for the date.
pytest collects this file only if it is named.
"""

from __future__ import annotations

import base64
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from ecommerce_worker.broker.notes import NOTES, Notes, ParkingNote
from ecommerce_worker.broker.wire import Raw
from ecommerce_worker.demo.webhooks import INTAKES
from ecommerce_worker.enrolment.names import ENROLL_LINE
from ecommerce_worker.fulfillment.names import FULFILL
from ecommerce_worker.ledger.incoming import Parcel
from ecommerce_worker.telemetry import tally
from ecommerce_worker.telemetry.run import RunReport
from ecommerce_worker.telemetry.tally import HOUR, Tally
from ecommerce_worker.testing.shop import Answer, Shop
from ecommerce_worker.tests.browser.conftest import Browser
from ecommerce_worker.tests.support.console import Served
from ecommerce_worker.tests.support.harness import Worker
from ecommerce_worker.tests.support.ledger import Ledger

IMAGES: Final = Path(__file__).parents[3] / 'docs' / 'images'

SITE, QUEUE, WORKER = 'campus', 'ecommerce.fulfillment', 'ecommerce-4711@worker1'

#: Pixels of a page on a desk and on a phone, before they are doubled.
DESK, PHONE = 1080, 400

#: Tries of an order that the shop refuses: more would not fit into a picture.
TRIES = 4

#: What is recorded at once, at most.
PORTION = 500


def report(outcome: str, at: float, number: str, *, attempt: int = 1, **more: Any) -> RunReport:
    """What a worker reports of a run that ended at that time."""
    return RunReport(outcome, **{'started': at - 0.4, 'seconds': 0.4, 'attempt': attempt, 'task': FULFILL,
                                 'id': f'{number}-id', 'key': number, 'site': SITE, 'queue': QUEUE, 'worker': WORKER,
                                 **more})


def a_day(now: float) -> Iterator[RunReport]:
    """The runs of a day in which the shop was down for an hour in the afternoon, and all went well otherwise."""
    chance = random.Random(10014)
    for number in range(1800):
        at = now - 120 - chance.random() * 86_000
        tries = 1
        if 4 * HOUR < now - at < 5 * HOUR:
            tries = chance.choice((2, 3))
            for attempt in range(1, tries):
                yield report('retrying', at - 60 * (tries - attempt), f'EDX-{12000 + number}', attempt=attempt,
                             reason='the shop failed (503)', status=503, next_try=at - 60 * (tries - attempt - 1))
        yield report('done', at, f'EDX-{12000 + number}', attempt=tries)
    for number in range(23):
        yield report('done', now - 1300 * (number + 1), f'#{1001 + number} 1', task=ENROLL_LINE, site='academy',
                     order_number=f'#{1001 + number}', product='PY101', course='course-v1:edX+PY101+2027',
                     mode='verified', mask='a…@e….com')


def parked(now: float) -> Iterator[Parcel]:
    """Orders for which the shop failed while it was down, and one that it does not take."""
    for number in range(10015, 10021):
        at = now - 4.2 * HOUR - 61 * (10021 - number)
        why, attempt = ('the shop refuses it (400)', 1) if number == 10020 else ('the shop failed (500)', TRIES)
        why += f'; given up after {attempt} tries' if attempt > 1 else ''
        run = report('parked', at, f'EDX-{number}', attempt=attempt, reason=why)
        note = ParkingNote(id=run.id, task=run.task, key=run.key, site=run.site, reason=why, at=at,
                           notes=Notes(queue=QUEUE, attempt=attempt), report=run)
        found = Parcel.of(Raw(b'[["%s"], {"site_code": "%s"}]' % (run.key.encode(), SITE.encode()), 'application/json',
                              'utf-8', {NOTES: note.as_header()}))
        assert found
        yield found


def deliveries(now: float) -> Iterator[Tally]:
    """What three intakes were delivered within a day."""
    hour, times = int(now) // HOUR * HOUR, (0, 3, 190, 61, 12, 4, 1, *[0] * (len(tally.BOUNDS) - 6))
    for name, counts in (
            ('academy', {'accepted': {'': 214}, 'repeated': {'': 6}, 'ignored': {'topic': 41, 'not paid': 9}}),
            ('acme', {'accepted': {'': 87}, 'repeated': {'': 2}, 'parked': {'no order number': 1}}),
            ('blog', {'accepted': {'': 31}, 'ignored': {'greeting': 1}, 'refused': {'signature': 4}})):
        yield Tally(intake=name, process=f'{name:a<32}', hour=hour, number=1, kind=INTAKES[name]['kind'],
                    url=f'https://hooks.example.com/in/{name}', state='dry' if name == 'blog' else 'live',
                    test_orders='ignore', counts=counts, times=times, last=now - 47)


@pytest.fixture
def settings(settings: dict[str, str]) -> dict[str, str]:
    """As an operator sets them: a worker that is a little patient."""
    return {**settings, 'ECOMMERCE_WORKER_MAX_FULFILLMENT_RETRIES': str(TRIES - 1)}


@pytest.fixture
def history(console: Served, tmp_path: Path) -> None:
    """What the ledger has of the day before."""
    now = time.time()
    ledger = Ledger({'NAME': str(tmp_path / 'ledger.sqlite3')}, migrated=False)
    try:
        runs = list(a_day(now))
        for begin in range(0, len(runs), PORTION):
            ledger('recording.record', runs[begin:begin + PORTION])
        ledger('recording.record', (), list(parked(now)), (), list(deliveries(now)))
        ledger('firings', 'begin', 'resubmit (600 s)', (now // 600 - 1) * 600)
    finally:
        ledger.close()


@pytest.fixture
def staff(history: None, settings: dict[str, str], start_worker: Callable[..., Worker],
          start: Callable[[str], None]) -> None:
    """A worker, a recorder and a beat; the worker has the same name on any machine."""
    start_worker('-n', WORKER, **{name.removeprefix('ECOMMERCE_WORKER_'): value for name, value in settings.items()
                                  if name.startswith('ECOMMERCE_WORKER_')}).ready()
    start('recorder')
    start('beat')


def take(browser: Browser, name: str, width: int = DESK, height: int = 0, *, dark: bool = False) -> None:
    """Take a picture of the page that is shown: of all of it, or of its upper part."""
    ask = browser.chrome.execute_cdp_cmd
    ask('Emulation.setEmulatedMedia', {
        'features': [{'name': 'prefers-color-scheme', 'value': 'dark' if dark else 'light'}]})
    ask('Emulation.setDeviceMetricsOverride', {
        'width': width, 'height': 700, 'deviceScaleFactor': 2, 'mobile': False})
    ask('Emulation.setScrollbarsHidden', {'hidden': True})
    size = ask('Page.getLayoutMetrics', {})['cssContentSize']
    picture = ask('Page.captureScreenshot', {'captureBeyondViewport': True, 'clip': {
        'x': 0, 'y': 0, 'width': width, 'height': min(height or size['height'], size['height']), 'scale': 1}})
    (IMAGES / f'{name}.png').write_bytes(base64.b64decode(picture['data']))


def test_pictures_of_the_console_are_taken(
        staff: None, shop: Shop, publish: Callable[..., Any], browser: Browser,
        person: Callable[[str, str], None]) -> None:
    shop.add_order('EDX-12000', status='Complete')
    number = 'EDX-10014'
    refusals = {number: Answer(status=500), **{
        f'EDX-{10030 + minutes}': Answer(status=404, headers={'Retry-After': f'{60 * minutes}'})
        for minutes in (2, 4, 7)}}
    for each, answer in refusals.items():
        shop.add_order(each)
        shop.fault(each, answer.always())
        publish(each, site_code=SITE)
    person('sue', 'operator')
    browser.will_say(f'/orders/?q={number}', f'try {TRIES}: parked', 'Resend')
    take(browser, 'console-order', PHONE, 900, dark=True)
    browser.will_say('/parked/', '7 messages')
    take(browser, 'console-parked')
    browser.will_say('/', '1 worker running', '1 recorder running', 'The last sign of life from beat', 'Jobs: 1 done',
                     'waiting for their next try 3')
    take(browser, 'console-front')
    take(browser, 'console-front-dark', dark=True)
    browser.open('/intakes/')
    take(browser, 'console-intakes')
    shop.repair(number)
    browser.open(f'/orders/?q={number}')
    browser.write('reason', 'the course is open again')
    browser.press('Resend')
    browser.will_say(f'/orders/?q={number}', 'The order was fulfilled on')
    take(browser, 'console-steps')
