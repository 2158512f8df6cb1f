"""The doctor on a real deployment: a real RabbitMQ, a real worker, a shop; what is wrong is said to be."""

import json
import os
import zipfile
from pathlib import Path

import pytest
from celery import Celery
from kombu import Connection

from ecommerce_worker.broker import topology
from ecommerce_worker.doctor import queues
from ecommerce_worker.operations import trial
from ecommerce_worker.settings import load
from ecommerce_worker.testing.intake import SECRET
from ecommerce_worker.testing.rabbitmq import PrivateNode, free_port
from ecommerce_worker.tests.support.harness import QUEUE, eventually
from ecommerce_worker.tests.support.rabbitmq import Node


@pytest.fixture
def doctor(command, node, tmp_path):
    """Have it look, and read what it says; ``rabbitmqctl`` reaches the node."""
    place = tmp_path / 'programs'
    place.mkdir()
    given = ''.join(f"export {name}='{value}'\n" for name, value in node.environment.items()
                    if name.startswith(('RABBITMQ_', 'ERL_', 'HOME')))
    program = Path(PrivateNode.program() or '').with_name('rabbitmqctl')
    (place / 'rabbitmqctl').write_text(f'#!/bin/sh\n{given}exec {program} "$@"\n')
    (place / 'rabbitmqctl').chmod(0o755)

    def look(*options, **settings):
        done = command('doctor', '--json', *options, **settings)
        found = json.loads(done.stdout)
        assert done.returncode == found['status'], done.stderr
        return found

    return look


@pytest.fixture
def environment(environment, tmp_path):
    """With that rabbitmqctl before all others."""
    return {**environment, 'PATH': f'{tmp_path / "programs"}{os.pathsep}{environment["PATH"]}'}


def lines(found, subject, state=None):
    return [it for it in found['lines'] if it['subject'] == subject and state in (None, it['state'])]


def worst(found):
    return [f'{it["subject"]}: {it["sentence"]}' for it in found['lines'] if it['state'] in ('warning', 'bad')]


@pytest.fixture
def policy(node):
    """Sets a policy for as long as the test lasts."""
    names: list[str] = []

    def set_policy(pattern, **definition):
        names.append(f'test-{len(names)}')
        node.ctl('set_policy', names[-1], pattern, json.dumps({name.replace('_', '-'): value for name, value
                                                               in definition.items()}))

    yield set_policy
    for name in names:
        node.ctl('clear_policy', name)


def test_where_all_is_well_it_says_so_of_each_thing_and_leaves_nothing_behind(doctor, command, start_worker, shop,
                                                                              broker):
    assert command('migrate').returncode == 0
    start_worker().ready()
    found = doctor()
    seen = {(it['subject'], it['state']) for it in found['lines']}
    assert {('shop', 'well'), ('LMS', 'well'), ('token', 'well'), ('broker', 'well'),
            ('queues', 'well'), ('waiting room', 'well'), ('policies', 'well'), ('workers', 'well')} <= seen, found
    assert worst(found) == ['recorder: No recorder is running: the ledger is not updated.']
    # It has asked about an order that there is not, and nothing else.
    asked = {it.order for it in shop.calls if it.order}
    assert len(asked) == 1
    assert asked.pop().startswith('DOCTOR-')
    assert broker.waiting() == broker.depth(topology.PARKED) == 0


def test_what_is_wrong_is_told_for_people_with_what_to_do(command, start_worker, shop):
    start_worker().ready()
    done = command('doctor', BACKEND_SERVICE_EDX_OAUTH2_SECRET='wrong')
    assert done.returncode == 2
    said = done.stdout.splitlines()
    at = next(number for number, line in enumerate(said) if line.startswith('bad      token:'))
    assert 'does not accept our credentials' in said[at]
    assert said[at + 1].strip().startswith('-> Check AUTHENTICATION')
    assert 'wrong' not in done.stdout


def test_a_shop_whose_name_nobody_knows_is_bad(doctor):
    found = doctor(ECOMMERCE_API_ROOT='http://shop.invalid/api/v2/')
    assert lines(found, 'shop', 'bad')[0]['sentence'] == 'the name shop.invalid cannot be resolved.'


def test_without_a_broker_the_rest_is_looked_at(doctor):
    found = doctor(BROKER_URL=f'amqp://guest:guest@127.0.0.1:{free_port()}')
    assert found['status'] == 2
    assert lines(found, 'broker', 'bad')
    assert lines(found, 'token', 'well')


def test_a_configuration_that_cannot_work_is_all_that_is_said(doctor):
    found = doctor(RETRY_DELAY_MAX='x')
    assert found['status'] == 2
    assert {(it['subject'], it['state']) for it in found['lines']} == {('configuration', 'bad')}


