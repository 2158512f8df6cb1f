#!/usr/bin/env python3
"""Write ecommerce-worker.json, the dashboard for Grafana, from the panels below, which people can read.

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

#: Several recorders report the same of one ledger.
OPEN, PARKED, WAITING = (
    f'max without (instance, pod) (ecommerce_worker_orders{{{where}site=~"$site"}})'
    for where in ('', 'state="parked",', 'state="waiting",'))
RATE = 'rate(ecommerce_worker_%s[$__rate_interval])'
GROWTH = 'increase(ecommerce_worker_%s[$__rate_interval])'
CHOSEN = 'site=~"$site",queue=~"$queue"'
OURS = 'and on (job, instance) ecommerce_worker_build_info'


def share(of: float, name: str, by: str = '', where: str = '') -> str:
    """A quantile of a histogram, by labels."""
    bucket = RATE % f'{name}_bucket{{{where}}}' if where else RATE % f'{name}_bucket'
    return f'histogram_quantile({of}, sum by (le{", " * bool(by)}{by}) ({bucket}))'


def a_minute(by: str, name: str, where: str = '') -> str:
    """The rate per minute, by labels."""
    return f'60 * sum by ({by}) ({RATE % (f"{name}{{{where}}}" if where else name)})'


def _thresholds(steps: Mapping[float, str]) -> Panel:
    return {'mode': 'absolute', 'steps': [{'color': 'green', 'value': None}, *(
        {'color': color, 'value': value} for value, color in steps.items())]}


def number(title: str, about: str, expr: str, steps: Mapping[float, str], *, unit: str = 'short',
           nothing: str = '0') -> Panel:
    """One number; each of the ``steps`` is a lower bound and its colour."""
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
    """Lines over time, each with its name, and a red one at the ``limit`` above which an alert is raised."""
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
    'Overview': [
        number('Oldest unfulfilled order', 'Age of the oldest paid order that is not fulfilled. See '
               'PaidOrderUnfulfilled.',
               'time() - min(ecommerce_worker_oldest_open_timestamp_seconds'
               '{task=~".*[.]fulfill_order",site=~"$site"})', {900: 'orange', 3600: 'red'}, unit='s', nothing='none'),
        number('Parked', 'Messages that wait for a person. See OrdersParked.',
               f'sum({PARKED})', {1: 'orange', 10: 'red'}),
        number('Waiting', 'Messages that will be retried; the causes are shown below.',
               f'sum({WAITING})', {}),
        number('Overdue', 'Open orders, mails and jobs without a report when one was due. See OrdersOverdue.',
               'sum(max by (state) (ecommerce_worker_overdue_orders))', {1: 'red'}, nothing='unknown'),
        number('Consuming workers', 'See WorkerAbsent.', 'sum(ecommerce_worker_consuming)', {}),
        number('Services not called', 'Hosts whose circuit breaker is open. See ServiceLeftAlone.',
               'sum(max by (host) (ecommerce_worker_circuit_state{state="open"}))', {1: 'orange'}),
        table('Processes', '1 for a process that is ready to do its work. See NotReady.',
              'max by (role, job, instance) (ecommerce_worker_ready)', 'Time'),
        table('Versions', 'Versions by process.',
              'max by (instance, version, python, celery, kombu) (ecommerce_worker_build_info)', 'Time', 'Value'),
        lines('Age of the pulse', 'Time since the last turn of the main loop of each process; after '
              'HEALTH_SECONDS it counts as dead.', (
                  'time() - max by (role, instance) (ecommerce_worker_pulse_timestamp_seconds)',
                  '{{role}} {{instance}}'), unit='s', limit=45),
    ],
    'Orders': [
        lines('Open', 'Orders, mails and jobs that are not finished, by state.',
              (f'sum by (state) ({OPEN})', '{{state}}'), stacked=True),
        lines('Parked, by cause', 'Each waits until a person resends or discards it.',
              (f'sum by (cause) ({PARKED})', '{{cause}}'), stacked=True),
        lines('Waiting, by cause', 'Each will be retried.',
              (f'sum by (cause) ({WAITING})', '{{cause}}'), stacked=True),
        lines('Runs per minute, by outcome', '', (
            a_minute('outcome', 'runs_total', CHOSEN), '{{outcome}}'), stacked=True),
        lines('Unsuccessful runs per minute, by cause', '', (a_minute(
            'cause', 'runs_total', f'outcome!~"done|skipped",{CHOSEN}'), '{{cause}}'), stacked=True),
        lines('Messages per minute without a run', 'Parked, or returned to their queue.',
              (a_minute('outcome, cause', 'messages_without_run_total', 'queue=~"$queue"'), '{{outcome}} {{cause}}')),
        lines('Tries until done', 'Number of tries of messages that were done.',
              (share(.5, 'attempts', where='outcome="done"'), 'median'),
              (share(.99, 'attempts', where='outcome="done"'), '99th percentile')),
        lines('Oldest, by task', 'Age of the oldest message that is not finished.',
              ('time() - min by (task) (ecommerce_worker_oldest_open_timestamp_seconds{site=~"$site"})', '{{task}}'),
              unit='s'),
        lines('Overdue', 'trying: the end of a run was not reported; waiting: the next try was not reported.',
              ('max by (state) (ecommerce_worker_overdue_orders)', '{{state}}'), limit=1),
    ],
    'Delay': [
        lines('From publishing to the first run', 'For messages with a publishing time: those of intakes, beat and '
              'resubmit, and those of shops if RabbitMQ adds timestamps.',
              (share(.5, 'first_run_delay_seconds', 'queue', 'queue=~"$queue"'), '{{queue}}, median'),
              (share(.95, 'first_run_delay_seconds', 'queue', 'queue=~"$queue"'), '{{queue}}, 95th percentile'),
              unit='s'),
        lines('Duration of runs, 95th percentile', '', (share(.95, 'run_duration_seconds', 'task'), '{{task}}'),
              unit='s'),
        lines('Delay of the next try, 95th percentile', 'By cause of the retry.',
              (share(.95, 'next_try_delay_seconds', 'cause'), '{{cause}}'), unit='s'),
        lines('Messages in queues', 'waiting room: messages that wait for their next try. See QueueGrows, '
                                    'WaitingGrows.',
              ('max by (queue) (ecommerce_worker_queue_messages)', '{{queue}}'), width=12),
        lines('Consumers of queues', 'See NobodyConsumes.', (
            'max by (queue) (ecommerce_worker_queue_consumers)', '{{queue}}'), width=12),
    ],
    'Shops, LMS, vendors': [
        lines('Circuit breakers that are not closed', 'open: the host is not called; half_open: a few calls '
              'probe it.', ('max by (host, state) (ecommerce_worker_circuit_state{state!="closed"})',
                         '{{host}} {{state}}')),
        lines('Changes of circuit breakers', '', (
            f'sum by (host, state) ({GROWTH % "circuit_changes_total"})', '{{host}} {{state}}')),
        lines('Calls per minute, by status', 'none: no answer.', (
            a_minute('host, status_class', 'http_request_duration_seconds_count'), '{{host}} {{status_class}}'),
            stacked=True),
        lines('Time to answer, 95th percentile', '', (
            share(.95, 'http_request_duration_seconds', 'host, method'), '{{host}} {{method}}'), unit='s', width=12),
        lines('Token fetches per minute', 'By host, and by cause of failure.', (
            a_minute('host, cause', 'token_fetches_total'), '{{host}} {{cause}}'), width=12),
    ],
    'Threads': [
        lines('Busy threads, by what they wait for', 'threads: the maximum.',
              ('sum by (lane) (ecommerce_worker_busy_threads)', '{{lane}}'),
              ('sum(ecommerce_worker_threads)', 'threads')),
        lines('Messages waiting for a thread', '', (
            'sum by (instance) (ecommerce_worker_waiting_in_hand)', '{{instance}}')),
        lines('Oldest run', '', ('max by (instance) (ecommerce_worker_oldest_run_seconds)', '{{instance}}'), unit='s'),
    ],
    'RabbitMQ: publishing and confirms': [
        lines('Time to confirm, 95th percentile', 'parked, waiting, queued: messages; fact: a batch of reports '
              'for the ledger.', (share(.95, 'publish_confirm_seconds', 'kind'), '{{kind}}'), unit='s'),
        lines('Confirmed per minute', '', (a_minute('kind', 'publish_confirm_seconds_count'), '{{kind}}')),
        lines('Not confirmed per minute', 'Rejected, or unconfirmed when a connection was lost; published again.',
              (a_minute('kind', 'publish_failures_total'), '{{kind}}')),
        lines('Messages that RabbitMQ does not accept', 'The worker keeps them. See MessagesUnpublished.', (
            'sum by (instance) (ecommerce_worker_unpublished_messages)', '{{instance}}'), width=6, limit=1),
        lines('New connections', 'See BrokerFlapping.', (
            f'sum by (instance) ({GROWTH % "connections_total"})', '{{instance}}'), width=6),
        lines('Unconfirmed reports', '', (
            'sum by (instance) (ecommerce_worker_facts_pending)', '{{instance}}'), width=6),
        lines('Dropped reports', 'See FactsLost.', (
            f'sum by (instance) ({GROWTH % "facts_dropped_total"})', '{{instance}}'), width=6),
    ],
    'Ledger and schedule': [
        lines('Reports waiting for a recorder', 'See RecorderBehind.', (
            'max(ecommerce_worker_queue_messages{queue="ecommerce.ledger"})', 'reports'), limit=10_000),
        lines('Missing reports', 'lost: never arrived, in seven days; set aside: not readable by this version.',
              ('max(ecommerce_worker_lost_facts)', 'lost'), ('max(ecommerce_worker_set_aside_facts)', 'set aside'),
              limit=1),
        lines('Time since the last sign of life of beat', 'See BeatSilent.', (
            'time() - max(ecommerce_worker_beat_timestamp_seconds)', 'beat'), unit='s', limit=300),
        lines('Time since the last firing of a job was due', '', (
            'time() - max by (entry) (ecommerce_worker_job_fired_timestamp_seconds)', '{{entry}}'), unit='s', width=12),
        lines('Overdue jobs', 'See ScheduleOverdue.', (
            'time() - max by (entry) (ecommerce_worker_overdue_job_timestamp_seconds)', '{{entry}}'), unit='s',
            width=12, limit=600),
    ],
    'Intake': [
        lines('Deliveries per minute', 'By intake and result.', (
            a_minute('intake, state', 'intake_deliveries_total'), '{{intake}} {{state}}'), width=WIDTH),
    ],
    'Processes': [
        lines('CPUs', '', (f'rate(process_cpu_seconds_total[$__rate_interval]) {OURS}', '{{job}} {{instance}}')),
        lines('Memory', '', (f'process_resident_memory_bytes {OURS}', '{{job}} {{instance}}'), unit='bytes'),
        lines('Starts within half an hour', 'See RestartLoop.', (
            f'changes(process_start_time_seconds[30m]) {OURS}', '{{job}} {{instance}}'), limit=4),
    ],
}


def placed() -> Iterator[Panel]:
    """All panels with their positions, from left to right, then down."""
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
    """A label of runs to filter by; its value is '' for orders without a site."""
    query = f'label_values(ecommerce_worker_runs_total, {name})'
    return {'name': name, 'label': label, 'type': 'query', 'datasource': SOURCE,
            'query': {'query': query, 'refId': name}, 'refresh': 2, 'sort': 1, 'multi': True, 'includeAll': True,
            'allValue': '.*', 'current': {'text': ['All'], 'value': ['$__all']}}


def dashboard() -> Panel:
    """The dashboard, in Grafana's classic form (schema 39, of Grafana 10 and later)."""
    return {
        'uid': 'ecommerce-worker', 'title': 'Order fulfilment', 'tags': ['ecommerce-worker'], 'schemaVersion': 39,
        'description': 'Whether orders are fulfilled, and if not, why. What to do: docs/how-to/answer-alerts.rst.',
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
