"""Pitfalls of YAML: values that it silently reads as something else."""

from __future__ import annotations

import re
from collections.abc import Iterator

import yaml

from ecommerce_worker.settings.names import Names, label_of, setting_of

# YAML 1.1 reads these numbers to other bases: 010 is 8, 1:30 is 90.
_OTHER_BASE = re.compile(r'[-+]?(0[0-9_]+|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)')
_MOST_NODES = 100_000

_YAML_KINDS = {'bool': 'true or false', 'int': 'a number', 'float': 'a number', 'null': 'nothing',
               'timestamp': 'a date'}


def pitfalls_in(node: yaml.Node | None) -> Iterator[tuple[Names, int, str]]:
    """Values that YAML silently reads as something else: the setting, the line, the problem.

    That is a key that is there twice, of which only the last would count; a key that is not a text; and a number to
    another base.
    """
    seen: set[int] = set()
    todo: list[tuple[yaml.Node | None, Names]] = [(node, ())]
    while todo and len(seen) < _MOST_NODES:
        found, names = todo.pop()
        if found is None or id(found) in seen:
            continue
        seen.add(id(found))
        line = found.start_mark.line + 1
        if isinstance(found, yaml.SequenceNode):
            todo += [(item, names) for item in reversed(found.value)]
        elif isinstance(found, yaml.MappingNode):
            yield from _pitfalls_of_keys(found, names)
            todo += [(value, (*names, _key(key, names))) for key, value in reversed(found.value)]
        elif found.tag.endswith((':int', ':float')) and _OTHER_BASE.fullmatch(str(found.value)):
            yield names, line, (f'{label_of(names) if names else "the number"} {found.value} is a number in a base '
                                'other than 10 in YAML: write it in decimal digits, or in quotes if it is a string')


def _key(key: yaml.Node, names: Names) -> str:
    """A key as it was written, or the setting that it stands for."""
    return str(key.value) if names else setting_of(str(key.value))


def _pitfalls_of_keys(node: yaml.MappingNode, names: Names) -> Iterator[tuple[Names, int, str]]:
    lines: dict[str, int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag.endswith(':merge'):
            continue
        name, line = _key(key, names), key.start_mark.line + 1
        label = label_of((*names, name))
        if not key.tag.endswith(':str'):
            meant = _YAML_KINDS.get(key.tag.rpartition(':')[2], 'something other than a string')
            yield (*names, name), line, f"{label}: YAML reads {key.value} as {meant}: put it in quotes: '{key.value}'"
        elif name in lines:
            yield (*names, name), line, (f'{label} is set already in line {lines[name]}: only one of the two would '
                                         'count')
        lines.setdefault(name, line)
