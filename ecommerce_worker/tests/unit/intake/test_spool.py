"""What waits on the disk for the broker."""

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

    def publish(self, publication: Publication, fact: RunReport | None = None) -> None:
        del fact
        if not self.ready or publication.queue == 'gone':
            raise NotPublished('there is no queue for it')
        self.taken.append(publication.raw.properties['correlation_id'])


def test_a_queue_that_is_gone_keeps_nothing_from_the_others(tmp_path):
    broker = HalfABroker()
    spool = Spool(broker, tmp_path)
    # In the order of their names, in which they are looked at.
    for id_, queue in (('1', 'gone'), ('2', 'there'), ('3', 'gone'), ('4', 'there')):
        spool.publish(Publication(Raw(b'{}', 'application/json', 'utf-8', {}, {'correlation_id': id_}), queue))
    broker.ready = True
    spool.start()
    try:
        eventually(lambda: broker.taken == ['2', '4'])
        eventually(lambda: sorted(path.stem for path in tmp_path.glob('*.json')) == ['1', '3'])
    finally:
        spool.end()
