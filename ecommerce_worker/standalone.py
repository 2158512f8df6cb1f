"""A Celery application for third-party tasks, which appear in the ledger and the console of this worker.

::

    export.delay('A-1') ──► accepted ──► queue ──► a worker of this application ──► done, or parked
                                           ▲                   │
                                           └── waiting room ◄──┘

Its tasks are Celery's own, with ``delay`` and ``retry``; what carries them is ours.
"""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import celery
from typing_extensions import override

from ecommerce_worker import celery_app, runtime
from ecommerce_worker.broker import topology
from ecommerce_worker.broker.app import Application
from ecommerce_worker.broker.facts import Reporter
from ecommerce_worker.broker.wire import Call
from ecommerce_worker.errors import Misconfigured, Transient
from ecommerce_worker.execution import task
from ecommerce_worker.execution.delivery import DELIVERY
from ecommerce_worker.execution.outcomes import Then
from ecommerce_worker.settings import broker_scheme


class Task(task.Task):
    """A task as Celery has it: called directly it is a function, and what it returns to a worker is of no account.

    ``key`` may be given to ``@app.task``, and ``policy``.  What a service or this machine lacks is tried again by that
    policy, and so is what asks for it by ``retry`` or ``autoretry_for``; any other error parks the message.
    """

    abstract = True
    # To the checker, functions of a class are methods.
    policy = staticmethod(lambda site: site.fulfillment_policy)  # type: ignore[assignment]
    longest = staticmethod(lambda _: 0.0)  # type: ignore[assignment]
    key: ClassVar[str] = ''
    position = None
    site = None

    @override
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run it; outside of a worker as the function that it is."""
        if self.request.get(DELIVERY) is None:
            return celery.Task.__call__(self, *args, **kwargs)
        return super().__call__(*args, **kwargs)

    @override
    def retry(self, *args: Any, exc: BaseException | None = None, countdown: float | None = None, **_: Any) -> Any:
        """Have it tried again, by the policy, and not before ``countdown`` seconds are over."""
        reason = type(exc).__name__ if exc else 'no reason given'
        raise Transient(f'the task asked for a retry: {reason}', retry_after=countdown) from exc

    @override
    def lane_of(self, call: Call) -> str:
        """Each task is a lane."""
        return str(self.name)

    @override
    def follows(self, returned: Any) -> tuple[Then, ...]:
        """Nothing."""
        return ()


class Standalone(Application):
    """The application; what is published through it is reported as accepted."""

    task_cls = 'ecommerce_worker.standalone:Task'
    _reporter: Reporter | None = None

    @override
    def send_task(self, name: str, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Publish a call, and report that it was."""
        began = time.time()  # a worker may have it before we are back
        result = super().send_task(name, args, kwargs, **options)
        current = runtime.current().settings
        if not current.PUBLISH_FACTS or broker_scheme(current) != 'amqp':
            return result
        call = Call(name, result.id, args=tuple(args or ()), kwargs=dict(kwargs or {}))
        self._accepted().reported(task.accepted(
            self.tasks.get(name), call, str(options.get('queue') or self.conf.task_default_queue), began=began))
        return result

    def _accepted(self) -> Reporter:
        if self._reporter is None:
            self._reporter = Reporter(self, queue_type=runtime.current().settings.QUEUE_TYPE)
            os.register_at_fork(after_in_child=self._reporter.begin)
            atexit.register(self._reporter.end)
        return self._reporter


def made(queues: Sequence[str]) -> Application:
    """The application whose worker consumes these queues, and whose tasks go to the first of them.

    Raises :class:`~ecommerce_worker.errors.Misconfigured`.
    """
    if isinstance(queues, str) or not queues:
        raise Misconfigured(['application(queues=[...]) needs a list of one or more queue names'])
    current = runtime.current().settings
    app = celery_app.create_app(current, Standalone)
    app.conf.update(
        imports=(), task_queues=_declared(queues, current.QUEUE_TYPE), task_default_queue=queues[0],
        task_default_exchange=queues[0], task_default_routing_key=queues[0])
    return app


def _declared(queues: Iterable[str], queue_type: str) -> list[Any]:
    return [topology.task_queue(name, queue_type) for name in queues]
