"""What deploy/rabbitmq writes, as far as no RabbitMQ is needed to see it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ecommerce_worker import settings
from ecommerce_worker.broker import topology
from ecommerce_worker.cli.up import CHILDREN
from ecommerce_worker.configuration import base

PLACE = Path(settings.__file__).parents[2] / 'deploy' / 'rabbitmq'
ROLES = {*CHILDREN, 'shop', 'monitoring'}
NAMES = {'broker-url': 'worker', 'management-url': 'monitoring'}

#: The pattern of the page on production, by whoever may write and who may not.
NEEDED = r'^(ecommerce([._].*)?|fulfillment|email_marketing|.*celery\.pidbox)$'
NEEDED_TO_WRITE = r'^(ecommerce([._].*)?|fulfillment|email_marketing|.*celery\.pidbox|amq\.default)$'


def write(directory, *options):
    subprocess.run([sys.executable, PLACE / 'definitions.py', *options, directory], check=True)
    return {NAMES.get(path.name, path.name.removesuffix('-broker-url')): path.read_text().strip()
            for path in directory.glob('*-url')}


@pytest.fixture
def definitions(tmp_path):
    write(tmp_path, '--vhost', 'a shop')
    return json.loads((tmp_path / 'definitions.json').read_text())


def test_each_role_has_a_user_of_its_own(definitions, tmp_path):
    assert {it['name'] for it in definitions['users']} == ROLES == set(write(tmp_path))
    assert {it['user'] for it in definitions['permissions']} == ROLES
    assert {it['vhost'] for it in definitions['permissions'] + definitions['policies']} == {'a shop'}


def test_who_only_looks_has_a_url_that_doctor_takes(tmp_path):
    url = write(tmp_path, '--management', 'https://rabbitmq.example.com:15671')['monitoring']
    assert url.endswith('@rabbitmq.example.com:15671')
    found = settings.load({'ECOMMERCE_WORKER_MANAGEMENT_URL': f'file:{tmp_path}/management-url'})
    assert url == found.MANAGEMENT_URL


def test_the_worker_may_what_the_page_says(definitions):
    worker = next(it for it in definitions['permissions'] if it['user'] == 'worker')
    assert (worker['configure'], worker['write'], worker['read']) == (NEEDED, NEEDED_TO_WRITE, NEEDED)


def test_nobody_may_more_than_the_worker_and_only_the_recorder_reads_what_is_parked(definitions):
    names = [*base.QUEUES, topology.PARKED, topology.LEDGER, topology.FACTS, topology.DELIVERY, topology.UNDELIVERABLE,
             topology.level(0), topology.ROOM_END, 'amq.default', 'of.somebody.else', 'ecommerce']
    of = {it['user']: {kind: {name for name in names if re.search(it[kind], name)}
                       for kind in ('configure', 'write', 'read')} for it in definitions['permissions']}
    for may in of.values():
        assert all(may[kind] <= of['worker'][kind] for kind in may)
        assert 'of.somebody.else' not in may['configure'] | may['write'] | may['read']
    assert {user for user, may in of.items() if topology.PARKED in may['read']} == {'worker', 'recorder'}
    assert of['monitoring'] == {'configure': set(), 'write': set(), 'read': set()}
    assert of['intake'] == {'configure': set(), 'read': set(),
                            'write': {*base.QUEUES, 'ecommerce', 'amq.default', topology.FACTS}}
    # Since 4.3 nobody sees whether a queue is there without any permission on it.
    for user in ('recorder', 'console'):
        assert {*base.QUEUES, topology.level(0), topology.PARKED, topology.LEDGER} <= set.union(*of[user].values())


def test_each_queue_that_is_looked_into_may_be_as_often_as_anybody_likes(definitions):
    looks = next(it for it in definitions['policies'] if 'delivery-limit' in it['definition'])
    looked_into = [topology.PARKED, topology.PARKED_LARGE, topology.LEDGER, topology.level(0)]
    assert [name for name in (*looked_into, *base.QUEUES) if re.search(looks['pattern'], name)] == looked_into


def test_every_version_from_3_10_on_knows_to_what_the_policies_apply(definitions):
    assert {it['apply-to'] for it in definitions['policies']} == {'queues'}


def test_the_script_sets_the_policies_of_the_definitions(tmp_path, definitions):
    told = tmp_path / 'told'
    (tmp_path / 'rabbitmqctl').write_text(f'#!{sys.executable}\nimport json, sys\n'
                                          f"open({str(told)!r}, 'a').write(json.dumps(sys.argv[1:]) + '\\n')\n")
    (tmp_path / 'rabbitmqctl').chmod(0o755)
    subprocess.run([PLACE / 'policies.sh', 'a shop'], check=True,
                   env={'PATH': '/usr/bin:/bin', 'RABBITMQCTL': str(tmp_path / 'rabbitmqctl')})
    assert [json.loads(line)[:-1] for line in told.read_text().splitlines()] == [
        ['set_policy', '--vhost', 'a shop', '--priority', str(it['priority']), '--apply-to', it['apply-to'],
         it['name'], it['pattern']] for it in definitions['policies']]
    assert [json.loads(json.loads(line)[-1]) for line in told.read_text().splitlines()] == [
        it['definition'] for it in definitions['policies']]


def test_passwords_are_kept_until_their_url_is_deleted_and_nobody_else_can_read_them(tmp_path):
    first = write(tmp_path)
    assert write(tmp_path) == first
    (tmp_path / 'broker-url').unlink()
    again = write(tmp_path)
    assert again['worker'] != first['worker']
    assert again['shop'] == first['shop']
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_a_file_that_others_were_let_read_stays_so_when_a_password_is_changed(tmp_path):
    write(tmp_path)
    for path in tmp_path.iterdir():
        path.chmod(0o644)  # as Compose needs it: a container reads it as a user without a name
    (tmp_path / 'broker-url').unlink()
    write(tmp_path)
    assert {path.name for path in tmp_path.iterdir() if path.stat().st_mode & 0o777 != 0o644} == {'broker-url'}
