"""Which settings there are, of which kind each is, and how its name is spelled."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ecommerce_worker.configuration import base
from ecommerce_worker.settings.kinds import (
    BROKER,
    DURATION,
    FLAG,
    PATIENCE,
    SECONDS,
    SECRET,
    TEXT,
    URL,
    Kind,
    Secrecy,
    as_it_is,
    copied,
    each,
    members,
    number,
    one_of,
    optional,
    read_address,
    read_logging,
    read_mapping,
    read_names,
    read_origin,
    read_redis,
    read_sequence,
    text,
    whole,
    words,
)

PREFIX = 'ECOMMERCE_WORKER_'

Names = tuple[str, ...]  # where a value stands: ('SITE_OVERRIDES', 'edx', 'BRAZE', 'FROM_EMAIL')

# Settings that SITE_OVERRIDES may change: whatever is said to the services of one shop, and how patiently.
SITE_SETTINGS: Mapping[str, Kind] = {
    'ECOMMERCE_API_ROOT': URL,
    'MAX_FULFILLMENT_RETRIES': whole(0, 20),  # the wait doubles each time: twelve days before the 20th
    'FULFILLMENT_GIVE_UP_AFTER': SECONDS,
    'RETRY_DELAY_MIN': SECONDS,
    'RETRY_DELAY_MAX': SECONDS,
    'FULFILLMENT_READ_TIMEOUT': PATIENCE,
    'HTTP_CONNECT_TIMEOUT': PATIENCE,
    'HTTP_READ_TIMEOUT': PATIENCE,
    'AUTHENTICATION': one_of('auto', 'oauth2', 'jwt'),
    'BACKEND_SERVICE_EDX_OAUTH2_PROVIDER_URL': URL,
    'BACKEND_SERVICE_EDX_OAUTH2_KEY': TEXT,
    'BACKEND_SERVICE_EDX_OAUTH2_SECRET': SECRET,
    'JWT_SECRET_KEY': SECRET,
    'JWT_ISSUER': TEXT,
    'ECOMMERCE_SERVICE_USERNAME': TEXT,
    'EMAIL_VENDOR': TEXT,
    'EMAIL_OPTIONS': each(Kind('a value', as_it_is, secrecy=Secrecy.PASSWORD, takes_none=True, takes_blank=True)),
    'EMAIL_WITHOUT_VENDOR': one_of('refuse', 'park', 'outbox'),
    'EMAIL_GIVE_UP_AFTER': SECONDS,
    'EMAIL_TEMPLATES': TEXT,
    'BRAZE': members({
        'BRAZE_ENABLE': FLAG,
        'BRAZE_REST_API_KEY': SECRET,
        'BRAZE_WEBAPP_API_KEY': SECRET,
        'REST_API_URL': URL,
        **dict.fromkeys(('MESSAGES_SEND_ENDPOINT', 'EMAIL_BOUNCE_ENDPOINT', 'NEW_ALIAS_ENDPOINT',
                         'USERS_TRACK_ENDPOINT', 'EXPORT_ID_ENDPOINT', 'CAMPAIGN_SEND_ENDPOINT', 'FROM_EMAIL'), TEXT),
        **dict.fromkeys((name for name in base.BRAZE if name.startswith('ENTERPRISE_')), text(takes_none=True)),
        'BRAZE_RETRY_SECONDS': SECONDS,
        'BRAZE_RETRY_ATTEMPTS': whole(0, 1000),
    }),
    'SAILTHRU': members({
        'SAILTHRU_ENABLE': FLAG,
        'SAILTHRU_API_URL': URL,
        'SAILTHRU_KEY': SECRET,
        'SAILTHRU_SECRET': SECRET,
        **dict.fromkeys(('SAILTHRU_UPGRADE_TEMPLATE', 'SAILTHRU_PURCHASE_TEMPLATE', 'SAILTHRU_ENROLL_TEMPLATE',
                         'SAILTHRU_ABANDONED_CART_TEMPLATE'), text(takes_none=True)),
        'SAILTHRU_ABANDONED_CART_DELAY': whole(0, 1_000_000),
        'SAILTHRU_MINIMUM_COST': whole(0, 100_000_000),
        'SAILTHRU_RETRY_SECONDS': SECONDS,
        'SAILTHRU_RETRY_ATTEMPTS': whole(0, 1000),
        'SAILTHRU_CACHE_TTL_SECONDS': SECONDS,
        'templates': each(text(takes_none=True)),
    }),
}

SETTINGS: Mapping[str, Kind] = {
    'BROKER_URL': BROKER,
    'BROKER_POOL_LIMIT': optional(whole(0, 10_000)),
    'BROKER_CONNECTION_TIMEOUT': PATIENCE,
    'BROKER_HEARTBEAT': number(0, 3600),
    'BROKER_HEARTBEAT_CHECKRATE': number(1, 100),
    'BROKER_TRANSPORT_OPTIONS': Kind('a mapping', read_mapping, secrecy=Secrecy.PASSWORD),
    'ALLOW_UNSAFE_BROKER': FLAG,
    'QUEUES': words(),
    'QUEUE_TYPE': one_of('classic', 'quorum'),
    'DEFAULT_PRIORITY_QUEUE': TEXT,
    'CELERY_DEFAULT_QUEUE': TEXT,
    'CELERY_DEFAULT_EXCHANGE': TEXT,
    'CELERY_DEFAULT_ROUTING_KEY': TEXT,
    'WORKER_POOL': one_of('threads', 'prefork', 'solo'),
    'WORKER_CONCURRENCY': whole(1, 10_000),
    'SHUTDOWN_SECONDS': number(0, 86_400),
    'PUBLISH_FACTS': FLAG,
    'DATABASES': members({'default': each(Kind('a value', as_it_is, secrecy=Secrecy.PASSWORD, takes_none=True,
                                               takes_blank=True))}),
    'LEDGER_KEEP_DAYS': whole(1, 36_500),
    'LEDGER_KEEP_PARKED_DAYS': whole(0, 36_500),
    'CONSOLE_ADDRESS': Kind('a host and a port such as 127.0.0.1:8130', read_address),
    'CONSOLE_URL': Kind('a URL without a path, such as https://orders.example.com', read_origin, takes_blank=True),
    'CONSOLE_SECRET_KEY': SECRET,
    'CONSOLE_SESSION_SECONDS': whole(60, 2_592_000),
    'CONSOLE_RESENDS_PER_HOUR': whole(0, 1000),
    **dict.fromkeys(('CELERY_TASK_SERIALIZER', 'CELERY_RESULT_SERIALIZER', 'CELERY_EVENT_SERIALIZER'),
                    one_of('json', 'pickle', 'yaml')),
    'CELERY_ACCEPT_CONTENT': words('json', 'pickle', 'yaml'),
    'CELERY_IMPORTS': words(),
    'CELERY_ALWAYS_EAGER': FLAG,
    'CELERYD_HIJACK_ROOT_LOGGER': FLAG,
    'CELERY_RESULT_BACKEND': text(takes_none=True),
    'SCHEDULE': each(members({
        'task': TEXT,
        'crontab': text(takes_none=True),
        'interval': optional(DURATION),
        'args': Kind('a list', read_sequence),
        'kwargs': Kind('a mapping', read_mapping),
        'queue': TEXT,
        'expires': optional(DURATION),
        'enabled': FLAG,
    })),
    'SCHEDULE_STATE': TEXT,
    'DJANGO_PROJECT_SETTINGS': TEXT,
    'DJANGO_PROJECT_DIRECTORY': TEXT,
    'DJANGO_PROJECT_PYTHON': TEXT,
    'DJANGO_PROJECT_ENVIRONMENT': each(TEXT),
    'MANAGEMENT_COMMANDS': Kind('a list of names', read_names),
    'MANAGEMENT_COMMAND_TIMEOUT': number(0.1, 86_400),
    'WAKE_UP_URL': Kind('a URL such as redis://:password@host:6379/0', read_redis, secrecy=Secrecy.PASSWORD,
                        takes_blank=True),
    'WAKE_UP': each(members({'channel': TEXT, 'message': TEXT})),
    'REDELIVERY_DELAY': SECONDS,
    'REDELIVERY_LIMIT': whole(1, 1000),
    'ALLOW_INSECURE_SECRETS': FLAG,
    'LOG_LEVEL': one_of('DEBUG', 'INFO', 'WARNING', 'ERROR', 'CRITICAL'),
    'LOGGING': Kind('a mapping for logging.config.dictConfig, with version 1', read_logging, secrecy=Secrecy.PASSWORD,
                    verbatim=True),
    **SITE_SETTINGS,
    'SITE_OVERRIDES': each(members(SITE_SETTINGS)),
}

# A copy, taken before any settings module could write into the mappings that it got from base.
DEFAULTS: Mapping[str, Any] = {name: copied(value) for name, value in vars(base).items() if name in SETTINGS}


# Celery's newer spellings of settings listed here: broker_url, task_serializer, CELERY_BROKER_URL …
_SPELLINGS = {
    spelling: name
    for name in SETTINGS if name.startswith(('BROKER_', 'CELERY_', 'CELERYD_'))
    for area, _, rest in [name.lower().partition('_')]
    for lower in ([f'broker_{rest}'] if area == 'broker' else
                  [f'worker_{rest}'] if area == 'celeryd' else [rest, f'task_{rest}'])
    for spelling in (lower, f'CELERY_{lower.upper()}') if spelling != name
}

# Settings of Celery that are not listed here, in its old names and its new ones.
CELERY_STYLE = re.compile(
    r'(CELERY|CELERYD|CELERYBEAT|BROKER)_[A-Z0-9_]+|include|timezone|enable_utc'
    r'|(beat|broker|cache|control|database|event|mongodb|redis|result|security|task|worker)_[a-z0-9_]+',
)


def setting_of(name: str) -> str:
    """The setting that a name stands for: Celery has several spellings of some."""
    return _SPELLINGS.get(name, name)


def label_of(names: Names) -> str:
    """A place as people read it: ``SITE_OVERRIDES[edx].BRAZE[FROM_EMAIL]``."""
    if names[0] == 'SITE_OVERRIDES' and len(names) > 2:  # a setting of a site, not a site
        return f'SITE_OVERRIDES[{names[1]}].{label_of(names[2:])}'
    return names[0] + ''.join(f'[{name}]' for name in names[1:])


def did_you_mean(name: str, names: Iterable[str], likeness: float = 0.6) -> str:
    """A hint at the name that comes closest; empty if none does."""
    by_spelling = {known.casefold(): known for known in names}
    close = difflib.get_close_matches(name.casefold(), by_spelling, 1, likeness)
    return f'; did you mean {by_spelling[close[0]]}?' if close else ''
