"""What things in the ledger are called: orders, mails and jobs apart."""

import pytest

from ecommerce_worker.ledger import words

FULFILL = 'ecommerce_worker.fulfillment.v1.tasks.fulfill_order'
MAIL = 'ecommerce_worker.email.v1.tasks.send_offer_usage_email'
PURCHASE = 'ecommerce_worker.sailthru.v1.tasks.update_course_enrollment'
JOB = 'ecommerce_worker.resubmit.tasks.resubmit_orders'


@pytest.mark.parametrize('task, kind, end', [
    (FULFILL, 'order', 'fulfilled'), (MAIL, 'mail', 'done'), (PURCHASE, 'mail', 'done'), (JOB, 'job', 'done'),
    ('ecommerce_worker.enrolment.tasks.enroll_line', 'enrolment', 'done'),
    ('acme_licences.issue', 'task', 'done'), ('', 'task', 'done'), ('shop.fulfill_order', 'order', 'fulfilled')])
def test_orders_are_fulfilled_and_everything_else_is_done(task, kind, end):
    assert words.kind_of(task) == kind
    assert words.state_of('fulfilled', task) == words.outcome_of('done', task) == end
    assert words.state_of('waiting', task) == 'waiting'
    assert words.outcome_of('skipped', task) == 'skipped'


def test_orders_mails_and_jobs_are_counted_apart():
    assert words.counted([]) == '0 orders'
    assert words.counted([FULFILL, MAIL, MAIL]) == '1 order, 2 mails'
    assert words.counted(['ecommerce_worker.enrolment.tasks.enroll', FULFILL]) == '1 order, 1 enrolment'
    assert words.counted([JOB]) == '0 orders, 1 job'
    assert words.counted(['acme_licences.issue'] * 2) == '0 orders, 2 tasks'
