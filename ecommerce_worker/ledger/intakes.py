"""The counts of intakes: written as their processes report them, and read by intake."""

from __future__ import annotations

import json
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Final

from django.db.models import Max
from django.db.models.functions import Now

from ecommerce_worker.ledger.models import IntakeHour, Webhook
from ecommerce_worker.telemetry import tally
from ecommerce_worker.telemetry.tally import Tally

#: For how long deliveries are counted together.
DAY: Final = timedelta(hours=24)

#: From how far back it is known how often something comes by an intake; in how many hours something must have come, and
#: over how long a time; and how long a silence is at least that is one.
RHYTHM, ENOUGH, WEEK, SHORTEST_SILENCE = timedelta(days=28), 20, timedelta(days=7), timedelta(hours=6)

#: The time within which each running process reports each of its intakes: some minutes.
ALIVE: Final = timedelta(minutes=3)


@dataclass
class Summary:
    """The counts of all processes for an intake within a day, and its configuration as last reported.

    ``counts`` has states, reasons and numbers; ``last`` is when a genuine delivery came last, ``heard`` when a process
    last reported it, ``processes`` how many are running, ``p99`` under how many milliseconds 99 of 100 answers were.
    """

    intake: str
    kind: str = ''
    url: str = ''
    state: str = ''
    test_orders: str = ''
    counts: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    times: list[int] = field(default_factory=lambda: [0] * (len(tally.BOUNDS) + 1))
    last: datetime | None = None
    heard: datetime | None = None
    processes: int = 0

    @property
    def totals(self) -> Mapping[str, int]:
        """The number of deliveries by state."""
        return {state: sum(self.counts[state].values()) if state in self.counts else 0 for state in tally.STATES}

    @property
    def reasons(self) -> Sequence[tuple[str, str, int]]:
        """State, reason and number of deliveries that were not simply accepted, the most frequent first."""
        found = [(state, reason, number) for state, reasons in self.counts.items() for reason, number in reasons.items()
                 if reason]
        return sorted(found, key=lambda it: (-it[2], it[:2]))

    @property
    def p99(self) -> str:
        """In words; '' if nothing was answered."""
        if not sum(self.times):
            return ''
        bound = tally.percentile(self.times, 0.99)
        return f'{bound} ms or less' if bound else f'more than {tally.BOUNDS[-1]} ms'


def write(tallies: Iterable[Tally], now: float) -> None:
    """Write them; of several tallies of a process for an intake and an hour the latest counts."""
    newest: dict[uuid.UUID, Tally] = {}
    for each in tallies:
        identity = uuid.uuid5(uuid.NAMESPACE_OID, json.dumps([each.process, each.intake, each.hour]))
        if identity not in newest or newest[identity].number < each.number:
            newest[identity] = each
    rows = {row.identity: row for row in
            IntakeHour.objects.select_for_update().filter(identity__in=list(newest)).order_by('pk')} if newest else {}
    for identity, each in sorted(newest.items()):
        row = rows.get(identity) or IntakeHour(identity=identity, number=-1)
        if each.number <= row.number:
            continue
        for name in (*tally.TEXTS, 'number'):
            setattr(row, name, getattr(each, name))
        row.hour = each.begins
        row.counts, row.times = json.dumps(each.counts), json.dumps(each.times)
        row.last = None if each.last is None else datetime.fromtimestamp(min(each.last, now), UTC)
        row.heard = Now()
        row.save()


def silences(now: datetime) -> dict[str, timedelta]:
    """How long intakes have been silent, of those that usually get genuine deliveries more often."""
    found: dict[str, list[tuple[datetime, datetime]]] = defaultdict(list)
    hours = IntakeHour.objects.filter(hour__gt=now - RHYTHM, last__isnull=False).order_by('hour')
    for intake, hour, last in hours.values_list('intake', 'hour').annotate(latest=Max('last')):
        found[intake].append((hour, last))
    return {intake: silence for intake, times in found.items() if (silence := unusual(
        [hour for hour, _ in times], max(last for _, last in times), now))}


def unusual(hours: Sequence[datetime], last: datetime, now: datetime) -> timedelta | None:
    """The silence since ``last``, if it is longer than usual; ``hours`` are those in which something came, in order.

    Usual is half as long again as the longest silence that there was; a rhythm has some days, and some deliveries.
    """
    if len(hours) < ENOUGH or hours[-1] - hours[0] < WEEK:
        return None
    longest = max(later - earlier for earlier, later in pairwise(hours))
    silence = now - last
    return silence if silence > max(SHORTEST_SILENCE, longest * 3 / 2) else None


def write_webhooks(seen: Mapping[str, str], now: datetime) -> None:
    """Store the problems of the webhooks of these intakes, '' for none, as seen at this time."""
    for intake, problem in seen.items():
        Webhook.objects.update_or_create(intake=intake, defaults={'problem': problem[:1000], 'seen': now})


def dead_webhooks() -> list[tuple[str, str, datetime]]:
    """Intake, problem, and when it was seen, for each webhook that delivers nothing."""
    return list(Webhook.objects.exclude(problem='').order_by('intake').values_list('intake', 'problem', 'seen'))


def summaries(now: datetime) -> list[Summary]:
    """The counts of the last day by intake, sorted by name."""
    found: dict[str, Summary] = {}
    alive: dict[str, set[str]] = defaultdict(set)
    for row in IntakeHour.objects.filter(hour__gt=now - DAY).order_by('heard', 'pk'):
        it = found.setdefault(row.intake, Summary(row.intake))
        # The most recently reported ones come last.
        it.kind, it.url, it.state, it.test_orders, it.heard = row.kind, row.url, row.state, row.test_orders, row.heard
        for state, reasons in json.loads(row.counts).items():
            it.counts[state].update(reasons)
        for span, count in enumerate(json.loads(row.times)):
            it.times[span] += count
        it.last = max(filter(None, (it.last, row.last)), default=None)
        if now - row.heard < ALIVE:
            alive[row.intake].add(row.process)
    for name, it in found.items():
        it.processes = len(alive[name])
    return [found[name] for name in sorted(found)]
