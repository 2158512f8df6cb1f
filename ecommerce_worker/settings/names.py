"""Names of settings: the spellings of Celery, and labels for people."""

from __future__ import annotations

import re

from ecommerce_worker.configuration import base

PREFIX = 'ECOMMERCE_WORKER_'

Names = tuple[str, ...]  # where a value stands: ('SITE_OVERRIDES', 'edx', 'BRAZE', 'FROM_EMAIL')

# Celery's newer spellings of settings listed here: broker_url, task_serializer, CELERY_BROKER_URL …
_SPELLINGS = {
    spelling: name
    for name in vars(base) if name.startswith(('BROKER_', 'CELERY_', 'CELERYD_'))
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
    """A place for display: ``SITE_OVERRIDES[edx].BRAZE[FROM_EMAIL]``."""
    if names[0] == 'SITE_OVERRIDES' and len(names) > 2:  # a setting of a site, not a site
        return f'SITE_OVERRIDES[{names[1]}].{label_of(names[2:])}'
    return names[0] + ''.join(f'[{name}]' for name in names[1:])
