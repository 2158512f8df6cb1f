#!/usr/bin/env python3
"""Write ecommerce-worker.json, the dashboard for Grafana, anew: what it shows is said here, where people can read it.

::

    deploy/grafana/dashboard.py > deploy/grafana/ecommerce-worker.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Panel = dict[str, Any]

SOURCE = {'type': 'prometheus', 'uid': '${datasource}'}

#: The width of a row, and the heights of panels.
WIDTH, LOW, HIGH = 24, 4, 8

#: Several recorders say the same of one ledger.
OPEN, PARKED, WAITING = (
    f'max without (instance, pod) (ecommerce_worker_orders{{{where}site=~"$site"}})'
    for where in ('', 'state="parked",', 'state="waiting",'))
RATE = 'rate(ecommerce_worker_%s[$__rate_interval])'
GROWTH = 'increase(ecommerce_worker_%s[$__rate_interval])'
CHOSEN = 'site=~"$site",queue=~"$queue"'
OURS = 'and on (job, instance) ecommerce_worker_build_info'


def share(of: float, name: str, by: str = '', where: str = '') -> str:
    """The value that this share of a histogram's observations is not above, by labels."""
    bucket = RATE % f'{name}_bucket{{{where}}}' if where else RATE % f'{name}_bucket'
    return f'histogram_quantile({of}, sum by (le{", " * bool(by)}{by}) ({bucket}))'


def a_minute(by: str, name: str, where: str = '') -> str:
    """How many there are a minute, by labels."""
    return f'60 * sum by ({by}) ({RATE % (f"{name}{{{where}}}" if where else name)})'


def _thresholds(steps: Mapping[float, str]) -> Panel:
    return {'mode': 'absolute', 'steps': [{'color': 'green', 'value': None}, *(
        {'color': color, 'value': value} for value, color in steps.items())]}


def number(title: str, about: str, expr: str, steps: Mapping[float, str], *, unit: str = 'short',
           nothing: str = '0') -> Panel:
    """One number, which has another colour from each of the ``steps`` on."""
    return {
        'type': 'stat', 'title': title, 'description': about, 'width': 4, 'height': LOW,
        'targets': [{'refId': 'A', 'datasource': SOURCE, 'expr': expr, 'instant': True, 'range': False}],
        'fieldConfig': {'defaults': {
            'unit': unit, 'noValue': nothing, 'color': {'mode': 'thresholds'}, 'thresholds': _thresholds(steps)},
            'overrides': []},
        'options': {'reduceOptions': {'calcs': ['lastNotNull'], 'fields': '', 'values': False}, 'colorMode': 'value',
                    'graphMode': 'none'}}


def table(title: str, about: str, expr: str, *hidden: str) -> Panel:
    """A row for each series, with its labels."""
    return {
        'type': 'table', 'title': title, 'description': about, 'width': 8, 'height': HIGH,
        'targets': [{'refId': 'A', 'datasource': SOURCE, 'expr': expr, 'format': 'table', 'instant': True,
                     'range': False}],
        'fieldConfig': {'defaults': {'noValue': 'none'}, 'overrides': []},
        'transformations': [{'id': 'organize', 'options': {'excludeByName': dict.fromkeys(hidden, True)}}],
        'options': {'showHeader': True, 'cellHeight': 'sm'}}


def lines(title: str, about: str, *exprs: tuple[str, str], unit: str = 'short', width: int = 8, stacked: bool = False,
          limit: float | None = None) -> Panel:
    """Lines over time, each with its name; a red one at the ``limit`` from which on an alert is raised."""
    defaults: Panel = {'unit': unit, 'noValue': 'none', 'min': 0, 'custom': {
        'showPoints': 'never', 'fillOpacity': 30 if stacked else 0, 'spanNulls': 60_000,
        'stacking': {'mode': 'normal' if stacked else 'none', 'group': 'A'}}}
    if limit is not None:
        defaults['thresholds'] = _thresholds({limit: 'red'})
        defaults['custom']['thresholdsStyle'] = {'mode': 'line'}
    return {
        'type': 'timeseries', 'title': title, 'description': about, 'width': width, 'height': HIGH,
        'targets': [{'refId': chr(ord('A') + place), 'datasource': SOURCE, 'expr': expr, 'legendFormat': name}
                    for place, (expr, name) in enumerate(exprs)],
        'fieldConfig': {'defaults': defaults, 'overrides': []},
        'options': {'legend': {'displayMode': 'list', 'placement': 'bottom', 'showLegend': True},
                    'tooltip': {'mode': 'multi', 'sort': 'desc'}}}


