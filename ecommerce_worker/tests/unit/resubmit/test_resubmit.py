"""Which orders of a shop are looked at, which of them are to be published, and what is made of odd answers."""

import json
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pytest

from ecommerce_worker import runtime
from ecommerce_worker.clients.ecommerce import Ecommerce, Order, Page
from ecommerce_worker.errors import Held, NotFound, PeerFailure, Transient, Unauthorized, Unreachable
from ecommerce_worker.resubmit.messages import remembered
from ecommerce_worker.resubmit.names import Found, Known, NoSuchSite, Wanted
from ecommerce_worker.resubmit.report import Report, Row
from ecommerce_worker.resubmit.shops import is_young, pages, root_of, sites_of, unfulfilled
from ecommerce_worker.retry import Policy
from ecommerce_worker.runtime import Runtime
from ecommerce_worker.settings import load
from ecommerce_worker.testing.peer import reply

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
DAY = 86_400.0
IMPATIENT = Policy(refusals=0, give_up_after=0)


def order(number, age=0.0, status='Open'):
    """What a shop tells of an order placed so many seconds ago."""
    placed = NOW - timedelta(seconds=age)
    return {'number': number, 'status': status, 'date_placed': placed.strftime('%Y-%m-%dT%H:%M:%SZ'), 'lines': []}


def listing(*shown, following=None):
    """The answer that lists these orders."""
    return reply(body=json.dumps(
        {'count': 100, 'next': following, 'previous': None, 'results': list(shown)}).encode())


def book(*sheets):
    """Answers a request with the sheet that it asks for; a sheet that is not there is a 404."""
    def answer(request):
        page = int(parse_qs(urlsplit(request.target).query).get('page', ['1'])[0])
        if page > len(sheets):
            return reply(404)
        following = f'http://shop.internal/api/v2/orders/?page={page + 1}' if page < len(sheets) else None
        return listing(*sheets[page - 1], following=following)

    return answer


@pytest.fixture
def shop(api):
    """The shop's client at a peer."""
    return lambda peer: Ecommerce(api(peer.url + 'api/v2/'))


def numbers(found):
    return [order.number for page in found for order in page.orders]


def read(shop, since=2 * DAY):
    return numbers(pages(shop, since=NOW.timestamp() - since, patience=IMPATIENT))


def test_a_page_tells_number_status_and_time_of_each_order(peer, shop):
    server = peer(listing(order('EDX-1', 60), order('EDX-2', 120, 'Complete')))
    page = shop(server).orders()
    assert page == Page((Order('EDX-1', 'Open', NOW - timedelta(seconds=60)),
                         Order('EDX-2', 'Complete', NOW - timedelta(seconds=120))), 100)
    assert [(request.method, request.target) for request in server.requests] == [('GET', '/api/v2/orders/')]


@pytest.mark.parametrize('written, read', [
    ('2026-11-21T12:00:00Z', NOW), ('2026-11-21T14:00:00+02:00', NOW), ('2026-11-21T12:00:00.000000', NOW)])
def test_times_of_any_zone_are_read(peer, shop, written, read):
    server = peer(listing({'number': 'EDX-1', 'status': 'Open', 'date_placed': written}))
    assert shop(server).orders().orders[0].placed == read


@pytest.mark.parametrize('body', [
    b'[]', b'null', b'{}', b'{"results": []}', b'{"count": 1, "next": null, "results": 7}',
    b'{"count": 1, "next": 7, "results": []}', b'{"count": null, "next": null, "results": []}',
    b'{"count": 1, "next": null, "results": [{"number": "EDX-1", "status": "Open"}]}',
    b'{"count": 1, "next": null, "results": [{"number": "../1", "status": "Open", "date_placed": "2026-11-21"}]}',
    b'{"count": 1, "next": null, "results": [{"number": "EDX-1", "status": 1, "date_placed": "2026-11-21"}]}',
    b'{"count": 1, "next": null, "results": [{"number": "EDX-1", "status": "Open", "date_placed": "yesterday"}]}',
])
def test_what_is_no_list_of_orders_is_a_failure_of_the_peer(peer, shop, body):
    with pytest.raises(PeerFailure, match='not a list of orders'):
        shop(peer(reply(body=body))).orders()


def test_the_next_page_is_asked_for_at_the_same_host_whatever_the_shop_calls_itself(peer, shop):
    server = peer(book([order('EDX-3')], [order('EDX-2', 60)], [order('EDX-1', 120)]))
    assert read(shop(server)) == ['EDX-3', 'EDX-2', 'EDX-1']
    assert [request.target for request in server.requests] == [
        '/api/v2/orders/', '/api/v2/orders/?page=2', '/api/v2/orders/?page=3']


