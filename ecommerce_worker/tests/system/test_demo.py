"""The demonstration as a newcomer runs it: what it shows is true, and it leaves nothing behind."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from kombu import Producer, Queue

from ecommerce_worker.demo.orders import DELIVERED, HOPELESS, IN_MID_FLIGHT, LETTERS, PURCHASES, TROUBLES
from ecommerce_worker.tests.support.harness import QUEUE, Broker, eventually

COUNTABLE = Path('/proc/self/environ').exists()


@dataclass
class Demo:
    """A demonstration under way, and what it has shown."""

    process: subprocess.Popen[str]
    mark: str
    directory: Path

    @property
    def shown(self) -> str:
        """All that it has shown so far."""
        return (self.directory / 'shown').read_text()

    def shows(self, text: str, seconds: float = 60) -> None:
        """Return when it has shown this."""
        eventually(lambda: text in self.shown or self.process.poll() is not None, seconds=seconds)
        assert text in self.shown

    def ends(self, status: int) -> str:
        """All that it showed until it ended with this status, leaving no process and no file."""
        assert self.process.wait(110) == status, self.shown
        if COUNTABLE:
            eventually(lambda: not self.processes(), seconds=5)
        return self.shown

    def processes(self) -> list[str]:
        """The processes that were started by it or by what it started: all have its mark in their environment."""
        found = []
        for process in Path('/proc').glob('[0-9]*'):
            try:
                if self.mark.encode() in (process / 'environ').read_bytes():
                    found.append((process / 'cmdline').read_text())
            except OSError:
                continue
        return found

    @property
    def files(self) -> list[Path]:
        """What is in its temporary directory."""
        return list((self.directory / 'tmp').iterdir())


@pytest.fixture
def play(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    """Start a demonstration: the command, or a program of its own."""
    started: list[Demo] = []

    def start(*options: str, program: str = '', **environment: str) -> Demo:
        mark = uuid.uuid4().hex
        (tmp_path / 'tmp').mkdir()
        given = {'MARK': mark, 'TMPDIR': str(tmp_path / 'tmp'), 'COLUMNS': '150', **environment}
        kept = {name: value for name, value in os.environ.items()
                if name != 'BROKER_URL' and not name.startswith('ECOMMERCE_WORKER')}
        call = ['-c', program] if program else ['-m', 'ecommerce_worker', 'demo', *options]
        with (tmp_path / 'shown').open('w') as shown:
            process = subprocess.Popen([sys.executable, *call], stdout=shown, stderr=shown, text=True,
                                       env={**kept, **given})
        demo = Demo(process, mark, tmp_path)
        started.append(demo)
        return demo

    yield start
    for demo in started:
        if demo.process.poll() is None:
            demo.process.kill()
            demo.process.wait()


def ended_well(shown: str) -> set[str]:
    """The orders and mails that the table says ended as they should."""
    table = shown.partition('What happened\n')[2]
    return set(re.findall(r'^(EDX-\d+|mail \d+) .*✓$', table, re.MULTILINE))


@pytest.mark.usefixtures('node')
def test_each_order_and_each_mail_ends_as_it_should_and_a_console_is_open_on_them(play):
    demo = play('--keep')
    demo.shows('parked list` and so on', 110)
    shown = demo.shown
    assert ended_well(shown) == {story.number for story in (*TROUBLES, *LETTERS, *IN_MID_FLIGHT, *DELIVERED, *PURCHASES,
                                                            HOPELESS)}
    assert '✗' not in shown
    assert 'a private RabbitMQ' in shown
    assert re.search(r'EDX-10005 .* 3 PUT 2 GET +the shop failed \(503\), twice; fulfilled', shown)
    assert re.search(r'EDX-10015 .* 1 PUT 1 GET +its worker was killed; .* +fulfilled +✓', shown)
    assert re.search(r'EDX-10016 .* 2 PUT 1 GET +its worker was killed; ', shown)
    assert re.search(r'EDX-10017 .* 1 PUT 1 GET +accepted; repeated; .* +fulfilled +✓', shown)
    assert re.search(r'POST 401 +a forged order is delivered: unauthorized', shown)
    assert re.search(r'EDX-10019 .* 1 PUT 1 GET +unavailable; accepted; .* +fulfilled +✓', shown)
    assert re.search(r'EDX-10020 +registers .*(.|\n)* EDX-10020 +done +enrolled as paid for', shown)
    assert re.search(r'EDX-10021 +parked +MUG is not in PRODUCTS', shown)
    assert re.search(r'EDX-10022 +skipped +another paid order covers the learner', shown)
    assert 'acme.example' not in shown
    assert re.search(r'mail 7001 .* 1 mail 1 report +sent; reported to the shop +sent', shown)
    assert re.search(r'mail 7002 .* 2 mail 1 report +SendGrid asks us to slow down \(429\); ', shown)
    assert re.search(r'mail 7003 .* 1 mail +parked: SendGrid refuses it \(400\): ', shown)
    assert [content for letter in LETTERS for content in (*letter.call[0][2:], letter.to) if content in shown] == []
    assert 'Traceback' not in shown
    assert '\033' not in shown

    invitation = re.search(r'choose one for "operator" within a day: (\S+)', shown)
    assert invitation, shown
    with urlopen(invitation[1], timeout=60) as page:
        assert page.status == 200
    assert re.search(r'http://127\.0\.0\.1:\d+/orders/\?q=EDX-10005  ', shown)
    environment = {name: shlex.split(value)[0]
                   for name, value in re.findall(r'^export (\w+)=(.*)$', shown, re.MULTILINE)}

    def told() -> str:
        return subprocess.run([sys.executable, '-m', 'ecommerce_worker', 'orders', 'show', 'EDX-10005'], text=True,
                              check=False, capture_output=True, env={**os.environ, **environment}, timeout=30).stdout

    eventually(lambda: 'fulfilled' in told())
    demo.process.send_signal(signal.SIGINT)
    demo.ends(0)
    assert demo.files == []


def test_it_works_without_a_rabbitmq_and_goes_on_if_told_to(play):
    demo = play('--keep', '--files')
    demo.shows('parked list` and so on')
    shown = demo.shown
    assert 'It loses the messages of a killed worker' in shown
    assert ended_well(shown) == {story.number for story in (*TROUBLES, *LETTERS, HOPELESS)}
    exports = dict(re.findall(r'^export (\w+)=(.*)$', shown, re.MULTILINE))
    environment = {name: shlex.split(value)[0] for name, value in exports.items()}
    listed = subprocess.run([sys.executable, '-m', 'ecommerce_worker', 'parked', 'list'], text=True, check=False,
                            capture_output=True, env={**os.environ, **environment}, timeout=30)
    assert (listed.returncode, '2 parked messages' in listed.stdout) == (0, True), listed
    demo.process.send_signal(signal.SIGINT)
    demo.ends(0)
    assert demo.files == []


#: A demonstration of one order only.
SHORT = """
import sys
from ecommerce_worker.demo import orders, story
story.TROUBLES, story.LETTERS, story.HOPELESS = (), (), STORY
sys.exit(story.run(rabbitmq=False))
"""


def test_it_ends_by_itself_and_leaves_nothing(play):
    demo = play(program=SHORT.replace('STORY', 'story.HOPELESS'))
    assert ended_well(demo.ends(0)) == {HOPELESS.number}
    assert demo.files == []


def test_an_order_that_ends_otherwise_is_named_and_the_logs_stay(play):
    demo = play(program=SHORT.replace('STORY', "orders.Story('EDX-1', 'a wrong expectation', puts=2)"))
    shown = demo.ends(1)
    assert 'EDX-1 did not end as it should: the shop was asked 1 times, not 2' in shown
    assert 'Among the commands: `ecommerce-worker parked resend --order EDX-1` ended with status 1' in shown
    [logs] = re.findall(r'The logs are in (.*)', shown)
    assert 'done: task=' in (Path(logs) / 'worker-1.log').read_text()
    assert [path.name for path in Path(logs).parent.iterdir()] == ['logs']


@pytest.mark.parametrize('moment, by, status', [
    ('starting a broker', signal.SIGINT, 130),
    ('published', signal.SIGTERM, 143),
], ids=lambda value: str(value).replace(' ', ''))
@pytest.mark.usefixtures('node')
def test_interrupted_it_takes_all_that_it_started_along(play, moment, by, status):
    demo = play()
    demo.shows(moment)
    time.sleep(0.3)
    assert demo.process.poll() is None
    demo.process.send_signal(by)
    demo.ends(status)
    assert demo.files == []


@pytest.mark.skipif(not COUNTABLE, reason='processes are counted in /proc')
@pytest.mark.usefixtures('node')
def test_killed_it_leaves_no_process(play):
    demo = play()
    demo.shows('published')
    demo.process.kill()
    demo.ends(-signal.SIGKILL)


@pytest.mark.parametrize('moment', ['mail 7001  mail 202', 'killed'])  # first, what follows from a mail waits
def test_interrupted_on_somebodys_rabbitmq_it_takes_its_messages_out_again(play, broker: Broker, moment: str):
    demo = play(BROKER_URL=broker.url)
    demo.shows(moment)
    demo.process.send_signal(signal.SIGINT)
    demo.ends(130)
    assert (broker.depth(QUEUE), broker.waiting(), broker.parked()) == (0, 0, [])
    assert demo.files == []


def publish(broker: Broker, name: str, body: str) -> None:
    with broker.connection() as connection:
        Producer(connection.channel()).publish(body, routing_key=name, declare=[Queue(name)], delivery_mode=2)


@pytest.mark.parametrize('name', [QUEUE, 'ecommerce.parked'])
def test_orders_of_somebodys_rabbitmq_are_left_alone(play, broker: Broker, name: str):
    publish(broker, name, 'an order of somebody')
    shown = play(ECOMMERCE_WORKER_BROKER_URL=broker.url).ends(69)
    assert f'there are messages in {name} (1)' in shown
    assert broker.depth(name) == 1


def test_a_worker_of_somebodys_rabbitmq_is_left_alone(play, broker: Broker, start_worker: Any):
    start_worker().ready()
    assert f'a worker consumes {QUEUE}' in play(BROKER_URL=broker.url).ends(69)


@pytest.mark.parametrize('url, status, words', [
    ('amqp://guest:secret@127.0.0.1:1//', 69, 'cannot be used'),
    ('redis://127.0.0.1:1/0', 78, 'needs RabbitMQ'),
])
def test_a_broker_that_cannot_be_used_is_one_plain_line(play, url, status, words):
    shown = play(BROKER_URL=url).ends(status)
    assert words in shown
    assert 'secret' not in shown
    assert 'Traceback' not in shown