ROWS: Mapping[str, Sequence[Panel]] = {
    'Is it well?': [
        number('Oldest unfulfilled order', 'For how long the oldest paid order has been known that is tried, waits or '
               'is parked. See PaidOrderUnfulfilled.',
               'time() - min(ecommerce_worker_oldest_open_timestamp_seconds'
               '{task=~".*[.]fulfill_order",site=~"$site"})', {900: 'orange', 3600: 'red'}, unit='s', nothing='none'),
        number('Parked', 'Messages that wait for a person. See OrdersParked.',
               f'sum({PARKED})', {1: 'orange', 10: 'red'}),
        number('Waiting', 'Those that are tried again by themselves; below is why.',
               f'sum({WAITING})', {}),
        number('Overdue', 'Those of which nothing was heard when it was time. See OrdersOverdue.',
               'sum(max by (state) (ecommerce_worker_overdue_orders))', {1: 'red'}, nothing='unknown'),
        number('Workers that consume', 'See WorkerAbsent.', 'sum(ecommerce_worker_consuming)', {}),
        number('Services left alone', 'Hosts whose circuit breaker is open. See ServiceLeftAlone.',
               'sum(max by (host) (ecommerce_worker_circuit_state{state="open"}))', {1: 'orange'}),
        table('Processes', '1 for a process that does its work just now. See NotReady.',
              'max by (role, job, instance) (ecommerce_worker_ready)', 'Time'),
        table('Versions', 'What runs where.',
              'max by (instance, version, python, celery, kombu) (ecommerce_worker_build_info)', 'Time', 'Value'),
        lines('Age of the pulse', 'For how long the loop of each process has not turned; it is not alive after '
              'HEALTH_SECONDS.', ('time() - max by (role, instance) (ecommerce_worker_pulse_timestamp_seconds)',
                                  '{{role}} {{instance}}'), unit='s', limit=45),
    ],
    'Orders': [
        lines('Not over yet', 'Orders, mails and jobs, by where they are.',
              (f'sum by (state) ({OPEN})', '{{state}}'), stacked=True),
        lines('Parked, by cause', 'Each waits for a person.',
              (f'sum by (cause) ({PARKED})', '{{cause}}'), stacked=True),
        lines('Waiting, by cause', 'Each is tried again by itself.',
              (f'sum by (cause) ({WAITING})', '{{cause}}'), stacked=True),
        lines('Runs a minute, by outcome', '', (
            a_minute('outcome', 'runs_total', CHOSEN), '{{outcome}}'), stacked=True),
        lines('Runs a minute that did not do it, by cause', '', (a_minute(
            'cause', 'runs_total', f'outcome!~"done|skipped",{CHOSEN}'), '{{cause}}'), stacked=True),
        lines('Messages a minute without a run', 'Those that no task takes, or that were given back.',
              (a_minute('outcome, cause', 'messages_without_run_total', 'queue=~"$queue"'), '{{outcome}} {{cause}}')),
        lines('Tries until done', 'At which try it was done what was done.',
              (share(.5, 'attempts', where='outcome="done"'), 'one of two'),
              (share(.99, 'attempts', where='outcome="done"'), '99 of 100')),
        lines('Oldest, by task', 'Since when the oldest of each has been known that is not over.',
              ('time() - min by (task) (ecommerce_worker_oldest_open_timestamp_seconds{site=~"$site"})', '{{task}}'),
              unit='s'),
        lines('Overdue', 'trying: the end of a run that was not heard of; waiting: a next try.',
              ('max by (state) (ecommerce_worker_overdue_orders)', '{{state}}'), limit=1),
    ],
    'Delay': [
        lines('From publishing to the first run', 'Of messages that say when they were published: those of intakes, '
              'beat and resubmit, and those of shops where RabbitMQ writes it onto them.',
              (share(.5, 'first_run_delay_seconds', 'queue', 'queue=~"$queue"'), '{{queue}}, one of two'),
              (share(.95, 'first_run_delay_seconds', 'queue', 'queue=~"$queue"'), '{{queue}}, 95 of 100'), unit='s'),
        lines('Duration of runs, 95 of 100', '', (share(.95, 'run_duration_seconds', 'task'), '{{task}}'), unit='s'),
        lines('Delay of the next try, 95 of 100', 'By why it is tried again.',
              (share(.95, 'next_try_delay_seconds', 'cause'), '{{cause}}'), unit='s'),
        lines('Messages in queues', 'waiting room: all that wait for their next try. See QueueGrows, WaitingGrows.',
              ('max by (queue) (ecommerce_worker_queue_messages)', '{{queue}}'), width=12),
        lines('Consumers of queues', 'See NobodyConsumes.', (
            'max by (queue) (ecommerce_worker_queue_consumers)', '{{queue}}'), width=12),
    ],
    'Shops, LMS, vendors': [
        lines('Circuit breakers that are not closed', 'open: the host is left alone; half_open: it is tried by a few '
              'calls.', ('max by (host, state) (ecommerce_worker_circuit_state{state!="closed"})',
                         '{{host}} {{state}}')),
        lines('Changes of circuit breakers', '', (
            f'sum by (host, state) ({GROWTH % "circuit_changes_total"})', '{{host}} {{state}}')),
        lines('Calls a minute, by answer', 'none: no answer came.', (
            a_minute('host, status_class', 'http_request_duration_seconds_count'), '{{host}} {{status_class}}'),
            stacked=True),
        lines('Time to answer, 95 of 100', '', (
            share(.95, 'http_request_duration_seconds', 'host, method'), '{{host}} {{method}}'), unit='s', width=12),
        lines('Tokens fetched a minute', 'By host, and why there was none.', (
            a_minute('host, cause', 'token_fetches_total'), '{{host}} {{cause}}'), width=12),
    ],
    'Threads': [
        lines('Busy threads, by what they wait for', 'threads: as many as there may be.',
              ('sum by (lane) (ecommerce_worker_busy_threads)', '{{lane}}'),
              ('sum(ecommerce_worker_threads)', 'threads')),
        lines('Messages in hand that wait for a thread', '', (
            'sum by (instance) (ecommerce_worker_waiting_in_hand)', '{{instance}}')),
        lines('Oldest run', '', ('max by (instance) (ecommerce_worker_oldest_run_seconds)', '{{instance}}'), unit='s'),
    ],
    'RabbitMQ: publishing and confirms': [
        lines('Time to confirm, 95 of 100', 'parked, waiting, queued: messages; fact: reports for the ledger, many '
              'together.', (share(.95, 'publish_confirm_seconds', 'kind'), '{{kind}}'), unit='s'),
        lines('Confirmed a minute', '', (a_minute('kind', 'publish_confirm_seconds_count'), '{{kind}}')),
        lines('Not confirmed a minute', 'Refused, or on the way when a connection was lost; published again.',
              (a_minute('kind', 'publish_failures_total'), '{{kind}}')),
        lines('Messages that RabbitMQ does not take', 'They are kept. See MessagesUnpublished.', (
            'sum by (instance) (ecommerce_worker_unpublished_messages)', '{{instance}}'), width=6, limit=1),
        lines('Connections begun', 'See BrokerFlapping.', (
            f'sum by (instance) ({GROWTH % "connections_total"})', '{{instance}}'), width=6),
        lines('Reports that are not confirmed yet', '', (
            'sum by (instance) (ecommerce_worker_facts_pending)', '{{instance}}'), width=6),
        lines('Reports that there was no room for', 'See FactsLost.', (
            f'sum by (instance) ({GROWTH % "facts_dropped_total"})', '{{instance}}'), width=6),
    ],
    'Ledger and schedule': [
        lines('Facts that wait for a recorder', 'See RecorderBehind.', (
            'max(ecommerce_worker_queue_messages{queue="ecommerce.ledger"})', 'facts'), limit=10_000),
        lines('Facts that are missing', 'lost: they never came, in seven days; set aside: this version cannot read.',
              ('max(ecommerce_worker_lost_facts)', 'lost'), ('max(ecommerce_worker_set_aside_facts)', 'set aside'),
              limit=1),
        lines('Since the last sign of life of beat', 'See BeatSilent.', (
            'time() - max(ecommerce_worker_beat_timestamp_seconds)', 'beat'), unit='s', limit=300),
        lines('Since the last firing of a job was due', '', (
            'time() - max by (entry) (ecommerce_worker_job_fired_timestamp_seconds)', '{{entry}}'), unit='s', width=12),
        lines('For how long jobs are overdue', 'See ScheduleOverdue.', (
            'time() - max by (entry) (ecommerce_worker_overdue_job_timestamp_seconds)', '{{entry}}'), unit='s',
            width=12, limit=600),
    ],
    'Intake': [
        lines('Deliveries a minute', 'By intake, and how they ended.', (
            a_minute('intake, state', 'intake_deliveries_total'), '{{intake}} {{state}}'), width=WIDTH),
    ],
    'Resources of processes': [
        lines('CPUs', '', (f'rate(process_cpu_seconds_total[$__rate_interval]) {OURS}', '{{job}} {{instance}}')),
        lines('Memory', '', (f'process_resident_memory_bytes {OURS}', '{{job}} {{instance}}'), unit='bytes'),
        lines('Starts in half an hour', 'See RestartLoop.', (
            f'changes(process_start_time_seconds[30m]) {OURS}', '{{job}} {{instance}}'), limit=4),
    ],
}


