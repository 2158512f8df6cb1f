"""Files named by settings or the environment: their paths, and whether they can be read."""

from __future__ import annotations

import base64
import os
import re
import ssl
from collections.abc import Mapping
from pathlib import Path

from ecommerce_worker.errors import Misconfigured

#: A certificate in PEM: base64 between two lines.
_CERTIFICATE = re.compile(rb'^-----BEGIN CERTIFICATE-----\s(.*?)^-----END CERTIFICATE-----\s*?$',
                          re.MULTILINE | re.DOTALL)


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
        elif not is_well_formed(Path(path).read_bytes()):
            ssl.create_default_context(cafile=path)  # this has the say
    except ssl.SSLError:
        return [f'environment {name}: {path} holds no certificates in PEM format']
    except OSError as error:
        return [f'environment {name}: {path} cannot be read: {error.strerror}']
    return []


def is_well_formed(content: bytes) -> bool:
    """Whether these are whole certificates in PEM and nothing else.

    Each process looks at them when it starts, and OpenSSL takes six times as long to build a trust store of them.
    """
    found = _CERTIFICATE.findall(content)
    return bool(found) and len(found) == content.count(b'-----BEGIN') and all(map(_is_whole, found))


def _is_whole(text: bytes) -> bool:
    """Whether this is base64 of DER that is as long as it says: a sequence of 256 bytes to 64 KiB (X.690, 8.1.3.5)."""
    try:
        der = base64.b64decode(b''.join(text.split()), validate=True)
    except ValueError:
        return False
    return der[:2] == b'\x30\x82' and len(der) == 4 + int.from_bytes(der[2:4], 'big')
