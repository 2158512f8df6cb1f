"""A console for tests, in a process of its own, for a process has one Django."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

from ecommerce_worker.tests.support import ledger


@dataclass(frozen=True)
class Page:
    """What a browser was answered."""

    status: int
    text: str
    headers: Mapping[str, str]

    @property
    def words(self) -> str:
        """What of it is read."""
        body = re.sub(r'(?s)<head>.*</head>|<[^>]*>', ' ', self.text)
        return ' '.join(unescape(body).split())


@dataclass(frozen=True)
class Served:
    """A console as an operator runs it: a process, an address, a log."""

    process: subprocess.Popen[bytes]
    url: str
    path: Path

    @property
    def log(self) -> str:
        """All it has said so far."""
        return self.path.read_text()

    @property
    def invitation(self) -> str:
        """The link that it printed."""
        return str(re.findall(r'http\S+/invitation/\S+', self.log)[-1])


@contextmanager
def served(directory: Path, environment: Mapping[str, str], *options: str) -> Iterator[Served]:
    """Make the ledger and serve it at ``ECOMMERCE_WORKER_CONSOLE_ADDRESS``; the options are those of `console`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith('ECOMMERCE_WORKER')}
    environ = {**kept, 'WORKER_CONFIGURATION_MODULE': 'ecommerce_worker.configuration.local', **environment}
    subprocess.run([sys.executable, '-m', 'ecommerce_worker', 'migrate'], env=environ, check=True, capture_output=True)
    path = directory / 'console.log'
    with path.open('wb') as output:
        process = subprocess.Popen([sys.executable, '-m', 'ecommerce_worker.tests.support.serve', *options],
                                   stdout=output, stderr=output, env=environ, start_new_session=True)
    found = Served(process, f'http://{environ["ECOMMERCE_WORKER_CONSOLE_ADDRESS"]}', path)
    try:
        deadline = time.monotonic() + 60
        while not _answers(found.url):
            assert process.poll() is None, found.log
            assert time.monotonic() < deadline, found.log
            time.sleep(0.05)
        yield found
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f'{url}/login/', timeout=60):
            return True
    except OSError:
        return False


class Console:
    """The console in a process: ``console('visit', '/', who='ada')``."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._pool = ProcessPoolExecutor(1, ledger.WITH_DJANGO, _begin, (environment,))

    def __call__(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Call a function of this module, of ``support.ledger``, or of the ledger's (``entries.record``)."""
        return self._pool.submit(_call, name, args, kwargs).result(60)

    def close(self) -> None:
        """End the process."""
        self._pool.shutdown()


def _begin(environment: Mapping[str, str]) -> None:
    os.environ.update(environment)
    from ecommerce_worker.console import setup
    from ecommerce_worker.ledger.setup import migrate

    migrate(setup.MODULE)
    setup.open_console()
    from django.contrib.auth.hashers import PBKDF2PasswordHasher
    from django.test.utils import setup_test_environment

    PBKDF2PasswordHasher.iterations = 1000  # as in support.serve
    setup_test_environment(debug=False)


def _call(name: str, args: Any, kwargs: Any) -> Any:
    if not (own := globals().get(name)):
        return ledger._call(name, args, kwargs)
    try:
        return own(*args, **kwargs)
    except Exception as error:
        # By name: the class is of a module that only this process can import.
        raise ledger.Refused(f'{type(error).__name__}: {error}') from None


def visit(path: str, *, who: str = '', send: Mapping[str, str | Sequence[str]] | None = None,
          follow: bool = False, host: str = '127.0.0.1', without_token: str | None = None) -> Page:
    """A page as this person sees it, or what comes of a form that is sent; '' is nobody.

    ``who`` has the role of that name (``support``), and is made if need be.  ``without_token`` is the origin of a form
    that is sent without its token and its cookie.
    """
    from django.test import Client

    client = Client(SERVER_NAME=host, enforce_csrf_checks=without_token is not None)
    _log_in(client, who)
    headers = {'Origin': without_token} if without_token else {}
    found = client.get(path, follow=follow) if send is None else client.post(
        path, dict(send), follow=follow, headers=headers)
    content = b''.join(found) if found.streaming else found.content
    cookies = {'Set-Cookie': found.cookies.output(header='')} if found.cookies else {}
    return Page(found.status_code, content.decode(), {**found.headers, **cookies})


def _log_in(client: Any, who: str) -> None:
    from django.contrib.auth.models import User

    from ecommerce_worker.console import roles

    if who:
        user, made = User.objects.get_or_create(username=who)
        if made and who in roles.ROLES:
            user.groups.set([roles.group(who)])
        client.force_login(user, backend='django.contrib.auth.backends.ModelBackend')


def browse(steps: Sequence[tuple[str, Mapping[str, str] | None]], who: str = '') -> list[Page]:
    """The pages that one browser gets, one after the other, with its cookies; forms are sent with their tokens."""
    from django.test import Client

    client, pages, token = Client(SERVER_NAME='127.0.0.1', enforce_csrf_checks=True), [], ''
    _log_in(client, who)
    for path, send in steps:
        found = client.get(path, follow=True) if send is None else client.post(
            path, {'csrfmiddlewaretoken': token, **send}, follow=True)
        text = found.content.decode()
        if given := re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', text):
            token = given[1]
        pages.append(Page(found.status_code, text, {'where': found.request['PATH_INFO'], **found.headers}))
    return pages


def invite(name: str, role: str = '') -> str:
    """The path of a link for this person."""
    from ecommerce_worker.console import users

    return users.invite(name, role)


def queued(name: str) -> list[dict[str, Any]]:
    """The headers of what was published to a queue of the broker within the process; it is taken out."""
    from kombu import Queue

    from ecommerce_worker import celery_app

    with celery_app.app.connection_for_read() as connection, connection.channel() as channel:
        queue = Queue(name).bind(channel)
        queue.declare()
        return [dict(message.headers) for message in iter(lambda: queue.get(no_ack=True), None)]


def setting(name: str) -> Any:
    """A setting of Django's."""
    from django.conf import settings

    return getattr(settings, name)


def people(**where: Any) -> list[int]:
    """The numbers of users."""
    from django.contrib.auth.models import User

    return list(User.objects.filter(**where).values_list('pk', flat=True))


def clear() -> None:
    """Take everything out of it but the roles."""
    from axes.models import AccessAttempt
    from django.contrib.auth.models import User

    ledger.empty()
    User.objects.all().delete()
    AccessAttempt.objects.all().delete()
