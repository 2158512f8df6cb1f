"""What waits on the disk for the broker."""

import json
from pathlib import Path

import pytest

from ecommerce_worker.broker.publishing import Publication
from ecommerce_worker.broker.wire import Raw
from ecommerce_worker.errors import NotPublished
from ecommerce_worker.intake.spool import Spool
from ecommerce_worker.telemetry.run import RunReport
from ecommerce_worker.tests.support.harness import eventually


class HalfABroker:
    """It takes nothing at first, and then messages for all queues but one."""

    def __init__(self) -> None:
        self.ready = False
        self.taken: list[str] = []
        self.facts: list[RunReport | None] = []

    def publish(self, publication: Publication, fact: RunReport | None = None) -> None:
        if not self.ready or publication.queue == 'gone':
            raise NotPublished('its queue does not exist')
        self.taken.append(publication.raw.properties['correlation_id'])
        self.facts.append(fact)


@pytest.fixture
def broker():
    return HalfABroker()


@pytest.fixture
def spool(broker, tmp_path):
    """One that is started when the broker is ready."""
    spool = Spool(broker, tmp_path)
    yield spool
    if broker.ready:
        spool.end()


def keep(spool, *ids, queue='there', fact=None):
    for id_ in ids:
        spool.publish(Publication(Raw(b'{}', 'application/json', 'utf-8', {}, {'correlation_id': id_}), queue), fact)


def start(spool, broker):
    broker.ready = True
    spool.start()


def test_a_queue_that_is_gone_keeps_nothing_from_the_others(spool, broker, tmp_path):
    # In the order of their names, in which they are looked at.
    for id_, queue in (('1', 'gone'), ('2', 'there'), ('3', 'gone'), ('4', 'there')):
        keep(spool, id_, queue=queue)
    start(spool, broker)
    eventually(lambda: broker.taken == ['2', '4'])
    eventually(lambda: sorted(path.stem for path in tmp_path.glob('*.json')) == ['1', '3'])


@pytest.mark.parametrize('content', [b'', b'[]', b'[' * 100_000, b'{"fact": 1}'],
                         ids=['nothing', 'a list', 'deep', 'not all'])
def test_a_file_of_somebody_else_is_put_aside_and_keeps_nothing_from_the_others(spool, broker, tmp_path, content):
    (tmp_path / '0.json').write_bytes(content)
    keep(spool, '1')
    start(spool, broker)
    eventually(lambda: broker.taken == ['1'])
    assert (tmp_path / '0.unreadable').read_bytes() == content


def test_a_fact_of_another_version_costs_no_order(spool, broker, tmp_path):
    keep(spool, '1', '2', fact=RunReport('accepted'))
    written = json.loads((tmp_path / '1.json').read_bytes())
    (tmp_path / '1.json').write_text(json.dumps({**written, 'fact': '{"version": 99}'}))
    start(spool, broker)
    eventually(lambda: broker.taken == ['1', '2'])
    assert [bool(fact) for fact in broker.facts] == [False, True]


def test_what_cannot_be_read_or_removed_is_said_once_and_keeps_nothing_from_the_others(
        spool, broker, tmp_path, monkeypatch, caplog):
    (tmp_path / '0.json').mkdir()
    keep(spool, '1', '2')
    looks = []

    def unlink(path, **_):
        looks.append(path.stem)
        raise OSError(30, 'Read-only file system')

    monkeypatch.setattr(Path, 'unlink', unlink)
    start(spool, broker)
    eventually(lambda: looks[:4] == ['1', '2', '1', '2'])
    assert broker.taken == ['1', '2']
    said = [record.getMessage() for record in caplog.records if 'cannot be read or removed' in record.getMessage()]
    assert len(said) == 3
