"""TLS to the broker, with an authority of the test's own: who is trusted, and what is said to who is not."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from ecommerce_worker.testing.rabbitmq import free_port
from ecommerce_worker.testing.shop import ShopProcess
from ecommerce_worker.tests.support.harness import eventually, shop_app, worker_environment
from ecommerce_worker.tests.support.rabbitmq import Node

#: RabbitMQ takes a client without a certificate of its own here, and looks at that of one who has one.
LISTENER = """
listeners.ssl.local = 127.0.0.1:{port}
ssl_options.cacertfile = {at}/ca.pem
ssl_options.certfile = {at}/server.pem
ssl_options.keyfile = {at}/server.key
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = false
"""


@dataclass
class Certificates:
    """A directory of files: of the authority, of the server 127.0.0.1 and rabbitmq.test, of a client, of a stranger."""

    at: Path

    @classmethod
    def made(cls, at: Path) -> Certificates:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(at / 'ca.pem')
        trustme.CA().cert_pem.write_to_path(at / 'stranger.pem')
        soon = datetime.now(UTC) + timedelta(days=7)
        for name, issued in (('server', authority.issue_cert('127.0.0.1', 'rabbitmq.test', not_after=soon)),
                             ('client', authority.issue_cert('worker@example.com'))):
            issued.private_key_pem.write_to_path(at / f'{name}.key')
            (at / f'{name}.pem').write_bytes(b''.join(pem.bytes() for pem in issued.cert_chain_pems))
        return cls(at)

    def path(self, name: str) -> str:
        return str(self.at / name)


@pytest.fixture(scope='module')
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.made(tmp_path_factory.mktemp('certificates'))


class SecureNode(Node):
    """A RabbitMQ that listens with TLS too."""

    def __init__(self, certificates: Certificates) -> None:
        super().__init__()
        self._certificates = certificates
        self.secure_port = free_port()
        self.secure_url = f'amqps://guest:guest@127.0.0.1:{self.secure_port}//'

    def _prepared(self) -> dict[str, str]:
        environment = super()._prepared()
        with (self.directory / 'rabbitmq.conf').open('a') as file:
            file.write(LISTENER.format(port=self.secure_port, at=self._certificates.at))
        return environment


@pytest.fixture(scope='module')
def node(certificates: Certificates) -> Iterator[SecureNode]:
    if SecureNode.program() is None:
        why = 'there is no rabbitmq-server program: install RabbitMQ to run the tests against a broker'
        if os.environ.get('CI') or os.environ.get('REQUIRE_BROKER'):
            pytest.fail(why)
        pytest.skip(why)
    with SecureNode(certificates) as node:
        eventually(lambda: is_listened_on(node.secure_port))
        yield node


def is_listened_on(port: int) -> bool:
    try:
        socket.create_connection(('127.0.0.1', port), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize('files', [{}, {'certfile': 'client.pem', 'keyfile': 'client.key'}], ids=['', 'known'])
def test_orders_go_through_tls_to_a_rabbitmq_of_a_private_authority(node, certificates, shop, start_worker, publish,
                                                                     files):
    tls = {'ca_certs': certificates.path('ca.pem'), 'cert_reqs': 'CERT_REQUIRED',
           **{name: certificates.path(file) for name, file in files.items()}}
    shop.add_order('EDX-1')
    publish('EDX-1')
    worker = start_worker(BROKER_URL=node.secure_url, BROKER_USE_SSL=tls).ready()
    eventually(lambda: shop.orders['EDX-1'].status == 'Complete')
    eventually(lambda: worker.settled('EDX-1') == 'done')


@pytest.mark.parametrize('tls, words', [
    ({'ca_certs': 'ca.pem'}, ''),
    ({'ssl_ca_certs': 'ca.pem', 'ssl_cert_reqs': 'required'}, ''),
    ({'ca_certs': 'ca.pem', 'server_hostname': 'rabbitmq.test'}, ''),
    ({'ca_certs': 'stranger.pem', 'cert_reqs': 'none'}, ''),
    ({'ca_certs': 'ca.pem', 'server_hostname': 'other.test', 'check_hostname': False}, ''),
    ({'ca_certs': 'ca.pem', 'server_hostname': 'other.test'}, 'Hostname mismatch'),
    ({'ca_certs': 'stranger.pem'}, 'self-signed certificate in certificate chain'),
    (True, 'self-signed certificate in certificate chain'),
    (False, 'self-signed certificate in certificate chain'),
], ids=repr)
def test_a_rabbitmq_is_trusted_or_refused_in_one_line(node, certificates, command, tls, words):
    if isinstance(tls, dict):
        tls = {name: certificates.path(value) if str(value).endswith('.pem') else value for name, value in tls.items()}
    ended = command('parked', 'list', BROKER_URL=node.secure_url, BROKER_USE_SSL=tls)
    if words:
        assert (ended.returncode, ended.stdout) == (69, '')
        said, = ended.stderr.splitlines()
        assert f'no TLS connection to the broker at amqps://guest:***@127.0.0.1:{node.secure_port}//' in said
        assert words in said
        assert 'BROKER_USE_SSL' in said
    else:
        assert ended.returncode == 0, ended.stderr


def test_the_doctor_warns_of_a_certificate_of_rabbitmq_that_ends_soon(node, certificates, command):
    tls = {'ca_certs': certificates.path('ca.pem')}
    said = command('doctor', BROKER_URL=node.secure_url, BROKER_USE_SSL=tls).stdout.splitlines()
    line, = [each for each in said if 'its certificate is valid until' in each]
    assert line.startswith('warning  broker: 127.0.0.1 answers; its certificate is valid until ')
    assert f'{datetime.now(UTC) + timedelta(days=7):%Y-%m-%d}' in line
    assert 'no worker connects once it has expired' in said[said.index(line) + 1]


def test_two_brokers_to_fall_back_on_may_have_a_private_authority(node, certificates, command):
    ended = command('parked', 'list', BROKER_URL=f'amqps://127.0.0.1:1//;{node.secure_url}',
                    BROKER_USE_SSL={'ca_certs': certificates.path('ca.pem'), 'server_hostname': 'rabbitmq.test'})
    assert ended.returncode == 0, ended.stderr


# -- Redis ------------------------------------------------------------------------------------------------------------

@pytest.fixture(scope='module')
def redis(certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a Redis that listens with TLS only."""
    program = shutil.which('redis-server')
    if program is None:
        why = 'there is no redis-server program: install Redis to run these tests'
        if os.environ.get('CI') or os.environ.get('REQUIRE_BROKER'):
            pytest.fail(why)
        pytest.skip(why)
    port = free_port()
    process = subprocess.Popen(
        [program, '--port', '0', '--tls-port', str(port), '--bind', '127.0.0.1', '--save', '',
         '--dir', str(tmp_path_factory.mktemp('redis')), '--tls-auth-clients', 'optional',
         '--tls-ca-cert-file', certificates.path('ca.pem'), '--tls-cert-file', certificates.path('server.pem'),
         '--tls-key-file', certificates.path('server.key')], stdout=subprocess.DEVNULL)
    try:
        eventually(lambda: is_listened_on(port))
        yield port
    finally:
        process.terminate()
        process.wait(30)


