"""The layers of settings: a module, a YAML file, the environment."""

from __future__ import annotations

import ast
import contextlib
import importlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import yaml

from ecommerce_worker.configuration import CONFIGURATION_MODULE
from ecommerce_worker.settings.kinds import Kind, literal
from ecommerce_worker.settings.names import CELERY_STYLE, PREFIX, Names, setting_of
from ecommerce_worker.settings.pitfalls import pitfalls_in
from ecommerce_worker.settings.schema import DEFAULTS
from ecommerce_worker.words import did_you_mean

DEFAULT_MODULE = 'ecommerce_worker.configuration.local'
OWN_MODULES = tuple(f'ecommerce_worker.configuration.{name}' for name in ('devstack', 'local', 'production', 'test'))
YAML_FILE = 'ECOMMERCE_WORKER_CFG'

# Kubernetes describes services named "ecommerce-worker" and "ecommerce-worker-<anything>" in variables like these;
# they are not meant for us.
_KUBERNETES = re.compile(
    PREFIX + r'(\w+_)?(SERVICE_HOST=.*|SERVICE_PORT(_\w+)?=\d*|PORT(_\d+_(TCP|UDP|SCTP))?=(tcp|udp|sctp)://.*'
             r'|PORT_\d+_(TCP|UDP|SCTP)_(PROTO|PORT|ADDR)=.*)', re.DOTALL)


@dataclass(frozen=True)
class Layer:
    """Values from one source, and the location of each."""

    values: Mapping[str, Any]
    where: Callable[[Names], str]
    #: Everything in it is meant for us, so a name we do not know is a mistake.
    ours: bool = True
    #: What reads as something else than it looks like: whose value it is, and what is wrong, its place included.
    problems: tuple[tuple[Names, str], ...] = ()


class Unreadable(Exception):
    """A layer that cannot be read at all."""


def _in_file(path: str, lines: Mapping[Names, int]) -> Callable[[Names], str]:
    def where(names: Names) -> str:
        """``path:line`` of the innermost name whose line is known."""
        for end in range(len(names), 0, -1):
            if names[:end] in lines:
                return f'{path}:{lines[names[:end]]}'
        return path

    return where


def imported(name: str) -> ModuleType:
    """The settings module of that name; raises Unreadable."""
    try:
        return importlib.import_module(name)
    except Exception as error:  # third-party code, which may raise anything
        guess = did_you_mean(name, OWN_MODULES) if isinstance(error, ModuleNotFoundError) else ''
        cause = f'{type(error).__name__}: {error}'
        raise Unreadable(f'{CONFIGURATION_MODULE} names {name}, which cannot be imported: {cause}{guess}') from error


def module_layer(module: ModuleType, kinds: Mapping[str, Kind]) -> Layer:
    """The layer of a settings module: what it sets beyond base."""
    lines = _assignments(module)
    values = {
        setting_of(name): value for name, value in vars(module).items()
        if not isinstance(value, (ModuleType, FunctionType, type))
        and (setting_of(name) in kinds or CELERY_STYLE.fullmatch(name))
        and ((setting_of(name),) in lines or name not in DEFAULTS or value != DEFAULTS[name])
    }
    return Layer(values, _in_file(module.__file__ or module.__name__, lines), ours=False)