def test_other_ways_of_paging_are_followed_too(peer, shop):
    server = peer(listing(order('EDX-2'), following='http://x/?limit=1&offset=1'), listing(order('EDX-1', 60)))
    assert read(shop(server)) == ['EDX-2', 'EDX-1']
    assert server.requests[1].target == '/api/v2/orders/?limit=1&offset=1'


def test_reading_ends_after_a_page_that_is_all_too_old(peer, shop):
    server = peer(book([order('EDX-5')], [order('EDX-4', DAY), order('EDX-3', 3 * DAY)], [order('EDX-2', 4 * DAY)],
                       [order('EDX-1', 5 * DAY)]))
    assert read(shop(server)) == ['EDX-5', 'EDX-4', 'EDX-3', 'EDX-2']


def test_a_shop_that_lists_the_oldest_first_is_read_to_the_end(peer, shop):
    server = peer(book([order('EDX-1', 5 * DAY), order('EDX-2', 4 * DAY)], [order('EDX-3', 3 * DAY)], [order('EDX-4')]))
    assert read(shop(server)) == ['EDX-1', 'EDX-2', 'EDX-3', 'EDX-4']


def test_one_old_order_among_new_ones_does_not_end_the_reading(peer, shop):
    server = peer(book([order('EDX-4'), order('EDX-3', 9 * DAY)], [order('EDX-2', DAY)]))
    assert read(shop(server)) == ['EDX-4', 'EDX-3', 'EDX-2']


def test_a_page_that_is_gone_meanwhile_ends_the_reading(peer, shop):
    server = peer(listing(order('EDX-1'), following='http://x/?page=2'), reply(404))
    assert read(shop(server)) == ['EDX-1']


def test_a_list_that_is_not_there_is_an_error(peer, shop):
    with pytest.raises(NotFound):
        read(shop(peer(reply(404))))


@pytest.mark.parametrize('status', [401, 403])
def test_a_shop_that_does_not_let_us_look_is_an_error(peer, shop, status):
    with pytest.raises(Unauthorized):
        read(shop(peer(reply(status))))


def test_a_list_without_an_end_is_left(peer, shop):
    server = peer(listing(order('EDX-1'), following='http://x/?page=2'))
    found = pages(shop(server), since=0, patience=IMPATIENT)
    assert [next(found).orders[0].number, next(found).orders[0].number] == ['EDX-1', 'EDX-1']
    with pytest.raises(PeerFailure, match='does not end'):
        next(found)


def test_a_page_is_asked_for_again_when_the_shop_is_busy_for_a_moment(peer, shop):
    server = peer(reply(503), reply(429), listing(order('EDX-1')))
    patient = Policy(refusals=0, give_up_after=60, shortest=0, longest=0)
    assert numbers(pages(shop(server), since=0, patience=patient)) == ['EDX-1']


def test_what_is_waited_for_is_said_once_and_not_for_longer_than_patience_lasts(peer, shop):
    server, said = peer(reply(503, b'')), list[str]()
    patient = Policy(refusals=0, give_up_after=0.3, shortest=0.05, longest=0.05)
    with pytest.raises(Transient):
        numbers(pages(shop(server), since=0, patience=patient, tell=said.append))
    assert len(server.requests) > 2
    assert said == ['waiting up to 0 s: the shop failed (503)']


@pytest.mark.parametrize('errors, status', [
    ([], 0), ([Held('left alone')], 75), ([Unreachable('gone'), PeerFailure('failed')], 75),
    ([Unreachable('gone'), Unauthorized('no')], 1),
])
def test_what_passes_by_itself_is_no_failure_but_for_now(errors, status):
    report = Report()
    for error in errors:
        report.blame('EDX-1', error)
    assert report.status == status
    report.troubles.append('EDX-2: no shop knows it (404)')
    assert report.status == 1


def test_a_shop_that_asks_for_an_hour_is_not_waited_for(peer, shop):
    server = peer(reply(503, headers=['Retry-After: 3600']))
    with pytest.raises(PeerFailure):
        numbers(pages(shop(server), since=0))
    assert len(server.requests) == 1


@pytest.mark.parametrize('status, age, is_found', [
    ('Open', 3600, True), ('Fulfillment Error', 3600, True), ('Complete', 3600, False), ('Payment Error', 3600, False),
    ('open', 3600, False), ('Open', 60, True), ('Open', 2 * DAY, True), ('Open', 2 * DAY + 1, False),
    ('Open', -60, True)])
def test_paid_and_unfulfilled_orders_of_the_window_are_found(status, age, is_found):
    page = Page((Order('EDX-1', status, NOW - timedelta(seconds=age)),), 1)
    assert bool(list(unfulfilled(page, Wanted(), NOW.timestamp()))) is is_found


@pytest.mark.parametrize('age, young', [(-60, True), (0, True), (899, True), (900, False), (3600, False)])
def test_orders_that_the_shop_may_be_about_to_publish_are_young(age, young):
    assert is_young(Order('EDX-1', 'Open', NOW - timedelta(seconds=age)), Wanted(), NOW.timestamp()) is young


