"""From the paid order to the enrolled learner, at the stand-in LMS; and back."""

import json
import logging
import threading

import pytest

from ecommerce_worker.enrolment.tasks import enroll, enroll_line, revoke
from ecommerce_worker.errors import Misconfigured
from ecommerce_worker.execution.outcomes import Deferred, Parked, Retrying, Then
from ecommerce_worker.testing.lms import CLIENT_ID, CLIENT_SECRET, LOST, Course, Lms, Step
from ecommerce_worker.testing.shop.server import Reply
from ecommerce_worker.tests.support.enrolment import Orders
from ecommerce_worker.words import is_about

ANN, BOB = 'Ann@example.com', 'bob@example.com'
ONE, TWO = 'course-v1:edX+A+1', 'course-v1:edX+B+1'
VERIFIED, AUDIT = ('verified', True), ('audit', True)
PRODUCTS = {'A': [{'course': ONE, 'mode': 'verified'}], 'FREE': [{'course': ONE, 'mode': 'audit'}],
            'BOTH': [{'course': ONE, 'mode': 'verified'}, {'course': TWO, 'mode': 'verified'}]}


@pytest.fixture
def lms():
    with Lms() as lms:
        lms.courses = {ONE: Course(), TWO: Course()}
        lms.register(ANN, 'ann')
        yield lms


@pytest.fixture
def configured(app, in_force, lms):
    """Puts settings in force, with that LMS."""
    def use(**settings):
        given = {'PRODUCTS': PRODUCTS, **settings}
        return in_force(LMS_ROOT_URL=lms.url, BACKEND_SERVICE_EDX_OAUTH2_PROVIDER_URL=lms.oauth2_root,
                        BACKEND_SERVICE_EDX_OAUTH2_KEY=CLIENT_ID, BACKEND_SERVICE_EDX_OAUTH2_SECRET=CLIENT_SECRET,
                        RETRY_DELAY_MAX=2, **{name: json.dumps(value) if isinstance(value, dict | list) else value
                                              for name, value in given.items()})
    return use


@pytest.fixture
def orders(configured):
    configured()
    return Orders()


def bought(product='A', learner=ANN, quantity=1, line='1'):
    return {'line': line, 'product': product, 'quantity': quantity, 'learner': learner}


# -- enrolling --------------------------------------------------------------------------------------------------------

def test_who_paid_is_enrolled_in_the_mode_that_was_paid(orders, lms):
    orders.come(enroll, bought())
    assert lms.standing(ANN, ONE) == VERIFIED
    assert lms.students[ANN.casefold()].orders == {ONE: ['#1']}
    assert orders.ends == ['enroll done', 'enroll_line done']


def test_a_product_may_be_several_courses_and_a_line_several_learners(orders, lms):
    lms.register(BOB, 'bob')
    orders.come(enroll, bought('BOTH', [ANN, BOB], 2))
    assert [lms.standing(who, course) for who in (ANN, BOB) for course in (ONE, TWO)] == [VERIFIED] * 4


def test_each_line_has_a_name_of_its_own_that_begins_with_the_number_of_its_order(orders, lms):
    orders.come(enroll, bought('BOTH', [ANN], 2, '11'), bought('A', BOB, line='12'), number='#1001')
    names = [it.call.kwargs['item'] for it in orders.runs if 'item' in it.call.kwargs]
    assert names == ['#1001 11.1', '#1001 11.2', '#1001 11.3', '#1001 12', '#1001 12']
    assert all(is_about(name, '#1001') and not is_about(name, '#100') for name in names)


def test_an_order_may_have_a_number_for_its_number(orders, lms):
    orders.come(enroll, bought(), number=1001)
    assert [it.call.kwargs['order_number'] for it in orders.runs[1:]] == ['1001']
    assert lms.students[ANN.casefold()].orders == {ONE: ['1001']}
    orders.come(enroll, bought(), number=True)
    assert 'order_number' in orders.parked[0]


def test_an_order_that_comes_twice_enrols_once(orders, lms):
    orders.come(enroll, bought())
    orders.come(enroll, bought())
    assert lms.changes == [('ann', ONE, 'verified', True)]
    assert orders.ends[-1] == 'enroll_line skipped'


@pytest.mark.parametrize('before', [None, AUDIT, ('honor', True), ('audit', False)])
def test_what_nobody_paid_for_gives_way_to_what_was_paid(orders, lms, before):
    if before:
        lms.students[ANN.casefold()].enrolments[ONE] = before
    orders.come(enroll, bought())
    assert lms.standing(ANN, ONE) == VERIFIED


