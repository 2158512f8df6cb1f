"""Masking secrets in output, and in the environment of other programs."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from ecommerce_worker.settings.kinds import Kind, Secrecy
from ecommerce_worker.settings.schema import SETTINGS

_SECRET_NAME = re.compile(r'secret|passw|token|credential|dsn|(?<!routing)_key$|^key$', re.IGNORECASE)

# The password of a URL reaches to the last '@' before the next URL: unencoded, it may hold anything else.
_URL_PASSWORD = re.compile(r'(://[^:/@\s]*:)(?:(?!://).)*?(@[^@;]*(?:;|$))', re.DOTALL)
_QUERY_PASSWORD = re.compile(r'([?&][\w-]*(?:password|passwd|secret|token|key)=)[^&;\s]+', re.IGNORECASE)


def mask(name: str, value: object, kind: Kind | None = None) -> str:
    """The value of a setting for display: secrets and the passwords within URLs are ``***``.

    ``kind`` is that of a member of a setting, if it has one.
    """
    shown = masked(name, value, kind)
    return shown if isinstance(shown, str) and shown else repr(shown)


def masked(name: str, value: object, kind: Kind | None = None) -> object:
    """The value with ``***`` for secrets."""
    known = SETTINGS.get(name)
    is_secret = known.secrecy is Secrecy.WHOLE if known else (
        _SECRET_NAME.search(name) or (kind and kind.secrecy is Secrecy.WHOLE))
    if is_secret and value not in (None, ''):
        return '***'
    if isinstance(value, str):
        return _QUERY_PASSWORD.sub(r'\1***', _URL_PASSWORD.sub(r'\1***\2', value))
    if isinstance(value, Mapping):
        return {key: masked(str(key), item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [masked('', item) for item in value]
    return value


_HANDED_ON = re.compile(r'PATH|HOME|USER|LOGNAME|SHELL|LANG|LANGUAGE|LC_\w+|TZ|TMPDIR|LD_LIBRARY_PATH')


def environment_for_others(environ: Mapping[str, str] | None = None, *, also: str = '') -> dict[str, str]:
    """The variables that programs of other projects may see: nothing that could be a secret of ours.

    ``also`` is a pattern of the beginnings of names that are theirs.
    """
    environ = os.environ if environ is None else environ
    return {name: value for name, value in environ.items()
            if _HANDED_ON.fullmatch(name) or (also and re.match(also, name))}
