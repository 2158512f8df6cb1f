"""The text of mail that the shop sends without one: from a template of the operator, or one of ours."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from dataclasses import replace
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from ecommerce_worker.email.message import Email, Purpose, one_line
from ecommerce_worker.errors import Misconfigured

_SHIPPED = resources.files('ecommerce_worker.email') / 'templates'


def rendered(email: Email, directory: str = '') -> Email:
    """The mail with a body, and with a subject if it had none, if it only has variables; any other unchanged.

    The template is ``<directory>/<purpose>.html`` if there is one, else the one that comes with the worker.  In it
    (:class:`string.Template`), ``$name`` is a variable, empty if the shop did not send it; ``$name_link`` the same as
    a link if it is an http(s) URL; ``$rows`` the rows of a table of all variables; ``$$`` a dollar sign.  Its
    ``<title>`` is the subject.  Raises :class:`~ecommerce_worker.errors.Misconfigured` that names the template.
    """
    if email.body or not email.variables:
        return email
    where, template = _template(email.purpose, directory)
    try:
        body = Template(template).substitute(_Words(email.variables))
    except ValueError as error:
        raise Misconfigured([f'{where}: not a valid template: {error}']) from None
    title = re.search(r'<title[^>]*>(.*?)</title\s*>', body, re.IGNORECASE | re.DOTALL)
    return replace(email, body=body, subject=email.subject or one_line(html.unescape(title[1] if title else '')))


def _template(purpose: Purpose, directory: str) -> tuple[str, str]:
    """The path and content of the template of a purpose."""
    name = f'{purpose}.html'
    if directory and not Path(directory).is_dir():
        raise Misconfigured([f'{directory}: the directory of mail templates does not exist'])
    for place in ([Path(directory) / name] if directory else []) + [_SHIPPED / name]:
        try:
            return str(place), place.read_text(encoding='utf-8')
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            reason = getattr(error, 'strerror', None) or 'not UTF-8 text'
            raise Misconfigured([f'{place}: this template cannot be read: {reason}']) from None
    raise Misconfigured([f'{directory or _SHIPPED}/{name}: the template does not exist, and the shop sent no text'])


class _Words(dict[str, str]):
    """The values of names in a template, as HTML; unknown names are empty."""

    def __init__(self, variables: Mapping[str, Any]) -> None:
        texts = {str(name): _text(value) for name, value in variables.items()}
        self.update((name, html.escape('' if _is_unsafe_url(name, text) else text)) for name, text in texts.items())
        self.update((f'{name}_link', _linked(text)) for name, text in texts.items())
        self['rows'] = '\n'.join(
            f'<tr><th scope="row">{html.escape(_title(name))}</th><td>{_linked(text)}</td></tr>'
            for name, text in texts.items())

    def __missing__(self, name: str) -> str:
        return ''


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ', '.join(f'{name}: {_text(item)}' for name, item in value.items())
    if isinstance(value, (list, tuple, set, frozenset)):
        return ', '.join(map(_text, value))
    return '' if value is None else str(value)


def _title(name: str) -> str:
    """``Percent usage`` of ``percent_usage``."""
    words = re.sub(r'[_\s]+', ' ', name).strip()
    return words[:1].upper() + words[1:]


def _is_web_url(text: str) -> bool:
    return re.fullmatch(r'https?://[^\s"<>]+', text, re.IGNORECASE) is not None


def _is_unsafe_url(name: str, text: str) -> bool:
    """Whether this is a URL that would run code if a template put it into ``href``."""
    return name.lower().endswith(('url', 'link', 'href')) and not _is_web_url(text)


def _linked(text: str) -> str:
    escaped = html.escape(text)
    return f'<a href="{escaped}">{escaped}</a>' if _is_web_url(text) else escaped
