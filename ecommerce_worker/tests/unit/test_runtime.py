"""What a process shares: sites, holds, and that what is built from settings can be built."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from ecommerce_worker import runtime
from ecommerce_worker.errors import Held, Misconfigured, Unreachable
from ecommerce_worker.runtime import Turns

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


def test_sites_on_one_host_share_its_hold(in_force):
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


def test_a_site_is_built_once(in_force):
    current = in_force()
    assert current.site('nobody') is current.site()
    assert runtime.current() is current


def test_threads_take_turns_and_learn_that_they_waited():
    turns, under_way, seen = Turns(), [], []

    def run(name):
        with turns.of(name) as waited:
            under_way.append(name)
            while not waited and turns._turns[name][1] < 8:
                time.sleep(0.001)
            seen.append((waited, len(under_way)))
            under_way.remove(name)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(run, ['EDX-1'] * 8))
    assert seen == [(False, 1)] + [(True, 1)] * 7


def test_a_turn_stands_in_nobody_elses_way_and_is_forgotten():
    turns = Turns()
    with turns.of('EDX-1') as first, turns.of('EDX-2') as second:
        assert (first, second) == (False, False)
    with pytest.raises(KeyError), turns.of('EDX-1'):
        raise KeyError
    with turns.of('EDX-1') as again:
        assert again is False
    assert turns._turns == {}
