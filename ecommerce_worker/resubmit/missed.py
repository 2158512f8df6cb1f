"""Orders whose deliveries never came: their shops are asked, and what is not in the ledger is published.

::

    shop's API ──► what it would have delivered ──► the intake's own reading of it ──► in the ledger? ──no──► queue
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from ecommerce_worker import runtime
from ecommerce_worker.broker import facts, publishing
from ecommerce_worker.broker.notes import Notes
from ecommerce_worker.errors import ApiError, NotPublished, Rejected, Undecodable, WrongArguments
from ecommerce_worker.execution.task import accepted
from ecommerce_worker.resubmit.report import Report

if TYPE_CHECKING:
    from celery import Celery

    from ecommerce_worker.broker.wire import Call
    from ecommerce_worker.clients.shops import Webhook
    from ecommerce_worker.intake.intakes import Intake

#: Which of some order numbers the ledger has, for a task.
Came = Callable[[Collection[str], str], Collection[str]]


@dataclass(frozen=True)
class Missed:
    """An order that never came, and what became of it now."""

    intake: str
    number: str
    result: str
    published: bool = False


@dataclass
class Reconciled(Report):
    """What never came, what stood in the way, and how many orders were looked at."""

    missed: list[Missed] = field(default_factory=list)
    looked_at: int = 0
    #: What is wrong with the webhooks of intakes, '' for nothing; only of those that could be seen.
    webhooks: dict[str, str] = field(default_factory=dict)

    @override
    def as_json(self) -> dict[str, Any]:
        """As programs read it; see the reference of commands."""
        return {'orders': [{'order': it.number, 'intake': it.intake, 'result': it.result, 'published': it.published}
                           for it in self.missed],
                'looked_at': self.looked_at, 'published': self.published, 'troubles': self.troubles}


@dataclass(frozen=True)
class Wish:
    """What is wanted: orders changed within ``since`` seconds and not within ``grace``, of intakes of these names."""

    since: float
    grace: float
    names: Collection[str] = ()
    dry_run: bool = False
    repair: bool = False


def reconcile(app: Celery, intakes: Mapping[str, Intake], came: Came, wish: Wish, url: str) -> Reconciled:
    """Ask the shops of the intakes; ``url`` is where those are reached.  Needs the whole ledger behind ``came``.

    A shop that cannot be asked is among the troubles, and asked again by the next run, which goes back as far.
    """
    report, now = Reconciled(), time.time()
    for it in intakes.values():
        if it.state != 'live' or (wish.names and it.name not in wish.names):
            continue
        try:
            try:
                shop = it.source.shop(runtime.site(it.site or None).connect)
            except ValueError as error:
                report.troubles.append(f'{it.name}: a secret of its API {error}')
                continue
            if shop is None:
                if it.name in wish.names:
                    report.troubles.append(f'{it.name}: INTAKES has no key to the API of this shop')
                continue
            _look_at_webhook(it, shop, url + it.path, wish, report)
            calls = dict(_calls(it, shop, now - wish.since, now - wish.grace, report))
        except ApiError as error:
            report.blame(it.name, error)
            continue
        _publish_missing(app, it, calls, came, report, dry_run=wish.dry_run)
    return report


def _calls(it: Intake, shop: Any, since: float, until: float, report: Reconciled) -> Iterator[tuple[str, Call]]:
    """The calls that the intake would have made of it, by their ids."""
    for delivery in it.source.missed(shop, it.events, since, until):
        try:
            event = it.source.event(delivery)
            if it.ignores(event):
                continue
            report.looked_at += 1
            call = it.call(event)
        except (Undecodable, WrongArguments) as error:
            report.troubles.append(f'{it.name}: an order cannot be read: {error}')
            continue
        yield call.id, call


def _publish_missing(app: Celery, it: Intake, calls: Mapping[str, Call], came: Came, report: Reconciled, *,
                     dry_run: bool) -> None:
    heard: dict[str, set[str]] = {}
    for task in {call.task for call in calls.values()}:
        heard[task] = set(came({it.number(call) for call in calls.values() if call.task == task}, task))
    for call in calls.values():
        number = it.number(call)
        if number in heard[call.task]:
            continue
        heard[call.task].add(number)  # several events may be about one order
        if dry_run:
            report.missed.append(Missed(it.name, number, 'would be published', published=True))
            report.published += 1
            continue
        began = time.time()
        try:
            publishing.publish(app, publishing.new_call(call, Notes(queue=it.queue, ask=True, published=began)))
        except (NotPublished, WrongArguments) as error:
            report.troubles.append(f'{number}: {error}')
            continue
        reason = f'reconciled: {it.name} never delivered it'
        facts.tell(app, runtime.current().settings, accepted(app.tasks[call.task], call, it.queue, reason, began=began))
        report.missed.append(Missed(it.name, number, 'published', published=True))
        report.published += 1


def _look_at_webhook(it: Intake, shop: Any, url: str, wish: Wish, report: Reconciled) -> None:
    """Whether the shop would deliver to the intake at all; it is switched on again if that is wanted."""
    try:
        webhooks: list[Webhook] | None = shop.webhooks()
    except Rejected as error:
        # A key that may read orders and no webhooks is good for the orders.
        report.blame(f'{it.name}: its webhooks', error)
        return
    if webhooks is None:
        return
    ours = [each for each in webhooks if each.url.rstrip('/') == url]
    report.webhooks[it.name] = '' if ours else f'has no webhook to {url}'
    if not ours:
        report.troubles.append(f'{it.name}: the shop has no webhook to {url}, so it delivers nothing; the URL '
                               'is that of INTAKE_URL')
    for webhook in ours:
        if webhook.active:
            continue
        if wish.repair and not wish.dry_run:
            shop.switch_on(webhook)
            report.troubles.append(f'{it.name}: the shop had disabled its webhook {webhook.id}; it is enabled again')
        else:
            if not any(each.active for each in ours):
                report.webhooks[it.name] = f'has disabled its webhook {webhook.id}'
            report.troubles.append(f'{it.name}: the shop has disabled its webhook {webhook.id}, '
                                   'so it delivers nothing; reconcile --repair enables it')
