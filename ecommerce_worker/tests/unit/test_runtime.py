"""What a process shares: sites, holds, and that what is built from settings can be built."""

import json

import pytest

from ecommerce_worker import runtime
from ecommerce_worker.errors import Held, Misconfigured, Unreachable
from ecommerce_worker.testing.peer import reply

BRAZE = {'BRAZE_ENABLE': True, 'BRAZE_REST_API_KEY': 'key', 'BRAZE_WEBAPP_API_KEY': 'app'}


def the_problems(in_force, **given):
    with pytest.raises(Misconfigured) as caught:
        in_force(**given).check()
    return caught.value.problems


@pytest.mark.parametrize('given', [
    {}, {'EMAIL_WITHOUT_VENDOR': 'park'}, {'BRAZE': json.dumps(BRAZE)},
    {'SAILTHRU': json.dumps({'SAILTHRU_ENABLE': True, 'SAILTHRU_KEY': 'key', 'SAILTHRU_SECRET': 'secret'})},
    {'SITE_OVERRIDES': json.dumps({'edx': {'BRAZE': BRAZE}})},
], ids=str)
def test_what_can_be_built_is_no_problem(in_force, given):
    in_force(**given).check()


def test_all_that_cannot_be_built_is_told_at_once(in_force):
    found = the_problems(in_force, EMAIL_VENDOR='stmp', SITE_OVERRIDES=json.dumps({
        'edx': {'EMAIL_VENDOR': 'braze'}, 'mit': {'SAILTHRU': {'SAILTHRU_ENABLE': True}}}))
    assert found[0].startswith('EMAIL_VENDOR names stmp')
    assert [problem.partition(':')[0] for problem in found[1:]] == ['site edx', 'site edx', 'site mit', 'site mit']


def test_a_site_that_differs_in_nothing_of_it_has_no_problem_of_its_own(in_force):
    found = the_problems(in_force, EMAIL_VENDOR='stmp', SITE_OVERRIDES=json.dumps({
        'edx': {'ECOMMERCE_API_ROOT': 'http://edx.test/'}}))
    assert len(found) == 1


def test_sites_on_one_host_share_its_circuit_breaker(in_force):
    current = in_force(ECOMMERCE_API_ROOT='http://127.0.0.1:1/api/', SITE_OVERRIDES=json.dumps({
        'edx': {'ECOMMERCE_API_ROOT': 'http://127.0.0.1:1/other/'},
        'mit': {'ECOMMERCE_API_ROOT': 'http://127.0.0.1:2/api/'}}))
    for _ in range(5):
        with pytest.raises(Unreachable):
            current.site().ecommerce.status('EDX-1')
    with pytest.raises(Held):
        current.site('edx').ecommerce.status('EDX-1')
    with pytest.raises(Unreachable):
        current.site('mit').ecommerce.status('EDX-1')


def test_a_shop_is_named_by_the_first_site_that_has_it_and_not_by_its_address(in_force):
    def names(host):
        current = in_force(ECOMMERCE_API_ROOT=f'http://{host}:1/', SITE_OVERRIDES=json.dumps({
            'mit': {'ECOMMERCE_API_ROOT': f'http://{host}:2/'}, 'edx': {'ECOMMERCE_API_ROOT': f'http://{host}:2/'},
            'own': {'ECOMMERCE_API_ROOT': f'http://{host}:1/', 'MAX_FULFILLMENT_RETRIES': 3}}))
        return [current.shop(current.site(code)) for code in (None, 'stranger', 'own', 'mit', 'edx')]

    assert names('10.0.1.1') == names('10.0.2.1') == ['', '', '', 'edx', 'edx']


def test_a_site_is_built_once(in_force):
    current = in_force()
    assert current.site('nobody') is current.site()
    assert runtime.current() is current


def test_the_longest_fulfilment_covers_the_deadline_of_each_exchange_until_the_last_call_has_ended(peer, in_force):
    seen = []

    def refuse_each_token_once(request):
        token = request.headers.get('authorization')
        seen.append((request.method, token))
        if request.method == 'POST':
            # One that is stale at once, so that each request fetches another.
            body = {'access_token': f'token-{len(seen)}', 'expires_in': 0}
        elif [method for method, _ in seen].count(request.method) == 1:
            return reply(401)
        else:
            body = {'number': 'EDX-1', 'status': 'Open' if request.method == 'GET' else 'Complete'}
        return reply(body=json.dumps(body).encode())

    server = peer(refuse_each_token_once)
    site = in_force(
        ECOMMERCE_API_ROOT=server.url, BACKEND_SERVICE_EDX_OAUTH2_PROVIDER_URL=server.url,
        BACKEND_SERVICE_EDX_OAUTH2_KEY='key', BACKEND_SERVICE_EDX_OAUTH2_SECRET='secret',
        HTTP_READ_TIMEOUT=3, FULFILLMENT_READ_TIMEOUT=50).site()
    assert site.ecommerce.status('EDX-1') == 'Open'
    site.ecommerce.fulfill('EDX-1', email_opt_in=False)
    methods = [method for method, _ in seen]
    assert methods == ['POST', 'GET', 'POST', 'GET', 'POST', 'PUT', 'POST', 'PUT']
    # An exchange may take two read time-outs.
    assert site.longest_fulfillment == 2 * sum(50 if method == 'PUT' else 3 for method in methods)