@pytest.mark.parametrize('product, before', [('FREE', VERIFIED), ('A', ('professional', True))])
def test_a_mode_that_somebody_else_paid_for_is_not_put_down(orders, lms, product, before):
    lms.students[ANN.casefold()].enrolments[ONE] = before
    orders.come(enroll, bought(product))
    assert lms.standing(ANN, ONE) == before
    assert f'enrolled as {before[0]} in {ONE}' in orders.parked[0]


def test_a_line_that_cannot_be_is_parked_alone_and_sent_again_when_it_can(orders, lms):
    lms.courses[TWO].expired = frozenset({'verified'})
    orders.come(enroll, bought('BOTH'), bought('NEW', line='2'), bought('A', BOB, line='3'))
    assert lms.standing(ANN, ONE) == VERIFIED
    assert lms.standing(ANN, TWO) is None
    expired, unknown = orders.parked
    assert 'its enrolment period is over' in expired
    assert unknown == 'NEW is not in PRODUCTS; add it there, then resend this'
    lms.courses[TWO].expired = frozenset()
    orders.resend()
    assert lms.standing(ANN, TWO) == VERIFIED
    assert len(orders.parked) == 1


def test_a_product_that_was_unknown_is_looked_up_when_it_is_sent_again(configured, lms):
    configured()
    orders = Orders()
    orders.come(enroll, bought('NEW'))
    assert len(orders.parked) == 1
    configured(PRODUCTS={'NEW': PRODUCTS['BOTH']})
    orders.resend()
    assert [lms.standing(ANN, course) for course in (ONE, TWO)] == [VERIFIED] * 2


def test_a_shop_that_sells_shirts_too_has_them_skipped(configured, lms):
    configured(UNKNOWN_PRODUCT='skip')
    orders = Orders()
    orders.come(enroll, bought('SHIRT'), bought(line='2'))
    orders.come(enroll, bought('SHIRT'))
    assert lms.standing(ANN, ONE) == VERIFIED
    assert orders.ends == ['enroll done', 'enroll_line done', 'enroll skipped']


@pytest.mark.parametrize('learners, quantity, reason, enrolled', [
    ([ANN], 3, '3 seats, 1 learner', True), ([], 1, '1 seat, no learner', False),
    ([ANN, BOB], 1, '2 learners for 1 seat', False), (['none'], 1, '1 seat, no learner', False),
    ([ANN, ANN.upper()], 2, '2 seats, 1 learner', True),
])
def test_seats_and_learners_that_do_not_match_are_for_people(orders, lms, learners, quantity, reason, enrolled):
    orders.come(enroll, bought('A', learners, quantity))
    assert reason in orders.parked[0]
    assert (lms.standing(ANN, ONE) == VERIFIED) is enrolled


@pytest.mark.parametrize('lines', [
    None, 'x', {}, [7], [{'product': 7}], [{'product': 'A', 'quantity': -1}], [{'product': 'A', 'quantity': 'x'}],
    [{'product': 'A', 'quantity': True}], [{'product': 'A', 'learner': 7}], [{'product': 'A', 'learner': [7]}],
    [{'product': 'A', 'line': ''}], [bought(), bought()], [{}] * 1001, [{'product': 'x' * 300}],
])
def test_lines_that_are_none_are_parked(orders, lines):
    orders.publish(Then(enroll.name, {'order_number': '#1', 'lines': lines}))
    assert len(orders.parked) == 1
    assert not [reason for reason in orders.parked if 'programming error' in reason]


@pytest.mark.parametrize('arguments', [
    {'course_id': 'x'}, {'mode': 'x y'}, {'learner': 'x'}, {'learner': f'{ANN},{BOB}'}, {'mode': None},
    {'course_id': '../admin'}, {'learner': 7}, {'course_id': None, 'product': ['A']}, {'course_id': 7},
    {'course_id': None, 'learner': 7},
])
def test_a_line_that_is_none_is_parked(orders, lms, arguments):
    given = {'item': '#1 1', 'order_number': '#1', 'product': 'A', 'learner': ANN, 'course_id': ONE, 'mode': 'verified'}
    orders.publish(Then(enroll_line.name, {**given, **arguments}))
    assert len(orders.parked) == 1
    assert 'programming error' not in orders.parked[0]
    assert not lms.changes


