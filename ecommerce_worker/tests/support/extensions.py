"""Packages that bring extensions, as pip installs them."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

#: A module of an extension that has settings; and one with a bit of everything, which is to be called differently each
#: time: Celery knows tasks by their names for as long as the process lives.
SETTINGS = """
    from ecommerce_worker.extension import SECRET, TEXT, URL, Group, Hmac, Then, intake, site, task

    API = 1
    ACME = Group('ACME', {'url': URL, 'token': SECRET, 'pin': SECRET, 'plan': TEXT}, {'plan': 'basic', 'pin': None})
"""
ACME = SETTINGS + """

    @intake('acme', scheme=Hmac('X-Acme-Signature'), id='X-Acme-Delivery')
    def order(delivery):
        if delivery.text('state') != 'paid':
            return 'not paid'
        return Then(grant.name, {'order_number': delivery.text('number'), 'email': delivery.text('email')})


    @task(key='order_number')
    def grant(self, order_number, email, site_code=None):
        site(site_code).service(ACME).request('PUT', f'grants/{order_number}', json={'email': email})
"""


def install(place: Path, module: str, text: str, *, name: str = 'acme', version: str = '1.0',
            target: str = '', package: str = '') -> None:
    """Put a module there with the entry point of an extension, as pip does."""
    (place / f'{module}.py').write_text(textwrap.dedent(text))
    about = place / f'{package or module}-{version}.dist-info'
    about.mkdir()
    (about / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {package or module}\nVersion: {version}\n')
    (about / 'entry_points.txt').write_text(f'[ecommerce_worker.extensions]\n{name} = {target or module}\n')


@contextmanager
def packages(place: Path) -> Iterator[Path]:
    """A place that packages may be installed in; what was imported from there is forgotten afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(place))
        patch.setattr(sys, 'dont_write_bytecode', True)
        yield place
    for name in [name for name, module in sys.modules.items()
                 if str(getattr(module, '__file__', None) or '').startswith(str(place))]:
        del sys.modules[name]
