"""Mail that is kept in files."""

import os
import stat
from email import message_from_bytes
from pathlib import Path

import pytest

from ecommerce_worker.clients.http import Api
from ecommerce_worker.email.message import Attachment, Email, Purpose, Receipt
from ecommerce_worker.email.vendors.outbox import Vendor
from ecommerce_worker.errors import Misconfigured, Transient


def mail(**given):
    return Email(**{'purpose': Purpose.REFUND, 'to': ('ann@example.com',), 'subject': 'Hello', 'body': '<p>Hi</p>',
                    'id': 'id-1', **given})


@pytest.fixture
def outbox(tmp_path):
    return Vendor({'directory': str(tmp_path / 'a' / 'outbox')}, Api)


@pytest.fixture
def directory(tmp_path):
    return tmp_path / 'a' / 'outbox'


def test_a_mail_is_a_file_that_mail_readers_open(outbox, directory):
    assert outbox.send(mail()) == Receipt('refund-id-1.eml')
    message = message_from_bytes((directory / 'refund-id-1.eml').read_bytes())
    assert (message['Subject'], message['To'], message['From']) == (
        'Hello', 'ann@example.com', 'EdX Support Team <shop@example.com>')


def test_only_the_workers_user_can_read_it(outbox, directory):
    before = os.umask(0)
    try:
        outbox.send(mail())
    finally:
        os.umask(before)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert [stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()] == [0o600]


def test_a_mail_that_comes_again_replaces_its_file(outbox, directory):
    outbox.send(mail())
    outbox.send(mail(subject='Again'))
    assert [path.name for path in directory.iterdir()] == ['refund-id-1.eml']
    assert b'Subject: Again' in (directory / 'refund-id-1.eml').read_bytes()


@pytest.mark.parametrize('id_', [
    '../../evil', '/etc/passwd', 'a/b', '..', '', 'a\x00b', 'x' * 500, '-rf', 'ü', '\ud800'])
def test_no_id_leads_out_of_the_directory(outbox, directory, tmp_path, id_):
    receipt = outbox.send(mail(id=id_))
    assert [path for path in tmp_path.rglob('*') if path.is_file()] == [directory / receipt.id]


def test_attachments_are_linked_not_fetched(outbox, directory):
    outbox.send(mail(attachments=(Attachment('a.pdf', 'http://127.0.0.1:1/a'),)))
    assert b'http://127.0.0.1:1/a' in (directory / 'refund-id-1.eml').read_bytes()


def test_an_outbox_that_cannot_be_written_is_an_outage(outbox, directory):
    directory.parent.write_text('in the way')
    with pytest.raises(Transient, match=r'the outbox cannot be written: (Not a directory|File exists)') as caught:
        outbox.send(mail())
    assert 'ann@' not in str(caught.value)


def test_what_could_not_be_written_leaves_nothing_behind(outbox, directory):
    (directory / 'refund-id-1.eml').mkdir(parents=True)
    with pytest.raises(Transient):
        outbox.send(mail())
    assert [path.name for path in directory.iterdir()] == ['refund-id-1.eml']


def test_it_is_in_the_home_directory_unless_told_otherwise(environment, tmp_path):
    environment.setenv('HOME', str(tmp_path))
    Vendor({}, Api).send(mail())
    assert (tmp_path / '.ecommerce-worker' / 'outbox' / 'refund-id-1.eml').exists()


def test_nothing_is_written_before_there_is_mail(tmp_path):
    vendor = Vendor({'directory': str(tmp_path / 'outbox')}, Api)
    assert not list(tmp_path.iterdir())
    assert vendor.bounced('ann@example.com') is False


def test_options_that_there_are_not_are_refused():
    with pytest.raises(Misconfigured, match='did you mean directory'):
        Vendor({'directroy': str(Path())}, Api)
