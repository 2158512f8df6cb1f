"""Orders of a shop become licences of Acme, whatever the network does."""

from ecommerce_worker.testing.worker import Worker, contract

PAID = {'number': 'A-1', 'state': 'paid', 'email': 'ann@example.com'}


def test_a_paid_order_is_granted():
    with Worker('acme', settings={'token': 's3cret'}) as worker:
        grant = worker.expects('PUT', '/grants/A-1', 204)
        assert worker.post('acme', PAID).status == 200
        assert worker.outcome('A-1') == 'done'
        assert grant.bodies == [{'email': 'ann@example.com'}]
        assert grant.asked[0].headers['authorization'] == 'Bearer s3cret'


def test_while_acme_is_down_it_is_tried_again():
    with Worker('acme') as worker:
        worker.expects('PUT', '/grants/A-1', 503, 204)
        worker.post('acme', PAID)
        assert worker.outcome('A-1') == 'retrying'
        worker.wait()
        assert worker.outcome('A-1') == 'done'


TestContract = contract('acme', good=PAID, ignored=[{**PAID, 'state': 'pending'}])
