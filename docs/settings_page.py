"""Writes ``docs/reference/settings.rst`` from ``ecommerce_worker.configuration.base`` and the kinds of its settings.

Run by ``make reference``. What stands above the mark in the page is written by hand and stays.
"""
# ruff: noqa: INP001 - a program beside the pages

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ecommerce_worker import durations
from ecommerce_worker.configuration import base
from ecommerce_worker.settings.kinds import Kind, Secrecy
from ecommerce_worker.settings.schema import DEFAULTS, SETTINGS

PAGE: Final = Path(__file__).parent / 'reference' / 'settings.rst'
MARK: Final = '.. What follows is made of ecommerce_worker/configuration/base.py by `make reference`.\n'
#: The longest default that is shown, in characters.
SHOWN: Final = 90

#: What is set in a literal: in backquotes, braces, brackets or quotes, a URL, the name of a setting.
_LITERAL: Final = re.compile(
    r"`([^`]+)`|(\$\$?\{\w+\})|(\{(?:[^{}]|\{[^{}]*\})*\})|(?<![\w'])'([^']+)'(?!\w)|(\w+://[^\s,;)]*[^\s,;).:])"
    rf'|\b({"|".join(sorted(SETTINGS, key=len, reverse=True))}|ECOMMERCE_WORKER_\w+|WORKER_CONFIGURATION_MODULE)\b')
_PAGES: Final = re.compile(r'docs/(how-to|reference)/([\w-]+)\.rst')


@dataclass
class Described:
    """Settings, or members of one, that one comment is about."""

    names: list[str]
    comment: list[str]
    kinds: list[Kind]
    defaults: list[Any]
    members: list[Described] = field(default_factory=list)


def sections(lines: list[str]) -> Iterator[tuple[str, list[Described]]]:
    """The title and the settings of each part of ``base``."""
    titles = [(number, found[1]) for number, line in enumerate(lines, 1)
              if (found := re.match(r'# --- (.+?) -+$', line))]
    described = list(_described(lines))
    for (begin, title), (end, _) in zip(titles, [*titles[1:], (len(lines) + 1, '')], strict=True):
        if here := [found for number, found in described if begin < number < end]:
            yield title, here


def _described(lines: list[str]) -> Iterator[tuple[int, Described]]:
    found: Described | None = None
    end = 0
    for node in ast.parse('\n'.join(lines)).body:
        target = node.target if isinstance(node, ast.AnnAssign) else (
            node.targets[0] if isinstance(node, ast.Assign) else None)
        if not isinstance(target, ast.Name) or target.id not in SETTINGS:
            continue
        if found and target.id in found.names:
            continue  # it is given another value in a second step
        kind, default = SETTINGS[target.id], DEFAULTS[target.id]
        comment = _comment_above(lines, node.lineno)
        follows, end = node.lineno == end + 1, node.end_lineno or 0
        if found and follows and not comment:
            found.names.append(target.id)
            found.kinds.append(kind)
            found.defaults.append(default)
            continue
        found = Described([target.id], comment, [kind], [default])
        if kind.names and isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Dict):
            found.members = list(_members(lines, node.value, kind, default))
        yield node.lineno, found


def _members(lines: list[str], node: ast.Dict, kind: Kind, defaults: Mapping[str, Any]) -> Iterator[Described]:
    found: Described | None = None
    for key in node.keys:
        if not isinstance(key, ast.Constant) or (inner := kind.of(str(key.value))) is None:
            continue
        comment = _comment_above(lines, key.lineno)
        if found and not comment:
            found.names.append(str(key.value))
            found.kinds.append(inner)
            found.defaults.append(defaults[str(key.value)])
            continue
        if found:
            yield found
        found = Described([str(key.value)], comment, [inner], [defaults[str(key.value)]])
    if found:
        yield found


