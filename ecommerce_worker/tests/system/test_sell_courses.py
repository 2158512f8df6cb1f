"""The pages that tell how courses are sold, done as they stand: configuration, commands, and what these print."""

import os
import re
import shlex
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path

import pytest
import yaml

from ecommerce_worker.broker import topology
from ecommerce_worker.demo.webhooks import is_ready
from ecommerce_worker.testing.lms import CLIENT_ID, CLIENT_SECRET, Course, Lms
from ecommerce_worker.testing.rabbitmq import free_port
from ecommerce_worker.testing.shops import KEY, SECRET, Shopify, Stripe, WooCommerce
from ecommerce_worker.tests.support.harness import QUEUE, Program, eventually

PAGES = Path(__file__).parents[3] / 'docs' / 'how-to'
COURSE, LEARNER = 'course-v1:edX+PY101+2027', 'ann@example.com'
SIGNING = 'whsec_dGhpcnR5LXR3by1ieXRlcy1vci1tb3JlLW9mLXNlY3JldHM='

#: The parts of a page that are done: what kind of block each is, and its text.
BLOCKS = re.compile(r'^(?:\.\. code-block:: (?P<kind>\w+)|.*::)\n\n(?P<text>(?:    .*\n|\n)+)', re.MULTILINE)

SHOPS = {'shopify': Shopify, 'woocommerce': WooCommerce, 'stripe': Stripe}

#: What a shop gives out, or a person has got, by the file that it goes to.
GIVEN = {'oauth2': CLIENT_SECRET, 'shopify': SIGNING, 'shopify_id': KEY, 'shopify_secret': SECRET, 'stripe': SIGNING,
         'stripe_key': KEY, 'woocommerce_key': KEY, 'woocommerce_secret': SECRET}


class Terminal:
    """A terminal in a directory of its own, on a machine where the files of the page are elsewhere."""

    def __init__(self, directory, environment):
        self.directory, self.environment = directory, environment
        self.up: Program | None = None
        program = directory / 'bin' / 'ecommerce-worker'
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m ecommerce_worker "$@"\n')
        program.chmod(0o755)
        environment['PATH'] = f'{program.parent}{os.pathsep}{os.environ["PATH"]}'

    def here(self, text):
        """The text with the paths of files that are here."""
        return text.replace('/run/secrets/', f'{self.directory}/').replace('/etc/ecommerce-worker/',
                                                                            f'{self.directory}/')

    def do(self, line, ready):
        """What a command prints; what runs until it is stopped is waited for until it is ready."""
        words = shlex.split(line)
        if words[0] == 'export':
            name, _, value = self.here(words[1]).partition('=')
            self.environment[name] = value
            return ''
        if words == ['ecommerce-worker', 'up']:
            self.up = up = Program(self.directory / 'up.log', self.environment, '-m', 'ecommerce_worker', 'up')
            eventually(lambda: up.process.poll() is not None or ready())
            assert up.process.poll() is None, up.log
            return ''
        done = subprocess.run(self.here(line), shell=True, cwd=self.directory, env=self.environment, text=True,
                              capture_output=True, check=False, timeout=60)
        assert done.returncode == 0, (line, done.stdout, done.stderr)
        return done.stdout


#: What is another each time: times, ids, and ports.
CHANGING = re.compile(r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC, .*|(?<=127.0.0.1:)\d+|(?<=by the intake).*')


def lines_of(text):
    """The lines of a text, without what is another each time, whatever the columns."""
    return [' '.join(CHANGING.sub('', line).split()) for line in text.strip().splitlines()]


def difference(shown, printed):
    """The first line of what is shown that was not printed, in this order; … alone stands for any number of them."""
    lines = iter(lines_of(printed))
    return next((line for line in lines_of(shown) if line != '…' and line not in lines), '')


@pytest.mark.parametrize('kind', SHOPS)
def test_from_the_empty_shop_to_the_enrolled_learner(kind, broker, facts, tmp_path):
    page = (PAGES / f'sell-courses-with-{kind}.rst').read_text()
    port, console = free_port(), free_port()
    kept = {name: value for name, value in os.environ.items() if not name.startswith('ECOMMERCE_WORKER')}
    # What stands in front of all of it, and this machine.
    terminal = Terminal(tmp_path, {
        **kept, 'HOME': str(tmp_path), 'PYTHONUNBUFFERED': '1', 'ECOMMERCE_WORKER_BROKER_URL': broker.url,
        'ECOMMERCE_WORKER_INTAKE_ADDRESS': f'127.0.0.1:{port}',
        'ECOMMERCE_WORKER_CONSOLE_ADDRESS': f'127.0.0.1:{console}', 'ECOMMERCE_WORKER_REDELIVERY_DELAY': '1'})
    for name, value in GIVEN.items():
        (tmp_path / name).write_text(value)
    with Lms() as lms, SHOPS[kind]() as shop:
        lms.courses[COURSE] = Course()
        lms.register(LEARNER, 'ann')

        def ready():
            return is_ready(f'127.0.0.1:{port}') and broker.consumers(QUEUE) and broker.consumers(topology.LEDGER)

        command, printed, compared = '', '', 0

        def shows(text):
            """Whether the order is shown like that by now: whoever reads the page is slower than a test."""
            nonlocal printed
            printed = terminal.do(command, ready)
            return difference(text, printed) == ''

        try:
            for block in BLOCKS.finditer(page):
                text = textwrap.dedent(block['text'])
                match block['kind']:
                    case 'yaml':
                        found = yaml.safe_load(terminal.here(text).replace('https://lms.example.com/', lms.url).replace(
                            'https://blog.example.com/', shop.url))
                        found['BACKEND_SERVICE_EDX_OAUTH2_KEY'] = CLIENT_ID
                        for intake in found['INTAKES'].values() if kind != 'woocommerce' else ():
                            intake['api_url'] = shop.url
                        (tmp_path / 'worker.yml').write_text(yaml.safe_dump(found))
                    case 'json':
                        name, = re.findall(r'\w+\.json', page[:block.start()])[-1:]
                        (tmp_path / name).write_text(text)
                    case 'text':
                        if command.startswith('ecommerce-worker orders show'):
                            eventually(partial(shows, text))
                        assert difference(text, printed) == '', printed
                        compared += 1
                    case None:
                        for command in text.strip().splitlines():
                            printed = terminal.do(command, ready)
            eventually(lambda: lms.standing(LEARNER, COURSE) == ('verified', True))
        finally:
            if terminal.up:
                terminal.up.stop()
    assert compared == 2
    assert LEARNER not in (tmp_path / 'up.log').read_text()