# -- what is remembered -----------------------------------------------------------------------------------------------

PARKED = Known('', 'EDX-1', 'it is parked here')
DISCARDED = Known('', 'EDX-1', 'it was discarded by anna', discarded=True)


@pytest.mark.parametrize('known, where, where_if_named', [
    ([], None, None),
    ([PARKED], 'it is parked here', 'it is parked here'),
    ([DISCARDED], 'it was discarded by anna; `--order EDX-1` publishes it anyway', None),
    ([PARKED, DISCARDED], 'it is parked here', 'it is parked here'),
    ([DISCARDED, PARKED], 'it is parked here', 'it is parked here'),
])
def test_what_a_person_discarded_is_left_unless_it_is_named_and_what_is_parked_always(in_force, known, where,
                                                                                      where_if_named):
    in_force(ECOMMERCE_API_ROOT='https://shop.test/api/v2/')
    order = Found('', 'https://shop.test/api/v2', 'EDX-1', 'Open')
    assert remembered(lambda numbers: known, Wanted(), [order]).get(order.key) == where
    assert remembered(lambda numbers: known, Wanted(('EDX-1',)), [order]).get(order.key) == where_if_named


def test_an_order_is_remembered_of_its_own_shop_only(in_force):
    in_force(ECOMMERCE_API_ROOT='https://shop.test/api/v2/', SITE_OVERRIDES=OVERRIDES)
    orders = [Found('', 'https://shop.test/api/v2', 'EDX-1', 'Open'),
              Found('edx', 'https://edx.test/api/v2', 'EDX-1', 'Open')]
    of_mitx = remembered(lambda numbers: [Known('mitx', 'EDX-1', 'here')], Wanted(), orders)
    assert [order.key in of_mitx for order in orders] == [True, False]


def test_a_memory_is_asked_for_a_few_hundred_orders_at_once():
    asked = []

    def memory(numbers):
        asked.append(len(numbers))
        return []

    orders = [Found('', 'https://shop.test', f'EDX-{number:04}', 'Open') for number in range(1001)]
    assert remembered(memory, Wanted(), orders) == {}
    assert asked == [500, 500, 1]


# -- sites ------------------------------------------------------------------------------------------------------------

OVERRIDES = {'edx': {'ECOMMERCE_API_ROOT': 'https://edx.test/api/v2/'}, 'mitx': {'MAX_FULFILLMENT_RETRIES': 3},
             'twin': {'ECOMMERCE_API_ROOT': 'https://edx.test/api/v2'}}


def test_all_sites_are_the_default_one_and_those_with_a_root_of_their_own_each_root_once(in_force):
    settings = in_force(ECOMMERCE_API_ROOT='https://shop.test/api/v2/', SITE_OVERRIDES=OVERRIDES).settings
    assert sites_of(settings) == {'': 'https://shop.test/api/v2', 'edx': 'https://edx.test/api/v2'}


def test_a_default_site_that_nobody_configured_is_not_asked(tmp_path):
    file = tmp_path / 'worker.yml'
    for overrides, codes in (OVERRIDES, ['edx']), ({}, ['']):
        file.write_text(json.dumps({'JWT_SECRET_KEY': 'a secret of more than thirty-two bytes',
                                    'EMAIL_VENDOR': 'outbox', 'SITE_OVERRIDES': overrides}))
        made = Runtime(load({'WORKER_CONFIGURATION_MODULE': 'ecommerce_worker.configuration.production',
                             'ECOMMERCE_WORKER_CFG': str(file)}))
        with runtime.use(made):
            assert list(sites_of(made.settings)) == codes


def test_sites_are_chosen_by_their_codes(in_force):
    settings = in_force(ECOMMERCE_API_ROOT='https://shop.test/api/v2/', SITE_OVERRIDES=OVERRIDES).settings
    assert sites_of(settings, ['mitx']) == {'mitx': 'https://shop.test/api/v2'}
    assert sites_of(settings, ['-', 'twin']) == {'': 'https://shop.test/api/v2', 'twin': 'https://edx.test/api/v2'}
    with pytest.raises(NoSuchSite, match='the sites are: -, edx, mitx, twin'):
        sites_of(settings, ['edy'])


def test_an_order_of_a_site_without_a_root_of_its_own_is_one_of_the_default_site(in_force):
    in_force(ECOMMERCE_API_ROOT='https://shop.test/api/v2/', SITE_OVERRIDES=OVERRIDES)
    assert root_of('mitx') == root_of('') == root_of('never heard of') != root_of('edx')


# -- words ------------------------------------------------------------------------------------------------------------

def test_a_row_has_a_dash_for_what_is_not_known():
    found = Found('', 'https://shop.test', 'EDX-1', 'Open')
    assert Row(found, 'published').cells == ('EDX-1', '-', 'Open', '-', 'published')