def _comment_above(lines: list[str], number: int) -> list[str]:
    comment: list[str] = []
    while (line := lines[number - 2].strip()).startswith('#') and not line.startswith('# ---'):
        comment.insert(0, line.removeprefix('#').removeprefix(' '))
        number -= 1
    return comment


def marked_up(text: str) -> str:
    """Prose of a comment, with literals and links."""
    linked: list[str] = []

    def link(found: re.Match[str]) -> str:
        where = f'{found[2]}.rst' if found[1] == 'reference' else f'../{found[1]}/{found[2]}.rst'
        linked.append(f'`{found[2].replace("-", " ").capitalize()} <{where}>`_')
        return f'\0{len(linked) - 1}\0'

    text = _LITERAL.sub(lambda found: f'``{next(filter(None, found.groups()))}``', _PAGES.sub(link, text))
    return re.sub(r'\0(\d+)\0', lambda found: linked[int(found[1])], text.replace('*', r'\*'))


def paragraphs(comment: list[str], indent: str) -> Iterator[str]:
    """A comment as reStructuredText; what is indented in it is shown as it is."""
    prose: list[str] = []
    shown = False
    for line in comment:
        deeper = line.startswith('  ')
        if deeper and not shown:
            yield indent + _filled(prose)
            yield ''
            yield indent + '::'
            yield ''
            prose = []
        elif not deeper and shown:
            yield ''
        shown = deeper
        if deeper:
            yield indent + '    ' + line.removeprefix('  ')
        else:
            prose.append(line)
    if prose:
        yield indent + _filled(prose)


def _filled(lines: list[str]) -> str:
    return marked_up(' '.join(' '.join(lines).split()))


def _term(found: Described) -> str:
    return ', '.join(f'``{name}``' for name in found.names)


def facts(found: Described) -> str:
    """What the settings take, and their defaults."""
    takes = [_takes(*each) for each in zip(found.names, found.kinds, strict=True)]
    defaults = [_default(*each) for each in zip(found.kinds, found.defaults, strict=True)]
    if len(set(takes)) == 1:
        return takes[0] + '.' + (' *Default:* ' + ', '.join(dict.fromkeys(defaults)) + '.' if all(defaults) else '')
    return ' '.join(f'``{name}`` {take}' + (f', by default {default}.' if default else '.')
                    for name, take, default in zip(found.names, takes, defaults, strict=True))


def _takes(name: str, kind: Kind) -> str:
    wants = kind.wants.replace(durations.FORM + ',', 'a duration')
    in_file = ', or ``file:/path``' if kind.secrecy is Secrecy.WHOLE or name == 'BROKER_URL' else ''
    return f'*Value:* {marked_up(wants)}{in_file}'


def _default(kind: Kind, value: Any) -> str:
    """The default as YAML has it; '' for what is too long to be shown."""
    if value is None:
        return 'not set'
    if value == '':
        return 'empty'
    if isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, int | float) and durations.FORM in kind.wants:
        text = durations.text(value)
    else:
        text = value if isinstance(value, str) else repr(value)
    return f'``{text}``' if len(text) <= SHOWN else ''


def made() -> str:
    """What the program writes into the page."""
    out = [MARK.rstrip('\n'), '']
    for title, settings in sections(inspect.getsource(base).splitlines()):
        out += ['', title, '=' * len(title), '']
        for found in settings:
            about = [*paragraphs(found.comment, '    '), '']
            takes = '*Value:* a mapping, merged key by key:' if found.members else facts(found)
            out += [_term(found), *(about if found.comment else []), f'    {takes}', '']
            for member in found.members:
                text = ' '.join([*paragraphs(member.comment, ''), facts(member)])
                out += [f'    * {_term(member)}: {text}', '']
    return '\n'.join(out).rstrip('\n') + '\n'


def page() -> str:
    """The whole page, as it should be."""
    return PAGE.read_text().partition(MARK)[0] + made()


if __name__ == '__main__':
    PAGE.write_text(page())
