"""The hooks of Tutor: settings with their defaults, files to render, tasks to run in the LMS."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from tutor import hooks

PLACE = Path(__file__).parent

#: ``tutor config printvalue ECOMMERCEWORKER_<NAME>``
DEFAULTS = {
    'VERSION': '4.0.0',
    # Built from the worker's repository, and pushed to where the machines find it.
    'DOCKER_IMAGE': '{{ DOCKER_REGISTRY }}ecommerce-worker:{{ ECOMMERCEWORKER_VERSION }}',
    # The pages for support staff, and where shops send their webhooks.
    'HOST': 'orders.{{ LMS_HOST }}',
    'INTAKE_HOST': 'intake.{{ LMS_HOST }}',
    # Further settings of the worker, such as INTAKES, PRODUCTS, EMAIL_VENDOR or ECOMMERCE_API_ROOT.
    'SETTINGS': {},
    'OAUTH2_KEY': 'ecommerce-worker',
    'RUN_RABBITMQ': True,
    'DOCKER_IMAGE_RABBITMQ': 'docker.io/rabbitmq:4.2',
    'RABBITMQ_HOST': 'rabbitmq',
    'RABBITMQ_PORT': 5672,
    'RABBITMQ_VHOST': 'shop',
    'RABBITMQ_USERNAME': 'worker',
    'RABBITMQ_SHOP_USERNAME': 'shop',
}

#: Made once, and kept in Tutor's configuration.
UNIQUE = {
    'RABBITMQ_PASSWORD': '{{ 32|random_string }}',
    'RABBITMQ_SHOP_PASSWORD': '{{ 32|random_string }}',
    'OAUTH2_SECRET': '{{ 32|random_string }}',
    'CONSOLE_SECRET_KEY': '{{ 48|random_string }}',
}


def rabbitmq_hash(password: str) -> str:
    """The password as RabbitMQ keeps it: a salt of four bytes, and SHA-256 of both.

    The salt follows from the password, so that rendering it again changes nothing.
    """
    salt = hashlib.sha256(b'salt' + password.encode()).digest()[:4]
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


hooks.Filters.CONFIG_DEFAULTS.add_items([(f'ECOMMERCEWORKER_{name}', value) for name, value in DEFAULTS.items()])
hooks.Filters.CONFIG_UNIQUE.add_items([(f'ECOMMERCEWORKER_{name}', value) for name, value in UNIQUE.items()])
hooks.Filters.ENV_TEMPLATE_ROOTS.add_item(str(PLACE / 'templates'))
hooks.Filters.ENV_TEMPLATE_TARGETS.add_item(('ecommerceworker/apps', 'plugins'))
hooks.Filters.ENV_TEMPLATE_FILTERS.add_item(('rabbitmq_hash', rabbitmq_hash))
hooks.Filters.IMAGES_PULL.add_item(('ecommerceworker', '{{ ECOMMERCEWORKER_DOCKER_IMAGE }}'))
hooks.Filters.IMAGES_PUSH.add_item(('ecommerceworker', '{{ ECOMMERCEWORKER_DOCKER_IMAGE }}'))
for task in sorted((PLACE / 'templates/ecommerceworker/tasks').glob('*/init.sh')):
    hooks.Filters.CLI_DO_INIT_TASKS.add_item((task.parent.name, task.read_text(encoding='utf-8')))
for patch in sorted((PLACE / 'patches').iterdir()):
    hooks.Filters.ENV_PATCHES.add_item((patch.name, patch.read_text(encoding='utf-8')))


@hooks.Filters.APP_PUBLIC_HOSTS.add()
def public_hosts(hosts: list[str], _: str) -> list[str]:
    """The names that have to lead to this machine."""
    return [*hosts, '{{ ECOMMERCEWORKER_HOST }}', '{{ ECOMMERCEWORKER_INTAKE_HOST }}']
