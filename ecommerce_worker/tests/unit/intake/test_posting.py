"""What is posted to an intake, and who may answer in its place."""

import pytest

from ecommerce_worker.intake import posting
from ecommerce_worker.intake.intakes import Intake, Secrets
from ecommerce_worker.intake.sources.submit import Source
from ecommerce_worker.testing.peer import Peer, Reply, reply

INTAKE = Intake('shop', Source({}), Secrets(['x' * 16], str.encode), {})


@pytest.fixture
def peer():
    peer = Peer([])
    yield peer
    peer.close()


@pytest.mark.parametrize('given, status', [
    (reply(200, b'[]'), 200), (reply(200, b'<html>'), 200), (reply(200, b''), 200), (reply(502, b'{oh'), 502)],
    ids=['a list', 'a page', 'nothing', 'no JSON'])
def test_an_answer_of_somebody_else_is_no_acceptance(peer, given, status):
    peer.replies = [given]
    answer = posting.post(INTAKE, b'{}', peer.url)
    assert (answer.status, answer.id, answer.text) == (status, '', f'{status} refused')


def test_somebody_who_does_not_speak_http_is_nobody(peer):
    peer.replies = [Reply([b'AMQP\0\0\x09\x01'], close=True)]
    with pytest.raises(posting.NotAnswered, match='no answer from http'):
        posting.post(INTAKE, b'{}', peer.url)
