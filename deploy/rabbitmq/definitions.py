#!/usr/bin/env python3
"""Writes what RabbitMQ has to know of a shop: its virtual host, a user for each role, their permissions, the policies.

    deploy/rabbitmq/definitions.py [--vhost shop] [--host rabbitmq:5672] [--scheme amqps]
        [--management http://rabbitmq:15672] DIRECTORY

makes in DIRECTORY, readable for its owner only (a file that is there keeps its permissions),

    broker-url            workers, and who gives commands
    recorder-broker-url   the recorder, which takes the reports for the ledger, and parked messages
    beat-broker-url       beat, which declares the queues and publishes
    console-broker-url    the console, which publishes, and looks at how full queues are
    intake-broker-url     the intake, which may only publish
    shop-broker-url       the shop, which declares its queues and publishes
    management-url        who only looks, by the plugin rabbitmq_management: `doctor` (MANAGEMENT_URL), KEDA
    definitions.json      for `rabbitmqctl import_definitions` or `load_definitions`, of RabbitMQ 3.10 and newer

A URL that is there already keeps its password, so it may be run again. To change a password, delete the URL and run it
again. RabbitMQ takes over what it imports, and deletes nothing.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import secrets
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

#: The queues and exchanges of worker and shop, the waiting room among them.
OURS = r'ecommerce([._].*)?|fulfillment|email_marketing'

#: The task queues, each with an exchange of its name, and the exchange of what has no route.
TASKS = r'ecommerce(\.(fulfillment|email_marketing|default))?|fulfillment|email_marketing'

#: The waiting room, and the ways out of it.
WAITING = r'ecommerce_celery_delayed_.*|ecommerce\.(delivery|undeliverable)'

#: What each user may configure, write and read.  Who binds a queue to an exchange writes to the queue and reads the
#: exchange.  Who looks whether a queue is there, and how full, needs one of the three since 4.3: to write gives away
#: the least, for whoever may write to `amq.default` reaches each queue anyway.
PERMISSIONS = {
    'worker': (rf'^({OURS}|.*celery\.pidbox)$', rf'^({OURS}|.*celery\.pidbox|amq\.default)$',
               rf'^({OURS}|.*celery\.pidbox)$'),
    'recorder': (r'^ecommerce\.(parked(\.large)?|facts|ledger)$',
                 rf'^({TASKS}|{WAITING}|ecommerce\.ledger|amq\.default)$', r'^ecommerce\.(parked|facts|ledger)$'),
    'beat': (rf'^({TASKS}|{WAITING}|ecommerce\.(parked|facts|ledger))$',
             rf'^({TASKS}|{WAITING}|ecommerce\.(parked|facts|ledger)|amq\.default)$',
             rf'^({TASKS}|{WAITING}|ecommerce\.facts)$'),
    'console': (r'^ecommerce\.(facts|ledger)$',
                rf'^({TASKS}|{WAITING}|ecommerce\.(parked|facts|ledger)|amq\.default)$', r'^ecommerce\.facts$'),
    'intake': ('^$', rf'^({TASKS}|ecommerce\.facts|amq\.default)$', '^$'),
    'shop': (rf'^({TASKS})$', rf'^({TASKS}|amq\.default)$', rf'^({TASKS})$'),
    'monitoring': ('^$', '^$', '^$'),
}

#: The file of each user's URL.
FILES = {**{user: f'{user}-broker-url' for user in PERMISSIONS}, 'worker': 'broker-url', 'monitoring': 'management-url'}


def hashed(password: str) -> str:
    """As RabbitMQ keeps it: a salt of four bytes, and SHA-256 of both."""
    salt = secrets.token_bytes(4)
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def definitions(vhost: str, passwords: dict[str, str]) -> dict[str, Any]:
    """What RabbitMQ imports."""
    policies = json.loads(Path(__file__).with_name('definitions.json').read_text(encoding='utf-8'))['policies']
    return {
        'vhosts': [{'name': vhost}],
        'users': [{'name': name, 'password_hash': hashed(password),
                   'hashing_algorithm': 'rabbit_password_hashing_sha256',
                   'tags': ['monitoring'] if name == 'monitoring' else []}
                  for name, password in passwords.items()],
        'permissions': [{'user': name, 'vhost': vhost, **dict(zip(('configure', 'write', 'read'), PERMISSIONS[name],
                                                                  strict=True))} for name in passwords],
        'policies': [{**policy, 'vhost': vhost} for policy in policies],
    }


def write(directory: Path, name: str, text: str) -> None:
    """Write a file that only its owner may read, atomically; one that exists keeps its permissions."""
    begun, file = directory / f'.{name}.new', directory / name
    begun.unlink(missing_ok=True)
    begun.touch(mode=0o600, exist_ok=False)
    begun.write_text(text + '\n', encoding='utf-8')
    if file.exists():
        begun.chmod(file.stat().st_mode & 0o777)
    begun.replace(file)


def main() -> None:
    """Do as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--vhost', default='shop')
    parser.add_argument('--host', default='rabbitmq:5672', help='host and port, as those who connect reach it')
    parser.add_argument('--scheme', default='amqp', choices=('amqp', 'amqps'))
    parser.add_argument('--management', default='http://rabbitmq:15672', help='where the management plugin is')
    parser.add_argument('directory', type=Path)
    said = parser.parse_args()
    said.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    passwords = {}
    for user, name in FILES.items():
        file = said.directory / name
        kept = urlsplit(file.read_text(encoding='utf-8').strip()).password if file.exists() else None
        passwords[user] = unquote(kept) if kept else secrets.token_urlsafe(32)
        login = f'{user}:{quote(passwords[user], safe="")}'
        write(said.directory, name, f'{said.management.replace("://", f"://{login}@")}' if user == 'monitoring' else
              f'{said.scheme}://{login}@{said.host}/{quote(said.vhost, safe="")}')
    write(said.directory, 'definitions.json', json.dumps(definitions(said.vhost, passwords), indent=2))


if __name__ == '__main__':
    main()
