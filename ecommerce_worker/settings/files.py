"""Files named by settings or the environment: their paths, and whether they can be read."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from pathlib import Path

from ecommerce_worker.errors import Misconfigured


def in_home(path: str | Path, setting: str) -> Path:
    """The path, with ``~`` as the home directory; raises Misconfigured, naming the setting, where there is none.

    A container may run under a number that no user has, without HOME.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        problem = (f'{setting} {path} is in the home directory, which does not exist: set HOME, or choose a path that '
                   'does not begin with ~')
        raise Misconfigured([problem]) from None


def certificate_problems(environ: Mapping[str, str] | None = None) -> list[str]:
    """Problems of the certificates that the environment names for HTTPS, which would prevent all connections."""
    environ = os.environ if environ is None else environ
    # As `requests` has it: the first of these that is set, a file or a directory.
    name = next((name for name in ('REQUESTS_CA_BUNDLE', 'CURL_CA_BUNDLE') if environ.get(name)), '')
    return unreadable_certificates(environ, name)


def unreadable_certificates(environ: Mapping[str, str], name: str) -> list[str]:
    """The problem of the certificates that this variable names; '' if there is none or it is not set."""
    if not (path := environ.get(name, '')):
        return []
    try:
        if Path(path).is_dir():
            next(Path(path).iterdir(), None)
        else:
            ssl.create_default_context(cafile=path)
    except ssl.SSLError:
        return [f'environment {name}: {path} holds no certificates in PEM format']
    except OSError as error:
        return [f'environment {name}: {path} cannot be read: {error.strerror}']
    return []