def _assignments(module: ModuleType) -> dict[Names, int]:
    """The last line that gives each name a value; empty if there is no source."""
    try:
        tree = ast.parse(Path(str(module.__file__)).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return {}
    lines: dict[Names, int] = {}
    for node in ast.walk(tree):
        if isinstance(node, (ast.Name, ast.Subscript)) and isinstance(node.ctx, ast.Store):
            target: ast.expr = node
            while isinstance(target, ast.Subscript):  # BRAZE['FROM_EMAIL'] = … changes BRAZE
                target = target.value
            if isinstance(target, ast.Name):
                name = setting_of(target.id)
                lines[name,] = max(node.lineno, lines.get((name,), 0))
    return lines


def yaml_layer(path: str) -> Layer:
    """The layer of a YAML file; raises Unreadable."""
    try:
        loader, node = _parsed(Path(path).read_text(encoding='utf-8'))
        silent = list(pitfalls_in(node))
        values = {} if node is None else _with_text_keys(loader.construct_document(node))
    except OSError as error:
        raise Unreadable(f'{path}: {error.strerror} ({YAML_FILE} names this file)') from error
    except yaml.MarkedYAMLError as error:
        # Not str(error): it quotes the line, and a line may hold a secret.
        mark = error.problem_mark or error.context_mark
        place = f'{path}:{mark.line + 1}:{mark.column + 1}' if mark else path
        raise Unreadable(f'{place}: not valid YAML: {error.problem or error.context}') from error
    except (yaml.YAMLError, ValueError) as error:
        reason = getattr(error, 'reason', None) or 'a value cannot be read'
        raise Unreadable(f'{path}: not valid YAML: {reason}') from error
    except RecursionError as error:
        raise Unreadable(f'{path}: a part of it contains itself') from error
    if not isinstance(values, dict):
        raise Unreadable(f'{path}: this must be a mapping of settings, not a {type(values).__name__}')
    problems = tuple((names, f'{path}:{line}: {problem}') for names, line, problem in silent)
    return Layer({setting_of(name): value for name, value in values.items()}, _in_file(path, dict(_lines(node))),
                 problems=problems)


def _parsed(text: str) -> tuple[Any, yaml.Node | None]:
    """The YAML loader, and the document."""
    # By libyaml, where PyYAML has it: with thousands of sites that is most of the time in which a command starts.
    if loads := getattr(yaml, 'CSafeLoader', None):
        with contextlib.suppress(yaml.YAMLError):
            loader = loads(text)
            return loader, loader.get_single_node()
    # What is wrong is said in the words of PyYAML itself.
    loader = yaml.SafeLoader(text)
    return loader, loader.get_single_node()


def _with_text_keys(value: Any) -> Any:
    """A copy of the containers without keys that are not strings, which are reported separately."""
    if isinstance(value, dict):
        return {name: _with_text_keys(item) for name, item in value.items() if isinstance(name, str)}
    return [_with_text_keys(item) for item in value] if isinstance(value, list) else value


def _lines(node: yaml.Node | None, names: Names = ()) -> Iterator[tuple[Names, int]]:
    """The line of each key, down to the depth of settings, since aliases may be recursive."""
    if isinstance(node, yaml.MappingNode) and len(names) < 5:
        for key, value in node.value:
            inner = (*names, str(key.value)) if names else (setting_of(str(key.value)),)
            yield inner, key.start_mark.line + 1
            yield from _lines(value, inner)


def _plain(given: str) -> Any:
    """The number or boolean in a string for Celery, else the string itself, since Celery does not parse strings."""
    with contextlib.suppress(ValueError):
        return literal(given)
    return given


def environment_layer(environ: Mapping[str, str], kinds: Mapping[str, Kind]) -> Layer:
    """The layer of variables ``ECOMMERCE_WORKER_<SETTING>``."""
    variables: dict[str, str] = {}
    problems: list[tuple[Names, str]] = []
    for variable in environ:
        name = setting_of(variable.removeprefix(PREFIX))
        if not variable.startswith(PREFIX) or variable == YAML_FILE:
            continue
        if name not in kinds and _KUBERNETES.fullmatch(f'{variable}={environ[variable]}'):
            continue
        if name in variables:
            twice = f'{name} is set already, as {variables[name]}: only one of the two would count'
            problems.append(((name,), f'environment {variable}: {twice}'))
        variables[name] = variable
    values = {name: environ[variable] if name in kinds else _plain(environ[variable])
              for name, variable in variables.items()}
    return Layer(values, lambda names: f'environment {variables[names[0]]}', problems=tuple(problems))


def yaml_path() -> Path | None:
    """The YAML file that the environment names, if it names one."""
    return Path(path) if (path := os.environ.get(YAML_FILE, '')) else None


def log_format() -> str:
    """``LOG_FORMAT`` as the environment gives it, which overrides what any other layer says; '' if it does not.

    For the error that there is no configuration.
    """
    return os.environ.get(f'{PREFIX}LOG_FORMAT', '')


def environment_with(given: Mapping[str, object]) -> dict[str, str]:
    """The environment with other values of these settings, for another process of ours."""
    return {**os.environ, **{f'{PREFIX}{name}': str(value) for name, value in given.items()}}


def yaml_file(environ: Mapping[str, str], module: ModuleType) -> str:
    """Path of the YAML file to read; empty if the settings module can do without and none is named."""
    opt_out = getattr(module, 'YAML_OPT_OUT', '')
    if opt_out and environ.get(opt_out):
        return ''
    path = environ.get(YAML_FILE, '')
    if not path and getattr(module, 'YAML_REQUIRED', False):
        raise Unreadable(f'{YAML_FILE} is not set: with {module.__name__} it must name the YAML file of settings')
    return path
