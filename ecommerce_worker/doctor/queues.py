"""The queues as RabbitMQ has them: types, arguments, and policies that would destroy orders.

AMQP does not show these.  The management plugin does (``MANAGEMENT_URL``), and so does ``rabbitmqctl`` on a node.
"""

from __future__ import annotations

import base64
import http.client
import json
import re
import subprocess
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote, urlsplit

from ecommerce_worker.broker import topology
from ecommerce_worker.broker.preflight import POLICIES
from ecommerce_worker.doctor.lines import Line, bad, unknown, warning, well
from ecommerce_worker.errors import WorkerError
from ecommerce_worker.settings import environment_for_others
from ecommerce_worker.words import full_stop

if TYPE_CHECKING:
    from kombu import Connection

    from ecommerce_worker.settings import Settings

#: Seconds for the management plugin to answer.
PATIENCE: Final = 15

#: Seconds for rabbitmqctl, which starts an Erlang first; that takes a while where the machine is busy.
CTL_PATIENCE: Final = 60

#: Bytes that are read of the management plugin's answer, at most.
LARGEST: Final = 16 * 1024 * 1024

#: As often as a message may come back before it is said to be too seldom.
FEW: Final = 1000


class Unseen(WorkerError):
    """The queues cannot be looked at this way."""


@dataclass(frozen=True)
class Queue:
    """A queue; ``policy`` is what all policies and arguments come to, by the names that policies have."""

    name: str
    kind: str = 'classic'
    policy: Mapping[str, Any] = field(default_factory=dict)


def look(connection: Connection, settings: Settings) -> Iterator[Line]:
    """What policies and arguments do to our queues."""
    if not topology.is_rabbitmq(connection):
        return
    try:
        found = seen(connection, settings)
    except Unseen as error:
        yield unknown('policies', full_stop(f'The policies cannot be checked: {error}'),
                      'Set MANAGEMENT_URL, or run this on a RabbitMQ node as its user.')
        return
    ours = {*settings.QUEUES, topology.PARKED, topology.LEDGER, *topology.waiting_room(connection)}
    if not any(queue.name in ours for queue in found):
        yield unknown('policies', 'RabbitMQ does not list any of our queues yet.',
                      'Start a worker, and run this again in a minute.')
        return
    lines = [line for queue in found if queue.name in ours
             for line in judged(queue, settings, topology.version(connection))]
    yield from lines or [well('policies', 'No policy destroys messages in our queues.')]


def seen(connection: Connection, settings: Settings) -> list[Queue]:
    """The queues of our virtual host; raises :class:`Unseen`."""
    host = connection.virtual_host or '/'
    if settings.MANAGEMENT_URL:
        # Of a queue that is new it has no statistics for some seconds, and knows nothing but its name.
        return [_queue(it, it['effective_policy_definition']) for it in _managed(settings.MANAGEMENT_URL, host)
                if 'effective_policy_definition' in it]
    return _controlled(host)


def _managed(url: str, host: str) -> list[dict[str, Any]]:
    parts = urlsplit(url)
    request = urllib.request.Request(  # noqa: S310 - http or https, which the setting makes sure of
        f'{parts.scheme}://{parts.netloc.rpartition("@")[2]}{parts.path.rstrip("/")}/api/queues/{quote(host, safe="")}')
    if parts.username:
        given = f'{unquote(parts.username)}:{unquote(parts.password or "")}'
        # Not for whom a redirect names.
        request.add_unredirected_header('Authorization', f'Basic {base64.b64encode(given.encode()).decode()}')
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:  # noqa: S310 - as above
            return _listed(answer.read(LARGEST))
    except urllib.error.HTTPError as error:
        raise Unseen(f'the management plugin answered {error.code}; does the user have the tag monitoring?') from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Unseen(f'the management plugin does not answer ({type(error).__name__})') from None


def _controlled(host: str) -> list[Queue]:
    """With ``rabbitmqctl``, which shows the policy of a queue, but not its operator policy."""
    policies = {it.get('name'): it for it in _ctl('list_policies', host)}
    operators = sorted(_ctl('list_operator_policies', host), key=lambda it: -int(it.get('priority') or 0))
    found = _ctl('list_queues', host, 'name', 'type', 'arguments', 'policy')
    return [_queue(it, {**_definition(policies.get(it.get('policy'), {})),
                        **_definition(next((each for each in operators if _applies(each, it)), {}))}) for it in found]