def placed() -> Iterator[Panel]:
    """All panels, each where it belongs: from left to right, and below that."""
    number, top = 0, 0
    for title, panels in ROWS.items():
        number += 1
        yield {'id': number, 'type': 'row', 'title': title, 'collapsed': False, 'panels': [],
               'gridPos': {'x': 0, 'y': top, 'w': WIDTH, 'h': 1}}
        left, top, height = 0, top + 1, 0
        for panel in panels:
            number += 1
            shown = {name: value for name, value in panel.items() if name not in ('width', 'height')}
            if left + panel['width'] > WIDTH:
                left, top, height = 0, top + height, 0
            yield {'id': number, 'datasource': SOURCE, **shown,
                   'gridPos': {'x': left, 'y': top, 'w': panel['width'], 'h': panel['height']}}
            left, height = left + panel['width'], max(height, panel['height'])
        top += height


def variable(name: str, label: str) -> Panel:
    """A label of runs by whose values one can choose; '' is one, of orders that name no site."""
    query = f'label_values(ecommerce_worker_runs_total, {name})'
    return {'name': name, 'label': label, 'type': 'query', 'datasource': SOURCE,
            'query': {'query': query, 'refId': name}, 'refresh': 2, 'sort': 1, 'multi': True, 'includeAll': True,
            'allValue': '.*', 'current': {'text': ['All'], 'value': ['$__all']}}


def dashboard() -> Panel:
    """The dashboard, in Grafana's classic form (schema 39, of Grafana 10 and later)."""
    return {
        'uid': 'ecommerce-worker', 'title': 'Order fulfilment', 'tags': ['ecommerce-worker'], 'schemaVersion': 39,
        'description': 'Whether orders are fulfilled, and why not. What to do: docs/how-to/answer-alerts.rst.',
        'editable': True, 'graphTooltip': 1, 'refresh': '30s', 'time': {'from': 'now-6h', 'to': 'now'},
        'annotations': {'list': []}, 'links': [],
        'templating': {'list': [
            {'name': 'datasource', 'label': 'Prometheus', 'type': 'datasource', 'query': 'prometheus', 'current': {}},
            variable('site', 'Site'), variable('queue', 'Queue')]},
        'panels': list(placed())}


def written() -> str:
    """The dashboard as JSON, with a line for each panel."""
    panels = ',\n'.join(f'  {json.dumps(panel)}' for panel in placed())
    rest = json.dumps({**dashboard(), 'panels': []}, indent=1).removesuffix('[]\n}')
    return f'{rest}[\n{panels}\n ]\n}}\n'


if __name__ == '__main__':
    sys.stdout.write(written())
