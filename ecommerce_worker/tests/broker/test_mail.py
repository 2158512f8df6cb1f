"""Mail through a real broker, a real worker and a real mail server: all of it arrives, once, and shows nowhere else."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kombu import Queue

from ecommerce_worker.broker import topology
from ecommerce_worker.fulfillment.names import FULFILL
from ecommerce_worker.testing.rabbitmq import free_port
from ecommerce_worker.testing.shop import Answer
from ecommerce_worker.testing.shop.server import Reply, Server
from ecommerce_worker.tests.support.harness import Broker, Worker, eventually
from ecommerce_worker.tests.support.messages import MESSAGES
from ecommerce_worker.tests.support.smtp import MailServer, mail_server

ASSIGN = 'ecommerce_worker.email.v1.tasks.send_offer_assignment_email'
USAGE = 'ecommerce_worker.email.v1.tasks.send_offer_usage_email'
UPDATE = 'ecommerce_worker.email.v1.tasks.send_offer_update_email'
QUEUE = 'ecommerce.email_marketing'

#: The genuine messages that ask for mail.
MAILS = [message for message in MESSAGES if re.search(r'\.send_\w+_email$', message['task'])]
ASSIGNMENTS = [message for message in MAILS if 'assignment_email' in message['task']]

#: What of a mail nobody may read in a log, in a header or on a screen.
CONTENTS = ('@example.com', 'acme', 'Your code', 'Offer Usage', 'Day 3', 'ABC123', 'percent_usage', 'S3CRET')

#: What a shop asks in its own process.
ASKED = 'from ecommerce_worker.email.v1.api import did_email_bounce; print(did_email_bounce("ann@example.com"))'

SUBJECT, BODY = 'Your code', '<p>S3CRET</p>'


@pytest.fixture
def mailbox() -> Iterator[MailServer]:
    """A mail server that takes all."""
    with mail_server() as server:
        yield server


@pytest.fixture
def mailing(start_worker: Callable[..., Worker]) -> Callable[..., Worker]:
    """Start a worker that mails by way of the server on that port."""
    def start(port: int, **settings: object) -> Worker:
        return start_worker(EMAIL_VENDOR='smtp', EMAIL_OPTIONS=options(port), **settings).ready()

    return start


@pytest.fixture
def assign(publish: Callable[..., Any]) -> Callable[..., str]:
    """Ask for an assignment mail as the shop does; the id of the message."""
    def ask(assignment: int = 7) -> str:
        return str(publish('ann@example.com', assignment, SUBJECT, BODY, 'Acme', 'help@acme.example', task=ASSIGN,
                           queue=QUEUE, attachments=[], base_enterprise_url='https://learn.example.com/acme').id)

    return ask


def options(port: int) -> str:
    return json.dumps({'host': '127.0.0.1', 'port': port, 'security': 'none', 'from_email': 'no-reply@shop.example',
                       'attachment_timeout': 1})


def outcomes(worker: Worker, task: str) -> list[str]:
    """How the runs of a task ended, by its name without the package."""
    return re.findall(rf' - (?!accepted)(\w+): task=[\w.]+\.{task} ', worker.log)


def quiet(broker: Broker) -> bool:
    """Whether no mail is on its way."""
    return not (broker.depth(QUEUE) or broker.depth('email_marketing') or broker.waiting())


def waiting(broker: Broker) -> list[Any]:
    """The messages that wait for their next try, left where they are."""
    with broker.connection() as connection:
        channel = connection.channel()
        return [message for bit in range(topology.BITS)
                for message in iter(Queue(topology.level(bit)).bind(channel).get, None)]


def shown(*texts: str) -> list[str]:
    """What of the mails can be read in these texts."""
    return [content for content in CONTENTS if content in ' '.join(texts)]


def html(mail: Any) -> str:
    body = mail.message.get_body(('html',))
    return str(body.get_content())


# -- every mail -------------------------------------------------------------------------------------------------------

def test_every_mail_that_a_shop_has_ever_asked_for_arrives(shop, broker, mailbox, mailing):
    for message in MESSAGES:
        if message['task'] != FULFILL:
            broker.publish_message(message)
    worker = mailing(mailbox.port)
    eventually(lambda: len(mailbox.mails) >= len(MAILS) and len(shop.reports) == len(ASSIGNMENTS) and quiet(broker))
    sent = {mail.message['Message-ID'].partition('@')[0].strip('<'): mail for mail in mailbox.mails}
    assert len(mailbox.mails) == len(MAILS)
    for message in MAILS:
        mail = sent[message['correlation_id']]
        assert set(mail.to) <= {'ann@example.com', 'a@example.com', 'b@example.com'}
        expected = ('US$49.00' if 'refund' in message['task'] else '80' if 'triggered' in message['task'] else
                    'Café code ABC123')
        assert expected in html(mail)
    assert broker.parked() == []
    assert set(shop.reports.values()) == {'7'}
    assert set(shop.reports) == {message['correlation_id'] for message in ASSIGNMENTS}
    assert shown(worker.log) == []


def test_mail_that_came_before_there_was_a_vendor_arrives_when_there_is_one_and_it_is_sent_again(
        broker, mailbox, start_worker, mailing, command):
    for message in MAILS:
        broker.publish_message(message)
    worker = start_worker(EMAIL_WITHOUT_VENDOR='park').ready()
    parked = eventually(lambda: len(found := broker.parked()) == len(MAILS) and found)
    listed = command('parked', 'list').stdout
    assert listed.count('set EMAIL_VENDOR') == len(MAILS)
    assert shown(worker.log, listed, *(str(message.headers) for message in parked)) == []
    assert worker.stop() == 0
    mailing(mailbox.port)
    assert command('parked', 'resend', '--all').returncode == 0
    eventually(lambda: len(mailbox.mails) == len(MAILS) and quiet(broker))
    assert broker.parked() == []


# -- the report -------------------------------------------------------------------------------------------------------

def test_the_shop_is_told_of_an_assignment_mail(shop, mailbox, mailing, assign):
    worker = mailing(mailbox.port)
    id_ = assign()
    eventually(lambda: outcomes(worker, 'report_assignment_email') == ['done'])
    assert shop.reports == {id_: '7'}
    # It was known before a worker touched it.
    follows = r'accepted: task=\S+report_assignment_email key=7 .*"after send_offer_assignment_email 7"'
    eventually(lambda: re.search(follows, worker.log))
    call, = (call for call in shop.calls if call.assignment)
    assert (call.assignment, call.status) == ('7', 200)


def test_a_shop_that_is_down_is_told_later_and_the_mail_is_not_sent_again(shop, mailbox, mailing, assign):
    shop.fault_reports(Answer(status=503), Answer(status=503))
    worker = mailing(mailbox.port)
    id_ = assign()
    eventually(lambda: outcomes(worker, 'report_assignment_email') == ['retrying', 'retrying', 'done'])
    assert shop.reports == {id_: '7'}
    assert len(mailbox.mails) == 1


def test_a_shop_whose_answer_was_lost_has_noted_it(shop, broker, mailbox, mailing, assign):
    shop.fault_reports(Answer.lost())
    worker = mailing(mailbox.port)
    assign()
    eventually(lambda: outcomes(worker, 'report_assignment_email') == ['retrying', 'skipped'])
    assert (len(shop.reports), len(mailbox.mails), broker.parked()) == (1, 1, [])


def test_a_mail_that_is_not_sent_is_not_reported(shop, broker, mailbox, mailing, assign):
    mailbox.answers['DATA'] = '554 spam'
    mailing(mailbox.port)
    assign()
    message, = eventually(broker.parked)
    assert message.headers['ecommerce']['reason'] == 'the mail server refuses it (554): spam'
    assert (shop.reports, mailbox.mails) == ({}, [])
    assert quiet(broker)


# -- trouble ----------------------------------------------------------------------------------------------------------

def test_a_mail_server_that_is_down_gets_the_mail_when_it_is_back_and_once(broker, mailing, assign):
    port = free_port()
    worker = mailing(port)
    id_ = assign()
    eventually(lambda: 'retrying' in outcomes(worker, 'send_offer_assignment_email'))
    assert 'the mail server refused the connection' in worker.log
    with mail_server(port=port) as server:
        eventually(lambda: 'done' in outcomes(worker, 'report_assignment_email'))
        assert outcomes(worker, 'send_offer_assignment_email').count('done') == 1
        mail, = server.mails
    assert mail.to == ('ann@example.com',)
    assert mail.message['Message-ID'] == f'<{id_}@shop.example>'
    assert broker.parked() == []


@pytest.mark.parametrize('step', ['MAIL', 'RCPT', 'DATA'])
def test_a_mail_that_is_refused_for_now_is_sent_later_and_once(mailbox, mailing, assign, step):
    mailbox.answers[step] = '451 greylisted'
    worker = mailing(mailbox.port)
    assign()
    eventually(lambda: 'retrying' in outcomes(worker, 'send_offer_assignment_email'))
    assert mailbox.mails == []
    del mailbox.answers[step]
    eventually(lambda: 'done' in outcomes(worker, 'report_assignment_email'))
    assert outcomes(worker, 'send_offer_assignment_email').count('done') == 1
    assert len(mailbox.mails) == 1


def test_a_recipient_who_is_refused_is_parked_and_the_others_are_mailed_once(broker, mailbox, mailing, publish):
    mailbox.answers['RCPT bad@example.com'] = '550 no such user here: bad@example.com'
    worker = mailing(mailbox.port)
    publish('ann@example.com,bad@example.com,bob@example.com', 'Offer Usage', BODY, task=USAGE, queue=QUEUE)
    parked, = eventually(broker.parked)
    reason = parked.headers['ecommerce']['reason']
    assert reason == 'the mail server refuses it (550): no such user here: <address>'
    assert json.loads(parked.body)[1]['emails'] == 'bad@example.com'
    mail, = mailbox.mails
    assert mail.to == ('ann@example.com', 'bob@example.com')
    assert mail.message['To'] == 'undisclosed-recipients:;'
    assert outcomes(worker, 'send_offer_usage_email') == ['done', 'parked']
    assert quiet(broker)


class Lingering(dict[str, str]):
    """The answers of a mail server that has a whole mail in hand and does not answer until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.in_hand, self.go_on = threading.Event(), threading.Event()

    def __contains__(self, name: object) -> bool:
        if name == 'DATA':
            self.in_hand.set()
            self.go_on.wait(30)
        return super().__contains__(name)


