"""The pages; what they show is asked for elsewhere."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.contrib.auth.decorators import permission_required
from django.core.exceptions import PermissionDenied
from django.http import Http404
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_POST, require_safe

from ecommerce_worker import celery_app, runtime
from ecommerce_worker.console import broker, deciding
from ecommerce_worker.console import queries as figures
from ecommerce_worker.console.schedule import schedule
from ecommerce_worker.console.text import sentence, short, span
from ecommerce_worker.ledger import decisions, queries
from ecommerce_worker.ledger.models import State

Context = dict[str, Any]


@cache
def _watch() -> broker.Watch:
    return broker.Watch(lambda: broker.ask(runtime.current().settings))


@require_safe
def front(request: Any, context: Context) -> Any:
    """How things stand."""
    now = datetime.now(UTC)
    found = figures.figures(now)
    planned = schedule(celery_app.app, runtime.current().settings, now)
    return render(request, 'console/front.html', {
        **context, 'title': 'How things stand', 'figures': found, 'standing': _watch().look(), 'now': now,
        'schedule': planned, 'jobs': [(job, short(job.task)) for job in planned.jobs],
        'beat_age': span(now - planned.ticked) if planned.ticked else '',
        'oldest_age': span(now - found.oldest.first_seen) if found.oldest else '',
        'oldest_sentence': sentence(found.oldest, now) if found.oldest else '',
        'reasons': [(short(task), reason, count, urlencode({'task': task, 'reason': reason}))
                    for task, reason, count in found.reasons]})


@require_safe
def orders(request: Any, context: Context) -> Any:
    """What a search finds, or the orders of a state of which nothing was heard for the longest time."""
    text, state = figures.clean(request.GET.get('q', '')), request.GET.get('state', '')
    if text:
        found = queries.search(text)
        if len(found) == 1:
            return redirect('admin:order', found[0].number)
    else:
        found = queries.orders(state=state) if state in set(State) else []
    now = datetime.now(UTC)
    return render(request, 'console/orders.html', {
        **context, 'title': f'Orders like {text}' if text else f'Orders: {state}', 'q': text, 'most': queries.MOST,
        'rows': [(entry, short(entry.task), sentence(entry, now)) for entry in found]})


@require_safe
def order(request: Any, context: Context, number: int) -> Any:
    """All about one order."""
    story = queries.story(number)
    if story is None:
        raise Http404
    now = datetime.now(UTC)
    return render(request, 'console/order.html', {
        **context, 'title': story.order.key, 'story': story, 'sentence': sentence(story.order, now), 'now': now,
        'task': short(story.order.task), 'parked': figures.parked_of(number)})


@require_safe
def parked(request: Any, context: Context) -> Any:
    """The parked messages, with what may be done about them."""
    wanted = figures.Wanted.of(request.GET)
    given = request.GET.get('page', '')
    page = int(given) if given.isascii() and given.isdigit() and 0 < len(given) < 7 else 1
    rows, count = figures.parked(wanted, max(1, page))
    query = urlencode({name: value for name, value in vars(wanted).items() if value})
    return render(request, 'console/parked.html', {
        **context, 'title': 'Parked messages', 'wanted': wanted, 'rows': [(row, short(row.task)) for row in rows],
        'count': count, 'page': page, 'query': query, 'here': f'{request.path}?{query}',
        'chosen': request.GET.get('choose') == 'all',
        'tasks': [(task, short(task)) for task in figures.choices('task')], 'sites': figures.choices('site'),
        'reasons': figures.choices('reason'), 'previous': page - 1 if page > 1 else None,
        'following': page + 1 if page * figures.PAGE < count else None})


@require_safe
def parked_order(request: Any, context: Context, number: int) -> Any:  # noqa: ARG001
    """To the order that a parked message belongs to."""
    found = figures.order_of(number)
    if found is None:
        raise Http404
    return redirect('admin:order', found)


@require_POST
def decide(request: Any, context: Context) -> Any:  # noqa: ARG001
    """Resend or discard the chosen messages, and go back to where this was asked."""
    action, reason = request.POST.get('action', ''), figures.clean(request.POST.get('reason', ''))
    numbers = [int(given) for given in request.POST.getlist('message')[:figures.PAGE]
               if given.isascii() and given.isdigit() and len(given) < 19]
    if action not in ('resend', 'discard') or not request.user.has_perm(f'console.{action}'):
        raise PermissionDenied
    if not numbers:
        messages.error(request, 'Nothing was done: no message was chosen.')
    elif not reason:
        messages.error(request, 'Nothing was done: say why, so that others can read it later.')
    elif action == 'discard' and not request.POST.get('sure'):
        messages.error(request, 'Nothing was done: tick "for good" beside the button to discard.')
    else:
        _decide(request, action, numbers, reason)
    return redirect(_back(request))


def _decide(request: Any, action: str, numbers: list[int], reason: str) -> None:
    who = request.user.get_username()
    if action == 'resend':
        done, verb = deciding.resend(celery_app.app, numbers, who=who, reason=reason), 'sent again'
    else:
        done, verb = deciding.discard(numbers, who=who, reason=reason), 'thrown away'
    if done.count:
        messages.success(request, f'{done.count} message{"" if done.count == 1 else "s"} {verb}.')
    for trouble in done.troubles[:10]:
        messages.error(request, trouble)
    if len(done.troubles) > 10:
        messages.error(request, f'… and {len(done.troubles) - 10} more.')


def _back(request: Any) -> str:
    """A page of ours that the form named; never another server's."""
    given: str = request.POST.get('back', '')
    ours = given.startswith('/') and url_has_allowed_host_and_scheme(given, allowed_hosts=None)
    return given if ours else reverse('admin:parked')


@require_POST
@permission_required('console.read', raise_exception=True)
def body(request: Any, context: Context, number: int) -> Any:
    """What is in a parked message, which may be personal; that it was read is put on record."""
    found = figures.one_parked(number)
    content = queries.body_of(number)
    if found is None or content is None:
        raise Http404
    decisions.write_down(request.user.get_username(), 'read', 'its contents were looked at', message_id=found.id,
                         key=found.key, task=found.task)
    return render(request, 'console/body.html', {
        **context, 'title': f'Message {found.id[:8]}', 'message': found,
        'text': content.decode(errors='backslashreplace')})