# -- answers ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('step', [
    Step.status(500), Step.status(502), Step.status(503), Step.status(429, {'Retry-After': '1'}), Step(), LOST,
])
def test_what_passes_is_waited_out_and_enrols_once(orders, lms, step):
    lms.script['POST enrollment'] = [step]
    orders.come(enroll, bought())
    assert isinstance(orders.waiting[0].outcome, Retrying)
    orders.wait()
    assert lms.changes == [('ann', ONE, 'verified', True)]
    assert not orders.parked


def test_a_token_that_is_refused_is_fetched_anew_at_once(orders, lms):
    orders.come(enroll, bought('FREE'))
    lms.revoke_tokens()
    orders.come(enroll, bought())
    assert lms.standing(ANN, ONE) == VERIFIED
    assert not orders.waiting


def test_credentials_that_are_refused_park_nothing(orders, lms):
    lms.script['GET accounts'] = [Step.status(401)] * 2
    orders.come(enroll, bought())
    assert not orders.parked
    orders.wait()
    assert lms.standing(ANN, ONE) == VERIFIED


def test_no_log_and_no_reason_names_a_learner(orders, lms, caplog):
    caplog.set_level(logging.DEBUG, 'ecommerce_worker')
    lms.courses[TWO].expired = frozenset({'verified'})
    lms.script['POST enrollment'] = [Step.status(503)]
    orders.come(enroll, bought('BOTH', [ANN, BOB], 3))
    orders.wait()
    orders.come(revoke, bought('BOTH', [ANN, BOB], 3))
    shown = caplog.text + str([it.outcome for it in orders.runs if not hasattr(it.outcome, 'then')])
    assert not [name for name in ('example.com', 'ann', 'bob@') if name in shown.casefold()]


# -- learners without an account --------------------------------------------------------------------------------------

@pytest.mark.parametrize('quince', [True, False])
def test_who_has_no_account_is_let_in_and_has_the_paid_mode_when_they_have_one(orders, lms, quince):
    lms.quince = quince
    orders.come(enroll, bought(learner=BOB))
    assert lms.allowed == {(BOB, ONE)}
    assert 'no account yet' in orders.waiting[0].outcome.reason
    lms.register(BOB, 'bob')
    assert lms.standing(BOB, ONE) == AUDIT
    orders.wait()
    assert lms.standing(BOB, ONE) == VERIFIED
    assert orders.ends == ['enroll done', 'enroll_line done', 'set_mode done']


def test_they_are_waited_for_three_months_and_then_it_is_for_people(orders, lms):
    orders.come(enroll, bought(learner=BOB))
    waited = 0.0
    while orders.waiting:
        waited = orders.waiting[0].outcome.notes.waited
        assert orders.waiting[0].outcome.delay <= 6 * 3600
        orders.wait()
    assert 89 * 86_400 < waited <= 91 * 86_400
    assert 'no account yet' in orders.parked[0]


def test_who_was_put_out_of_the_course_before_the_mode_was_set_stays_out_unless_a_person_says_so(orders, lms):
    orders.come(enroll, bought(learner=BOB))
    lms.allowed.clear()
    lms.register(BOB, 'bob')
    orders.wait()
    assert lms.standing(BOB, ONE) is None
    assert 'was it refunded' in orders.parked[0]
    orders.resend()
    assert lms.standing(BOB, ONE) == VERIFIED


def test_who_has_an_account_and_has_not_confirmed_their_address_is_waited_for(orders, lms):
    orders.come(enroll, bought(learner=BOB))
    lms.register(BOB, 'bob', active=False)
    orders.wait()
    assert 'has not confirmed the address' in orders.waiting[0].outcome.reason
    lms.confirm(BOB)
    orders.wait()
    assert lms.standing(BOB, ONE) == VERIFIED
    assert orders.ends[-1] == 'set_mode done'


# -- refunds ----------------------------------------------------------------------------------------------------------

def refunding(configured, **settings):
    configured(**{'COVERED_BY': 'nothing', **settings})
    return Orders()


def test_what_was_refunded_is_taken_back(configured, lms):
    orders = refunding(configured)
    orders.come(enroll, bought())
    orders.come(revoke, bought())
    assert lms.standing(ANN, ONE) == ('verified', False)
    orders.come(revoke, bought())
    assert orders.ends[-1] == 'revoke_line skipped'
    assert len(lms.changes) == 2


def test_or_the_learner_keeps_the_course_without_a_certificate(configured, lms):
    orders = refunding(configured, REFUND='audit')
    orders.come(enroll, bought())
    orders.come(revoke, bought())
    assert lms.standing(ANN, ONE) == AUDIT


