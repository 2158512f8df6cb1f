"""What is handed to a helper names no customer."""

import json
import zipfile

from ecommerce_worker.broker.notes import ParkingNote
from ecommerce_worker.broker.wire import Raw
from ecommerce_worker.doctor import bundle
from ecommerce_worker.operations.parked import InQueue


def parked(number, reason):
    note = ParkingNote(id=f'id-{number}', task='acme.tasks.ship', key=f'EDX-{number}', reason=reason)
    return InQueue(**vars(note), raw=Raw(b'{}', None, None), message=None)


def test_reasons_are_counted_without_the_numbers_of_orders_and_addresses(tmp_path):
    bundle.write(tmp_path / 'it.zip', {}, None, None, [
        parked(1, 'the shop answered 404: no order EDX-1 of ann@example.com'),
        parked(2, 'the shop answered 404: no order EDX-2 of bob@example.com'),
        parked(3, 'wrong arguments')])
    with zipfile.ZipFile(tmp_path / 'it.zip') as written:
        assert json.loads(written.read('parked.json')) == [
            {'task': 'acme.tasks.ship', 'messages': 2,
             'reason': 'the shop answered 404: no order <order> of <address>'},
            {'task': 'acme.tasks.ship', 'reason': 'wrong arguments', 'messages': 1}]