@pytest.mark.parametrize('definition, said', [
    ({'message_ttl': 60_000}, 'destroyed after 60 s'),
    ({'expires': 60_000}, 'is deleted'),
    ({'max_length': 10}, 'drops its oldest'),
    ({'max_length': 10, 'overflow': 'reject-publish'}, 'rejects messages when it is full'),
], ids=str)
def test_a_policy_that_destroys_orders_is_found(doctor, start_worker, policy, definition, said):
    start_worker().ready()
    policy(f'^{QUEUE.replace(".", "[.]")}$', **definition)
    found = doctor()
    line, = lines(found, 'policies')
    assert line['state'] == ('warning' if 'overflow' in definition else 'bad')
    assert line['sentence'].startswith(('Messages in ecommerce.fulfillment', 'ecommerce.fulfillment'))
    assert said in line['sentence']


def test_a_waiting_room_that_is_late_is_bad_and_what_comes_yet_is_parked(monkeypatch, start_worker, broker):
    start_worker().ready()
    monkeypatch.setattr(trial, 'PATIENCE', 0.2)
    with (Celery('doctor', broker=broker.url, set_as_current=False) as app, broker.connection() as connection,
          pytest.raises(trial.NotDelivered, match='retries do not leave it either')):
        trial.through_the_room(app, connection)
    message, = eventually(broker.parked)
    assert message.headers['task'] == trial.TASK


def test_a_bundle_has_it_all_and_no_secret(doctor, start_worker, tmp_path):
    start_worker().ready()
    path = tmp_path / 'bundle.zip'
    secrets = {'BACKEND_SERVICE_EDX_OAUTH2_SECRET': 'hush-secret-1', 'JWT_SECRET_KEY': 'hush-secret-2' * 4,
               'EMAIL_VENDOR': 'smtp', 'EMAIL_OPTIONS': json.dumps({
                   'host': '127.0.0.1', 'from_email': 'shop@example.com', 'username': 'shop',
                   'password': 'hush-secret-3'}),
               'INTAKES': json.dumps({'mine': {'kind': 'submit', 'secrets': [SECRET]}}),
               'MANAGEMENT_URL': f'http://monitor:hush-secret-4@127.0.0.1:{free_port()}'}
    found = doctor('--bundle', str(path), **secrets)
    assert not lines(found, 'configuration', 'bad')
    assert path.stat().st_mode & 0o777 == 0o600
    with zipfile.ZipFile(path) as bundle:
        parts = {name: bundle.read(name).decode() for name in bundle.namelist()}
    assert set(parts) == {'doctor.json', 'versions.json', 'status.json', 'settings.json', 'parked.json'}
    assert 'celery' in json.loads(parts['versions.json'])['packages']
    whole = ''.join(parts.values())
    assert 'hush' not in whole
    assert SECRET not in whole
    assert 'MANAGEMENT_URL' in parts['settings.json']


def test_a_bundle_is_not_written_over_a_file(command, tmp_path):
    path = tmp_path / 'there'
    path.write_text('mine')
    done = command('doctor', '--bundle', str(path), BROKER_URL=f'amqp://guest:guest@127.0.0.1:{free_port()}')
    assert done.returncode == 1
    assert path.read_text() == 'mine'


def test_a_worker_says_at_start_what_it_sees_of_the_machine(start_worker, command, tmp_path):
    assert command('migrate').returncode == 0
    (tmp_path / 'ledger.sqlite3').chmod(0o644)
    log = start_worker().ready().log
    assert f'Every user on this machine can read {tmp_path}/ledger.sqlite3' in log
    assert 'remedy="`chmod o-rwx' in log


class ManagedNode(Node):
    """A node with the management plugin."""

    def _prepared(self):
        self.management = free_port()
        environment = super()._prepared()
        (self.directory / 'enabled_plugins').write_text('[rabbitmq_management].\n')
        with (self.directory / 'rabbitmq.conf').open('a') as file:
            file.write(f'\nmanagement.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {self.management}\n')
        return environment


def test_the_management_plugin_tells_of_policies_to_a_user_who_may_only_look(environment):
    with ManagedNode() as node:
        node.ctl('add_user', 'monitor', 'hush')
        node.ctl('set_user_tags', 'monitor', 'monitoring')
        node.ctl('set_permissions', 'monitor', '^$', '^$', '^$')
        node.ctl('set_operator_policy', 'short', '^ecommerce[.]parked$', '{"message-ttl": 5000}')
        url = f'http://monitor:hush@127.0.0.1:{node.management}'
        settings = load({**environment, 'ECOMMERCE_WORKER_BROKER_URL': node.url,
                         'ECOMMERCE_WORKER_MANAGEMENT_URL': url})
        with Connection(node.url) as connection:
            topology.declare(connection, [topology.task_queue(QUEUE)])
            eventually(lambda: [it.sentence for it in queues.look(connection, settings)] == [
                'Messages in ecommerce.parked are destroyed after 5 s (message-ttl).'])
            node.ctl('clear_operator_policy', 'short')
            eventually(lambda: [it.state.value for it in queues.look(connection, settings)] == ['well'])