def test_where_nobody_knows_of_other_orders_a_person_decides(orders, lms):
    orders.come(enroll, bought())
    orders.come(revoke, bought())
    assert lms.standing(ANN, ONE) == VERIFIED
    assert 'whether another paid order covers the learner' in orders.parked[0]


@pytest.mark.parametrize('answer, left', [('True', VERIFIED), ('False', ('verified', False))])
def test_what_another_paid_order_covers_stays(configured, lms, tmp_path, monkeypatch, answer, left):
    (tmp_path / f'acme_covers_{answer.lower()}.py').write_text(
        'ASKED = []\n\n\ndef covers(order_number, learner, course_id, site_code):\n'
        f'    ASKED.append((order_number, learner, course_id, site_code))\n    return {answer}\n')
    monkeypatch.syspath_prepend(tmp_path)
    orders = refunding(configured, COVERED_BY=f'acme_covers_{answer.lower()}')
    orders.come(enroll, bought(), number='#1')
    orders.come(enroll, bought(), number='#2')
    orders.come(revoke, bought(), number='#1')
    assert lms.standing(ANN, ONE) == left
    module = __import__(f'acme_covers_{answer.lower()}')
    assert module.ASKED == [('#1', ANN, ONE, None)]


@pytest.mark.parametrize('now', [{'A': PRODUCTS['BOTH'][1:]}, {'OTHER': PRODUCTS['A']}])
@pytest.mark.parametrize('unknown', ['park', 'skip'])
def test_a_refund_takes_back_what_its_product_was_when_the_order_came(configured, lms, tmp_path, monkeypatch, now,
                                                                      unknown):
    (tmp_path / 'cover_of_ours.py').write_text(
        'def covers(*_): return False\n'
        f'def bought(order_number, site_code): return {{"A": {PRODUCTS["A"]}}} if order_number == "#1" else {{}}\n')
    monkeypatch.syspath_prepend(tmp_path)
    configured(COVERED_BY='cover_of_ours', UNKNOWN_PRODUCT=unknown)
    orders = Orders()
    orders.come(enroll, bought())
    # Since then the product has become another course, which the learner has by another order; or is sold no more.
    lms.students[ANN.casefold()].enrolments[TWO] = VERIFIED
    configured(COVERED_BY='cover_of_ours', UNKNOWN_PRODUCT=unknown, PRODUCTS=now)
    orders.come(revoke, bought())
    assert (lms.standing(ANN, ONE), lms.standing(ANN, TWO)) == (('verified', False), VERIFIED)
    # Of what it does not know, PRODUCTS does.
    if 'A' in now:
        orders.come(revoke, bought(), number='#2')
        assert lms.standing(ANN, TWO) == ('verified', False)


@pytest.mark.parametrize('name', ['acme_that_is_not_there', 'json', 'nothin'])
def test_who_is_to_know_of_other_orders_is_looked_for_at_the_start(configured, name):
    with pytest.raises(Misconfigured, match='COVERED_BY'):
        configured(COVERED_BY=name).check()


def test_a_refund_that_comes_before_the_enrolment_waits_for_it(configured, lms):
    orders = refunding(configured)
    lms.script['POST enrollment'] = [Step.status(503)]
    orders.come(enroll, bought())
    orders.come(revoke, bought())
    assert len(orders.waiting) == 2
    orders.wait()
    orders.wait()
    assert lms.standing(ANN, ONE) == ('verified', False)
    assert not orders.waiting


def test_a_refund_of_who_has_no_account_keeps_them_out_when_they_have_one(configured, lms):
    orders = refunding(configured)
    orders.come(enroll, bought(learner=BOB))
    orders.come(revoke, bought(learner=BOB))
    assert not lms.allowed
    lms.register(BOB, 'bob')
    orders.wait()
    assert lms.standing(BOB, ONE) is None


@pytest.mark.parametrize('quince', [True, False])
def test_a_refund_of_who_has_not_confirmed_their_address_keeps_them_out_when_they_have(configured, lms, quince):
    lms.quince = quince
    orders = refunding(configured)
    orders.come(enroll, bought(learner=BOB))
    lms.register(BOB, 'bob', active=False)
    orders.come(revoke, bought(learner=BOB))
    assert orders.ends[-1] == 'revoke_line done'
    lms.confirm(BOB)
    assert lms.standing(BOB, ONE) is None