def _applies(policy: Mapping[str, Any], queue: Mapping[str, Any]) -> bool:
    if policy.get('apply-to') not in ('all', 'queues', f'{_kind(queue)}_queues'):
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            return bool(re.search(str(policy.get('pattern')), str(queue.get('name'))))
    except (re.error, FutureWarning):
        # RabbitMQ reads patterns as Erlang does, which knows more of them, such as [[:alpha:]].
        raise Unseen(f'only RabbitMQ can read the pattern of the operator policy {policy.get("name")}; set '
                     'MANAGEMENT_URL') from None


def _ctl(command: str, host: str, *columns: str) -> list[dict[str, Any]]:
    try:
        done = subprocess.run(  # noqa: S603 - the name of our virtual host is all that is given
            ['rabbitmqctl', '--quiet', '--formatter', 'json', command, '--vhost', host, *columns],  # noqa: S607
            env=environment_for_others(also='RABBITMQ_|ERL_'), capture_output=True, timeout=CTL_PATIENCE, check=False)
        if done.returncode:
            raise Unseen('rabbitmqctl cannot reach a node from this machine')
        return _listed(done.stdout)
    except FileNotFoundError:
        raise Unseen('MANAGEMENT_URL is not set, and rabbitmqctl is not installed on this machine') from None
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise Unseen(f'rabbitmqctl does not answer ({type(error).__name__})') from None


def _definition(policy: Mapping[str, Any]) -> dict[str, Any]:
    """What a policy says; versions differ in whether it is JSON within JSON."""
    found = policy.get('definition')
    return dict(_pairs(json.loads(found) if isinstance(found, str) else found))


def _kind(queue: Mapping[str, Any]) -> str:
    return str(queue.get('type') or 'classic').rpartition('rabbit_')[2].removesuffix('_queue')


def _listed(text: bytes) -> list[dict[str, Any]]:
    found = json.loads(text)
    if not isinstance(found, list):
        raise ValueError('not a list')
    return [it for it in found if isinstance(it, dict)]


def _queue(found: Mapping[str, Any], policy: Any) -> Queue:
    # rabbitmqctl has arguments as lists of [name, type, value].
    arguments = {name.removeprefix('x-'): value for name, value in _pairs(found.get('arguments'))}
    return Queue(str(found.get('name')), _kind(found), {**dict(_pairs(policy)), **arguments})


def _pairs(found: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(found, Mapping):
        yield from ((str(name), value) for name, value in found.items())
    elif isinstance(found, list):
        yield from ((str(it[0]), it[-1]) for it in found if isinstance(it, list) and len(it) > 1)


def judged(queue: Queue, settings: Settings, version: tuple[int, ...]) -> Iterator[Line]:
    """What is wrong with one of our queues."""
    policy, name = queue.policy, queue.name
    is_facts, is_room = name == topology.LEDGER, name.startswith(f'{topology.PREFIX}_celery_delayed_')
    mend = 'Remove it from the policy (`rabbitmqctl list_policies`).'
    if 'expires' in policy:
        yield bad('policies', f'{name} is deleted with its messages when it is unused for a while (expires).',
                  mend)
    if 'message-ttl' in policy and not (is_facts or (is_room and policy['message-ttl'] == _delay_of(name))):
        yield bad('policies', f'Messages in {name} are destroyed after {int(policy["message-ttl"]) / 1000:g} s '
                  '(message-ttl).', mend)
    if any(limit in policy for limit in ('max-length', 'max-length-bytes')) and not is_facts:
        if policy.get('overflow') in ('reject-publish', 'reject-publish-dlx'):
            yield warning('policies', f'{name} rejects messages when it is full (max-length).',
                          'A shop that does not wait for confirms loses orders then. Remove the limit.')
        else:
            yield bad('policies', f'{name} drops its oldest messages when it is full (max-length).', mend)
    if queue.kind != 'quorum' or is_facts:
        return
    parks = (policy.get('dead-letter-exchange'), policy.get('dead-letter-routing-key')) == ('', topology.PARKED)
    limit = policy.get('delivery-limit', 20 if version >= topology.LIMITS_DELIVERIES else None)
    if isinstance(limit, int) and 0 <= limit < FEW and not (parks and name in settings.QUEUES):
        yield bad('policies', f'{name} drops a message after {limit} redeliveries.', f'Set {POLICIES}.')


def _delay_of(room: str) -> int:
    return int(2 ** int(room.rpartition('_')[2]) * 1000)
