"""The pages; other modules query what they show."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final
from urllib.parse import urlencode

from django.conf import settings as django_settings
from django.contrib import messages
from django.contrib.auth.decorators import permission_required
from django.core.exceptions import PermissionDenied
from django.http import Http404
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from ecommerce_worker import celery_app, runtime
from ecommerce_worker.clients.ecommerce import ORDER_NUMBER
from ecommerce_worker.console import deciding, drafts
from ecommerce_worker.console import queries as figures
from ecommerce_worker.console.alarms import alarms
from ecommerce_worker.console.schedule import jobs
from ecommerce_worker.console.text import sentence
from ecommerce_worker.console.watch import PATIENCE, Watch
from ecommerce_worker.durations import span
from ecommerce_worker.enrolment.learner import pseudonyms
from ecommerce_worker.health import broker, ledger, schedule, spool, workers
from ecommerce_worker.health.standing import Standing
from ecommerce_worker.ledger import decisions, queries
from ecommerce_worker.ledger.schedule_store import LedgerFirings
from ecommerce_worker.ledger.words import kind_of, outcome_of, state_of
from ecommerce_worker.schedule.claims import CLAIM_SECONDS
from ecommerce_worker.telemetry import tally
from ecommerce_worker.telemetry.run import RunReport
from ecommerce_worker.words import counted, short_name

Context = dict[str, Any]


#: Seconds that workers are given to answer.
ANSWER_SECONDS: Final = 3.0


@cache
def _broker() -> Watch[broker.Broker]:
    return Watch(lambda: broker.ask(runtime.current().settings, PATIENCE), lambda why: broker.Broker(problem=why))


@cache
def _workers() -> Watch[workers.Workers | None]:
    # It always takes all of these seconds: no page waits for that.
    return Watch(lambda: workers.ask(celery_app.app, _broker().look().queues, ANSWER_SECONDS),
                 lambda why: None, 0)  # noqa: ARG005


def standing(orders: str, parked: str) -> Context:
    """The alarms at the top of each page, and the standing they come from; ``orders`` and ``parked`` are the URLs of
    those lists.
    """
    now, settings = datetime.now(UTC), runtime.current().settings
    seen = _broker().look()
    found = Standing(
        tuple(settings.QUEUES), seen, _workers().look() if seen.consumers and seen.takes_messages else None,
        ledger.read(settings),
        schedule.look(celery_app.app, settings, lambda: LedgerFirings(CLAIM_SECONDS), now.timestamp()),
        spool.look(settings))
    paths = {'orders': f'{orders}?state={figures.OVERDUE}', 'parked': parked}
    return {'now': now, 'standing': found, 'alarms': list(alarms(found.findings, paths))}


@require_safe
def front(request: Any, context: Context) -> Any:
    """The front page."""
    now, planned, found = context['now'], context['standing'].schedule, figures.figures(context['now'])
    return render(request, 'console/front.html', {
        **context, 'title': 'How things stand', 'figures': found, 'broker': context['standing'].broker,
        'schedule': planned, 'queued': sum(queue.messages for queue in context['standing'].broker.queues),
        'others': [(name, [(count, state_of(state, '')) for state, count in sorted(states.items())])
                   for name, states in (('Enrolments', found.enrolments), ('Mails', found.mails), ('Jobs', found.jobs),
                                        ('Tasks', found.tasks))
                   if states],
        'jobs': [(job, short_name(job.task), job.ended and outcome_of(job.ended.outcome, job.task))
                 for job in jobs(celery_app.app, planned, now)],
        'beat_age': '' if planned.silent is None else span(planned.silent),
        'oldest_age': span((now - found.oldest.first_seen).total_seconds()) if found.oldest else '',
        'oldest_sentence': sentence(found.oldest, now) if found.oldest else '',
        'reasons': [(short_name(task), reason, count, urlencode({'task': task, 'reason': reason}))
                    for task, reason, count in found.reasons]})


#: The states that orders can be filtered by, and the words for them.
STATES: Final = (('', 'all'), ('trying', 'with a worker'), ('waiting', 'waiting'), ('parked', 'parked'),
                 (figures.OVERDUE, 'overdue'), ('fulfilled', 'fulfilled'), ('discarded', 'given up'))


@require_http_methods(['GET', 'HEAD', 'POST'])
def orders(request: Any, context: Context) -> Any:
    """Search results; without a search, all orders or those in one state, a page at a time.

    A search is posted, since proxies log URLs, in which no address may stand; for any other text that leads to the URL
    of its results.
    """
    posted = request.method == 'POST'
    text, state = figures.clean((request.POST if posted else request.GET).get('q', '')), request.GET.get('state', '')
    if posted and '@' not in text:
        return redirect(f'{reverse("admin:orders")}?{urlencode({"q": text})}')
    page = _page_of(request)
    if state not in dict(STATES):
        state = ''
    learners = pseudonyms(runtime.current().settings, text) if '@' in text else ()
    if text:
        found = queries.search(text, learners)
        if len(found) == 1:
            return redirect('admin:order', found[0].number)
        count = len(found)
    else:
        found, count = figures.orders(state, page)
    now = datetime.now(UTC)
    return render(request, 'console/orders.html', {
        **context, 'title': f'Orders like {text}' if text else 'Orders', 'q': text, 'most': queries.MOST,
        'state': state, 'states': STATES, 'count': count, 'page': page, 'is_number': bool(ORDER_NUMBER.fullmatch(text)),
        'is_mail': '@' in text, 'finds_learners': bool(learners), 'query': urlencode({'state': state} if state else {}),
        'previous': page - 1 if page > 1 and not text else None,
        'following': page + 1 if page * figures.PAGE < count and not text else None,
        'rows': [(entry, kind_of(entry.task), sentence(entry, now)) for entry in found]})


def _page_of(request: Any) -> int:
    """The requested page of a list; the first is 1."""
    given = request.GET.get('page', '')
    return max(1, int(given)) if given.isascii() and given.isdigit() and len(given) < 7 else 1


@require_safe
def order(request: Any, context: Context, number: int) -> Any:
    """Everything about one order."""
    story = queries.story(number)
    if story is None:
        raise Http404
    now = datetime.now(UTC)
    return render(request, 'console/order.html', {
        **context, 'title': story.order.key, 'story': story, 'sentence': sentence(story.order, now), 'now': now,
        'events': [(it, outcome_of(it.outcome if isinstance(it, RunReport) else it.action, story.order.task))
                   for it in story.events],
        'lines': [(line, short_name(line.task), sentence(line, now)) for line in story.lines],
        'task': short_name(story.order.task), 'parked': figures.parked_of(number), 'draft': drafts.of(request)})


@require_safe
def intakes(request: Any, context: Context) -> Any:
    """The deliveries of a day by intake, and the URLs for shops."""
    settings = runtime.current().settings
    nobody, shown = figures.intakes(settings, context['now'])
    return render(request, 'console/intakes.html', {
        **context, 'title': 'Intakes', 'intakes': shown, 'nobody': nobody, 'states': tally.STATES})


@require_safe
def parked(request: Any, context: Context) -> Any:
    """The parked messages, with the form to resend or discard them."""
    wanted = figures.Wanted.of(request.GET)
    page = _page_of(request)
    rows, count = figures.parked(wanted, page)
    query = urlencode({name: value for name, value in vars(wanted).items() if value})
    return render(request, 'console/parked.html', {
        **context, 'title': 'Parked messages', 'wanted': wanted, 'rows': [(row, short_name(row.task)) for row in rows],
        'count': count, 'page': page, 'query': query, 'here': request.get_full_path(), 'draft': drafts.of(request),
        'tasks': [(task, short_name(task)) for task in figures.choices('task')], 'sites': figures.choices('site'),
        'reasons': figures.choices('reason'), 'previous': page - 1 if page > 1 else None,
        'following': page + 1 if page * figures.PAGE < count else None})


@require_safe
def parked_order(request: Any, context: Context, number: int) -> Any:  # noqa: ARG001
    """Redirect to the order that a parked message belongs to."""
    found = figures.order_of(number)
    if found is None:
        raise Http404
    return redirect('admin:order', found)


def decide(request: Any, context: Context) -> Any:  # noqa: ARG001
    """Resend or discard the selected messages, and return to the page with the form."""
    if request.method != 'POST':
        return redirect('admin:parked')  # after a login, say
    action, draft, back = request.POST.get('action', ''), drafts.given(request), _back(request)
    if action not in ACTIONS or not any(request.user.has_perm(f'console.{it}') for it in ACTIONS[action]):
        raise PermissionDenied
    if action in ('all', 'none'):
        chosen = drafts.numbers(request, 'shown') if action == 'all' else []
        drafts.keep(request, replace(draft, messages=chosen), back)
        return redirect(back)
    drafts.keep(request, draft, back)
    if not draft.messages:
        messages.error(request, 'Nothing was done: no message was selected.')
    elif not draft.reason:
        messages.error(request, 'Nothing was done: give a reason, for others to read later.')
    elif action == 'discard' and not draft.sure:
        messages.error(request, 'Nothing was done: tick "for good" next to the Discard button.')
    else:
        _decide(request, action, draft, back)
    return redirect(back)


#: The buttons of the form, and the permissions for each (any one will do); the last two only select.
ACTIONS: Final = {'resend': ('resend',), 'discard': ('discard',), 'all': ('resend', 'discard'),
                  'none': ('resend', 'discard')}


def log_in_again(request: Any) -> Any:
    """Keep the form of a user whose login expired, and return to its page after a login."""
    back = _back(request)
    if request.method == 'POST':
        drafts.keep(request, drafts.given(request), back)
        messages.error(request, 'Nothing was done: your login had expired. Your selection and reason are still there.')
    return redirect(f'{reverse("admin:login")}?{urlencode({"next": back})}')


def refused(request: Any, reason: str = '') -> Any:  # noqa: ARG001
    """The CSRF failure view: the cookie expired with the login, or the form is of another server."""
    ours = request.headers.get('Origin') in django_settings.CSRF_TRUSTED_ORIGINS
    if ours and request.method == 'POST' and request.path == reverse('admin:decide'):
        return log_in_again(request)
    return render(request, '403_csrf.html', {'title': 'Nothing was done'}, status=403)


def _decide(request: Any, action: str, draft: drafts.Draft, back: str) -> None:
    who = request.user.get_username()
    if action == 'resend':
        done, verb = deciding.resend(celery_app.app, draft.messages, who=who, reason=draft.reason), 'resent'
    else:
        done, verb = deciding.discard(draft.messages, who=who, reason=draft.reason), 'discarded'
    if done.left:
        drafts.keep(request, replace(draft, messages=done.left), back)
    else:
        drafts.drop(request)
    if done.count:
        messages.success(request, f'{counted(done.count, "message")} {verb}.')
    for trouble in done.troubles[:10]:
        messages.error(request, trouble)
    if len(done.troubles) > 10:
        messages.error(request, f'… and {len(done.troubles) - 10} more.')


def _back(request: Any) -> str:
    """The page named by the form, if it is on this server."""
    given: str = request.POST.get('back', '')
    ours = given.startswith('/') and url_has_allowed_host_and_scheme(given, allowed_hosts=None)
    return given if ours else reverse('admin:parked')


@require_POST
@permission_required('console.read', raise_exception=True)
def body(request: Any, context: Context, number: int) -> Any:
    """The contents of a parked message, which may be personal; the audit log records the view."""
    found = figures.one_parked(number)
    content = queries.body_of(number)
    if found is None or content is None:
        raise Http404
    decisions.write_down(request.user.get_username(), 'read', 'contents viewed', message_id=found.id,
                         key=found.key, task=found.task)
    return render(request, 'console/body.html', {
        **context, 'title': f'Message {found.id[:8]}', 'message': found,
        'text': content.decode(errors='backslashreplace')})