@pytest.mark.parametrize('taken_back, refund, left', [
    ('True', 'unenroll', ('audit', False)), ('True', 'audit', AUDIT), ('False', 'unenroll', VERIFIED)])
def test_who_registers_after_the_refund_gets_no_paid_mode(configured, lms, tmp_path, monkeypatch, taken_back, refund,
                                                          left):
    (tmp_path / f'acme_knows_{taken_back.lower()}.py').write_text(
        'def covers(*_):\n    return False\n\n\n'
        f'def taken_back(order_number, learner, course_id, site_code):\n    return {taken_back}\n')
    monkeypatch.syspath_prepend(tmp_path)
    configured()
    orders = Orders()
    orders.come(enroll, bought(learner=BOB))
    configured(COVERED_BY=f'acme_knows_{taken_back.lower()}', REFUND=refund)
    lms.register(BOB, 'bob')  # and is in the course, by themselves or as they were let in
    orders.wait()
    assert lms.standing(BOB, ONE) == left


@pytest.mark.parametrize('quince', [True, False])
def test_after_a_refund_nobody_is_in_again_by_confirming_their_address(configured, lms, quince):
    lms.quince = quince
    orders = refunding(configured)
    orders.come(enroll, bought(learner=BOB))
    lms.register(BOB, 'bob', active=False)
    orders.come(enroll, bought(learner=BOB))
    assert lms.standing(BOB, ONE) == VERIFIED
    orders.come(revoke, bought(learner=BOB))
    lms.confirm(BOB)
    assert lms.standing(BOB, ONE) == ('verified', False)


def test_who_is_known_to_have_paid_is_enrolled_if_the_lms_has_not_done_so(configured, lms, tmp_path, monkeypatch):
    (tmp_path / 'acme_knows_all.py').write_text('def covers(*_):\n    return False\n\n\ntaken_back = covers\n')
    monkeypatch.syspath_prepend(tmp_path)
    orders = refunding(configured, COVERED_BY='acme_knows_all')
    orders.come(enroll, bought(learner=BOB))
    lms.allowed.clear()
    lms.register(BOB, 'bob')
    orders.wait()
    assert lms.standing(BOB, ONE) == VERIFIED


@pytest.mark.parametrize('refund', ['unenroll', 'audit'])
def test_a_refund_before_the_paid_mode_is_set_waits_for_that(configured, lms, refund):
    orders = refunding(configured, REFUND=refund)
    orders.come(enroll, bought(learner=BOB))
    lms.register(BOB, 'bob')
    orders.come(revoke, bought(learner=BOB))
    assert lms.standing(BOB, ONE) == AUDIT
    orders.wait()
    orders.wait()
    assert lms.standing(BOB, ONE) == (('verified', False) if refund == 'unenroll' else AUDIT)


def test_another_mode_than_was_refunded_is_for_people(configured, lms):
    orders = refunding(configured)
    lms.students[ANN.casefold()].enrolments[ONE] = ('professional', True)
    orders.come(revoke, bought())
    assert lms.standing(ANN, ONE) == ('professional', True)
    assert 'where does professional come from' in orders.parked[0]


# -- answers that are lost --------------------------------------------------------------------------------------------

BAD_GATEWAY = Step(Reply(502, b'<html>Bad Gateway</html>', {'Content-Type': 'text/html'}), done=True)


@pytest.mark.parametrize('quince', [True, False])
@pytest.mark.parametrize('lost', [LOST, BAD_GATEWAY])
@pytest.mark.parametrize('refund', ['unenroll', 'audit'])
def test_who_was_admitted_and_the_answer_is_lost_has_the_paid_mode_in_the_end(configured, lms, quince, lost, refund):
    configured(REFUND=refund)
    lms.quince = quince
    for registers_meanwhile in (False, True):
        orders, learner = Orders(), f'{registers_meanwhile}@example.com'
        lms.script['POST enrollment_allowed' if quince else 'POST bulk_enroll'] = [lost]
        orders.come(enroll, bought(learner=learner))
        assert orders.ends == ['enroll done', 'enroll_line retrying']
        if registers_meanwhile:
            # By the first answer it would be set_mode that finds them in the course, in the mode that it begins with.
            lms.register(learner, learner[:4])
        orders.wait()
        if not registers_meanwhile:
            assert orders.ends[1:] == ['enroll_line done', 'set_mode retrying']
            lms.register(learner, learner[:4])
            orders.wait()
        assert lms.standing(learner, ONE) == VERIFIED
        assert not orders.parked