def redis_environment(port: int, shop: ShopProcess, tls: object) -> dict[str, str]:
    return worker_environment(f'rediss://127.0.0.1:{port}/0', shop, BROKER_USE_SSL=tls)


def test_orders_go_through_tls_to_a_redis_of_a_private_authority(redis, certificates, shop, start_worker):
    tls: dict[str, Any] = {'ca_certs': certificates.path('ca.pem')}
    shop.add_order('EDX-1')
    with shop_app(f'rediss://127.0.0.1:{redis}/0?ssl_ca_certs={tls["ca_certs"]}&ssl_cert_reqs=required') as app:
        app.send_task('ecommerce_worker.fulfillment.v1.tasks.fulfill_order', ['EDX-1'], ignore_result=True)
    changed = redis_environment(redis, shop, tls)
    start_worker(**{name.removeprefix('ECOMMERCE_WORKER_'): value for name, value in changed.items()
                    if name.startswith('ECOMMERCE_WORKER_')})
    eventually(lambda: shop.orders['EDX-1'].status == 'Complete')


@pytest.mark.parametrize('tls, words', [
    ({'ca_certs': 'ca.pem'}, ''), ({'ssl_ca_certs': 'ca.pem', 'ssl_cert_reqs': 'ssl.CERT_REQUIRED'}, ''),
    ({'cert_reqs': 'none'}, ''), (True, 'certificate verify failed'), ({'ca_certs': 'stranger.pem'}, 'certificate'),
], ids=repr)
def test_a_redis_is_trusted_or_refused_in_one_line(redis, certificates, shop, command, tls, words):
    if isinstance(tls, dict):
        tls = {name: certificates.path(value) if str(value).endswith('.pem') else value for name, value in tls.items()}
    ended = command('parked', 'list', BROKER_URL=f'rediss://127.0.0.1:{redis}/0', BROKER_USE_SSL=tls)
    assert ended.returncode == (69 if words else 0), ended.stderr
    assert words in ended.stderr
    assert len(ended.stderr.splitlines()) == bool(words)
