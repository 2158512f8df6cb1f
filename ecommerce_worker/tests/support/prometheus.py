"""A real Prometheus, and what the dashboard, the alerts and the reference say of our metrics."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ecommerce_worker.testing.rabbitmq import free_port

ROOT = Path(__file__).parents[3]
RULES = ROOT / 'deploy' / 'prometheus' / 'ecommerce-worker.rules.yml'
DASHBOARD = ROOT / 'deploy' / 'grafana' / 'ecommerce-worker.json'
REFERENCE = ROOT / 'docs' / 'reference' / 'metrics.rst'

#: What a person chooses on the dashboard, and what Grafana fills in.
CHOSEN = {'$site': '.*', '$queue': '.*', '$__rate_interval': '1m'}


def described() -> set[str]:
    """The names of the metrics in the reference."""
    tables = REFERENCE.read_text().partition('Of each process')[2]
    rows = re.findall(r'^   \* - (``.*)$|^(``[a-z_]+(?:\{[^}]*\})?``)(?:  |:)', tables, re.MULTILINE)
    return {name for row in rows for name in re.findall(r'``([a-z_]+)(?:\{[a-z_,]+\})?``', ''.join(row))}


def named(text: str) -> set[str]:
    """The metrics that an expression asks for, without what a histogram adds to their names."""
    return {re.sub(r'_(bucket|count|sum)$', '', name) for name in re.findall(r'ecommerce_worker_(\w+)', text)}


def selectors(expr: str) -> list[str]:
    """The series that an expression is about: each name with its labels."""
    return re.findall(r'(?:ecommerce_worker|process)_\w+(?:\{[^}]*\})?', expr)


def panels() -> list[dict[str, Any]]:
    """The panels of the dashboard."""
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())['panels']
    return found


def expressions() -> dict[str, set[str]]:
    """What the dashboard asks for, and by which labels it names the lines."""
    return {target['expr']: set(re.findall(r'{{(\w+)}}', target.get('legendFormat', '')))
            for panel in panels() for target in panel.get('targets', ())}


def alerts() -> dict[str, str]:
    """What each alert asks for."""
    group, = yaml.safe_load(RULES.read_text())['groups']
    return {rule['alert']: rule['expr'] for rule in group['rules']}


class Prometheus:
    """One that asks these ports, by the name of their job, each second."""

    def __init__(self, program: str, directory: Path, jobs: Mapping[str, int]) -> None:
        self.port = free_port()
        (directory / 'prometheus.yml').write_text(yaml.safe_dump({
            'global': {'scrape_interval': '1s', 'evaluation_interval': '1s'}, 'rule_files': [str(RULES)],
            'scrape_configs': [{'job_name': job, 'static_configs': [{'targets': [f'127.0.0.1:{port}']}]}
                               for job, port in jobs.items()]}))
        with (directory / 'prometheus.log').open('wb') as log:
            self.process = subprocess.Popen(
                [program, f'--config.file={directory / "prometheus.yml"}',
                 f'--storage.tsdb.path={directory / "prometheus"}', f'--web.listen-address=127.0.0.1:{self.port}'],
                stdout=log, stderr=log)

    def get(self, path: str, **query: str) -> Any:
        """What it answers."""
        url = f'http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(query)}'
        with urllib.request.urlopen(url, timeout=30) as answer:
            return json.load(answer)['data']

    def ask(self, expr: str) -> list[dict[str, Any]]:
        """The series that answer an expression, without those that have no value."""
        for name, value in CHOSEN.items():
            expr = expr.replace(name, value)
        return [each for each in self.get('query', query=expr)['result'] if each['value'][1] != 'NaN']

    @property
    def is_up(self) -> bool:
        """Whether it answers."""
        with contextlib.suppress(OSError):
            return bool(self.get('status/buildinfo'))
        return False

    def end(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
