#!/usr/bin/env python3
"""Writes the alerts of deploy/prometheus as prometheus-operator takes them: overlays/prometheus-operator/rules.yaml."""

from __future__ import annotations

import textwrap
from pathlib import Path

HERE = Path(__file__).parent
RULES = HERE.parent / 'prometheus' / 'ecommerce-worker.rules.yml'

HEAD = """\
# Made from deploy/prometheus by deploy/kubernetes/rules.py, which is run again when they change.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: ecommerce-worker
spec:
"""


def made() -> str:
    """The object as text."""
    return HEAD + textwrap.indent(RULES.read_text(encoding='utf-8'), '  ')


if __name__ == '__main__':
    (HERE / 'overlays' / 'prometheus-operator' / 'rules.yaml').write_text(made(), encoding='utf-8')