@pytest.mark.parametrize('quince', [True, False])
@pytest.mark.parametrize('lost', [LOST, BAD_GATEWAY])
@pytest.mark.parametrize('has_account', [True, False])
def test_who_was_shut_out_again_and_the_answer_is_lost_is_not_waited_for(configured, lms, tmp_path, monkeypatch, quince,
                                                                         lost, has_account):
    (tmp_path / 'knows_refunds.py').write_text('def covers(*_): return False\ndef taken_back(*_): return False\n')
    monkeypatch.syspath_prepend(tmp_path)
    configured(COVERED_BY='knows_refunds')
    lms.quince = quince
    orders = Orders()
    orders.come(enroll, bought(learner=BOB))
    if has_account:
        lms.register(BOB, 'bob', active=False)
    lms.script['DELETE enrollment_allowed' if quince else 'POST bulk_enroll'] = [lost]
    orders.come(revoke, bought(learner=BOB))
    assert orders.ends[-1] == 'revoke_line retrying'
    assert not lms.allowed
    orders.wait()
    assert orders.ends[-1] == 'revoke_line done'


@pytest.mark.parametrize('quince', [True, False])
def test_an_early_refund_without_an_answer_is_waited_for_where_no_enrolment_asks_about_it(configured, lms, quince):
    configured(COVERED_BY='nothing')
    lms.quince = quince
    orders = Orders()
    lms.script['DELETE enrollment_allowed' if quince else 'POST bulk_enroll'] = [Step.status(502)]
    orders.come(revoke, bought(learner=BOB))
    orders.wait()
    assert orders.ends[-1] == 'revoke_line retrying'
    orders.come(enroll, bought(learner=BOB))
    assert lms.allowed == {(BOB, ONE)}
    orders.wait()
    assert 'revoke_line done' in orders.ends
    assert not lms.allowed


@pytest.mark.parametrize('refund, left', [('unenroll', ('verified', False)), ('audit', AUDIT)])
def test_what_was_taken_back_and_the_answer_is_lost_is_taken_back(configured, lms, refund, left):
    configured(COVERED_BY='nothing', REFUND=refund)
    orders = Orders()
    orders.come(enroll, bought())
    lms.script['POST enrollment'] = [LOST]
    orders.come(revoke, bought())
    assert orders.ends[-1] == 'revoke_line retrying'
    orders.wait()
    assert orders.ends[-1] == 'revoke_line skipped'
    assert lms.standing(ANN, ONE) == left
    assert lms.changes[1:] == [('ann', ONE, *left)]


def test_a_question_without_an_answer_changes_nothing_and_a_refund_that_is_early_waits(configured, lms):
    configured(COVERED_BY='nothing')
    orders = Orders()
    for asked in ('GET accounts', f'GET ann,{ONE}'):
        lms.script[asked] = [LOST]
        orders.come(revoke, bought())
        assert lms.script[asked] == []
    orders.wait()
    assert orders.ends[-1] == 'revoke_line retrying'
    orders.come(enroll, bought())
    orders.wait()
    assert lms.standing(ANN, ONE) == ('verified', False)


def test_a_learner_who_was_put_down_while_an_enrolment_had_no_answer_is_for_people(configured, lms):
    configured(REFUND='audit')
    orders = Orders()
    lms.script['POST enrollment'] = [LOST]
    orders.come(enroll, bought())
    lms.students[ANN.casefold()].enrolments[ONE] = AUDIT
    orders.wait()
    assert 'it is unknown whether this order was refunded' in orders.parked[0]
    assert lms.standing(ANN, ONE) == AUDIT


def test_two_runs_of_one_learners_course_take_turns(orders, lms):
    begun, go_on = threading.Event(), threading.Event()
    put = lms._enrol

    def slowly(body):
        begun.set()
        assert go_on.wait(30)
        return put(body)

    # The stand-in answers one at a time; the first waits inside of it.
    lms._enrol = slowly
    first, second = Orders(), Orders()
    thread = threading.Thread(target=first.come, args=(enroll, bought()))
    thread.start()
    try:
        assert begun.wait(30)
        second.come(enroll, bought(), number='#2')
        assert isinstance(second.waiting[0].outcome, Deferred)
    finally:
        go_on.set()
        thread.join()
    second.wait()
    assert lms.changes == [('ann', ONE, 'verified', True)]
    assert not [it for it in (*first.runs, *second.runs) if isinstance(it.outcome, Parked)]