def test_a_mail_whose_worker_is_killed_before_the_answer_comes_again_with_the_same_id(shop, mailbox, mailing, assign):
    mailbox.answers = lingering = Lingering()
    worker = mailing(mailbox.port)
    id_ = assign()
    try:
        assert lingering.in_hand.wait(30)
        worker.kill()
    finally:
        lingering.go_on.set()
    again = mailing(mailbox.port)
    eventually(lambda: outcomes(again, 'report_assignment_email') == ['done'])
    assert [mail.message['Message-ID'] for mail in mailbox.mails] == [f'<{id_}@shop.example>'] * 2
    assert shop.reports == {id_: '7'}


# -- what shows -------------------------------------------------------------------------------------------------------

def test_nothing_of_a_mail_shows_where_it_waits_or_is_parked(broker, mailbox, mailing, publish, command):
    mailbox.answers |= {'RCPT ann@example.com': '451 greylisted: ann@example.com',
                        'RCPT bob@example.com': '550 no such user: bob@example.com'}
    worker = mailing(mailbox.port, RETRY_DELAY_MIN=600, RETRY_DELAY_MAX=900)
    for address in ('ann@example.com', 'bob@example.com', 'S3CRET'):
        publish(address, SUBJECT, BODY, 'Acme', 'help@acme.example', task=UPDATE, queue=QUEUE)
    eventually(lambda: (broker.waiting(), broker.depth(topology.PARKED)) == (1, 2))
    messages = [*waiting(broker), *broker.parked()]
    assert len(messages) == 3
    assert shown(*(str({**message.headers, **message.properties}) for message in messages)) == []
    commands = [command(*words).stdout for words in (
        ('status', '--timeout', '3'), ('parked', 'list'), ('parked', 'show', '--task', 'send_offer_update_email'))]
    assert '2 for a person' in commands[0]
    assert '(550): no such user: <address>' in commands[1]
    assert shown(worker.log, *commands) == []


# -- what a shop may ask ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize('found', [[{'email': 'ann@example.com', 'hard_bounced_at': '2026-01-01'}], []],
                         ids=['bounced', 'not bounced'])
def test_a_shop_that_asks_whether_mail_came_back_is_told_yes_or_no(environment, found):
    braze = Server(free_port(), lambda _: Reply.of({'emails': found, 'message': 'success'}), None)
    threading.Thread(target=braze.serve_forever, args=(0.02,)).start()
    given = {'BRAZE_ENABLE': True, 'BRAZE_REST_API_KEY': 'key', 'BRAZE_WEBAPP_API_KEY': 'app',
             'REST_API_URL': f'http://127.0.0.1:{braze.server_address[1]}'}
    try:
        done = subprocess.run([sys.executable, '-c', ASKED], text=True, capture_output=True, timeout=60, check=False,
                              env={**environment, 'ECOMMERCE_WORKER_BRAZE': json.dumps(given)})
    finally:
        braze.shutdown()
        braze.server_close()
    assert (done.stdout, done.stderr) == (f'{bool(found)}\n', '')


def test_a_shop_without_a_vendor_that_can_tell_is_told_no(environment, mailbox):
    done = subprocess.run([sys.executable, '-c', ASKED], text=True, capture_output=True, timeout=60, check=False,
                          env={**environment, 'ECOMMERCE_WORKER_EMAIL_VENDOR': 'smtp',
                               'ECOMMERCE_WORKER_EMAIL_OPTIONS': options(mailbox.port)})
    assert (done.stdout, done.stderr) == ('False\n', '')
