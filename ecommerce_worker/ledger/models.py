"""The models of the ledger.

::

    Order ──< Attempt           what became of it, run by run
      │
      └────< ParkedMessage      the message itself, for as long as a person has to decide
                  │
                  └──< Audit    who decided what

    Teller                      which reports of a process have arrived
    IntakeHour                  what a process has counted of an intake in an hour
    Webhook                     what was seen last of the webhook of an intake, at its shop
    Firing, BeatTick            what the beats share that fire the jobs of ``SCHEDULE``

Only :class:`ParkedMessage` holds personal data, and only until it is settled; of a learner an :class:`Order` has a
pseudonym.
"""

from enum import StrEnum

from django.db import models
from typing_extensions import override

from ecommerce_worker.telemetry.run import LENGTHS
from ecommerce_worker.telemetry.tally import TEXTS


class State(StrEnum):
    """The state of an order."""

    #: With a worker or queued for one, also after a resend.
    TRYING = 'trying'
    #: In RabbitMQ, for its next try.
    WAITING = 'waiting'
    #: Here, for a person to decide.
    PARKED = 'parked'
    FULFILLED = 'fulfilled'
    #: Discarded by a person.
    DISCARDED = 'discarded'


class Order(models.Model):
    """An order, mail or job: one key, one task, one site; a message without a key counts by its own id."""

    #: Made of key, task and site: one column to be unique by, whatever a database thinks of upper and lower case.
    identity = models.UUIDField(unique=True)
    key = models.CharField(max_length=LENGTHS['id'], db_index=True)
    task = models.CharField(max_length=LENGTHS['task'])
    site = models.CharField(max_length=LENGTHS['site'])
    state = models.CharField(max_length=10, default=State.TRYING.value)
    reason = models.CharField(max_length=LENGTHS['reason'])
    #: Why the last run did not do it, in a word of :data:`~ecommerce_worker.errors.CAUSES`; '' if it did.
    cause = models.CharField(max_length=LENGTHS['cause'], default='')
    #: The HTTP status that decided the last run.
    status = models.PositiveSmallIntegerField(null=True)
    next_try = models.DateTimeField(null=True)
    attempts = models.PositiveIntegerField(default=0)
    first_seen = models.DateTimeField()
    last_seen = models.DateTimeField()
    #: The time of its last report, by the clock of the database: those of workers may be wrong.
    heard = models.DateTimeField(null=True)
    #: What a line of an order is (:data:`~ecommerce_worker.telemetry.run.SEAT`); '' for all else.  No address is here:
    #: ``learner`` is a pseudonym, ``mask`` a few letters.
    order_number = models.CharField(max_length=LENGTHS['order_number'], default='')
    product = models.CharField(max_length=LENGTHS['product'], default='')
    course = models.CharField(max_length=LENGTHS['course'], default='')
    mode = models.CharField(max_length=LENGTHS['mode'], default='')
    learner = models.CharField(max_length=LENGTHS['learner'], default='', db_index=True)
    mask = models.CharField(max_length=LENGTHS['mask'], default='')

    class Meta:
        """Indexes."""

        indexes = (models.Index(fields=('state', 'last_seen'), name='order_state_last_seen'),
                   models.Index(fields=('state', 'first_seen'), name='order_state_first_seen'),
                   # A covering index for counting those that are overdue.
                   models.Index(fields=('state', 'next_try', 'heard'), name='order_state_next_try_heard'),
                   models.Index(fields=('state', 'task'), name='order_state_task'),
                   models.Index(fields=('last_seen',), name='order_last_seen'))

    @override
    def __str__(self) -> str:
        return f'{self.key} {self.state}'


class Attempt(models.Model):
    """One report."""

    fact = models.UUIDField(unique=True)
    order = models.ForeignKey(Order, models.CASCADE, related_name='facts')
    message_id = models.CharField(max_length=LENGTHS['id'], db_index=True)
    root_id = models.CharField(max_length=LENGTHS['root_id'])
    outcome = models.CharField(max_length=10)
    attempt = models.PositiveIntegerField()
    reason = models.CharField(max_length=LENGTHS['reason'])
    status = models.PositiveSmallIntegerField(null=True)
    queue = models.CharField(max_length=LENGTHS['queue'])
    worker = models.CharField(max_length=LENGTHS['worker'])
    started = models.DateTimeField()
    seconds = models.FloatField()
    next_try = models.DateTimeField(null=True)

    class Meta:
        """Indexes."""

        indexes = (models.Index(fields=('started', 'outcome'), name='attempt_started_outcome'),)

    @override
    def __str__(self) -> str:
        return f'{self.outcome} {self.started:%Y-%m-%d %H:%M:%S}'


class ParkedMessage(models.Model):
    """A message that a worker parked, unchanged; without its content once it is settled."""

    #: Made of its id and the time of its parking: a message that RabbitMQ delivers twice is one.
    identity = models.UUIDField(unique=True)
    order = models.ForeignKey(Order, models.SET_NULL, null=True, related_name='parked')
    message_id = models.CharField(max_length=LENGTHS['id'], db_index=True)
    task = models.CharField(max_length=LENGTHS['task'])
    key = models.CharField(max_length=LENGTHS['key'], db_index=True)
    site = models.CharField(max_length=LENGTHS['site'])
    queue = models.CharField(max_length=LENGTHS['queue'])
    reason = models.CharField(max_length=LENGTHS['reason'])
    tries = models.PositiveIntegerField()
    parked_at = models.DateTimeField()
    #: What happened to it, in JSON.
    history = models.TextField()
    #: The message: null and '' once it is settled.
    body = models.BinaryField(null=True)
    headers = models.TextField()
    content_type = models.CharField(max_length=255)
    content_encoding = models.CharField(max_length=255)
    correlation_id = models.CharField(max_length=255)
    size = models.PositiveIntegerField()
    settled_at = models.DateTimeField(null=True)
    #: '' while it is parked; then resent, discarded or erased.
    settled = models.CharField(max_length=10)

    class Meta:
        """Indexes."""

        indexes = (models.Index(fields=('settled', 'parked_at'), name='parked_settled_parked_at'),)

    @override
    def __str__(self) -> str:
        return f'{self.message_id} {self.settled or "parked"}'


class Audit(models.Model):
    """A decision of a person, with its reason."""

    at = models.DateTimeField(db_index=True)
    who = models.CharField(max_length=255)
    action = models.CharField(max_length=32)
    reason = models.CharField(max_length=1000)
    message_id = models.CharField(max_length=LENGTHS['id'], db_index=True)
    key = models.CharField(max_length=LENGTHS['key'], db_index=True)
    task = models.CharField(max_length=LENGTHS['task'])

    @override
    def __str__(self) -> str:
        return f'{self.at:%Y-%m-%d %H:%M:%S} {self.who} {self.action}'


class SetAside(models.Model):
    """A report that this version cannot read; kept for a version that can."""

    digest = models.CharField(max_length=64, unique=True)
    body = models.BinaryField()
    reason = models.CharField(max_length=1000)
    received = models.DateTimeField()

    @override
    def __str__(self) -> str:
        return str(self.reason)


class Teller(models.Model):
    """A process that numbers its reports, so that lost ones show as gaps."""

    name = models.CharField(max_length=LENGTHS['teller'], unique=True)
    worker = models.CharField(max_length=LENGTHS['worker'])
    #: The highest number that came, and the numbers below it that did not: in JSON, pairs of the first and the last.
    highest = models.BigIntegerField(default=0)
    gaps = models.TextField(default='[]')
    #: How many are missing, as the gaps have it.
    missing = models.PositiveBigIntegerField(default=0, db_index=True)
    #: When one came last, and when one was found to be missing last, by the clock of the database.
    heard = models.DateTimeField(null=True)
    missed = models.DateTimeField(null=True)

    @override
    def __str__(self) -> str:
        return f'{self.name} {self.highest}'


class IntakeHour(models.Model):
    """The latest tally of a process for an intake and an hour."""

    #: Made of process, intake and hour.
    identity = models.UUIDField(unique=True)
    intake = models.CharField(max_length=TEXTS['intake'])
    process = models.CharField(max_length=TEXTS['process'])
    hour = models.DateTimeField(db_index=True)
    number = models.BigIntegerField()
    kind = models.CharField(max_length=TEXTS['kind'])
    url = models.CharField(max_length=TEXTS['url'])
    state = models.CharField(max_length=TEXTS['state'])
    test_orders = models.CharField(max_length=TEXTS['test_orders'])
    #: In JSON: numbers by state and reason, and answers by how long they took.
    counts = models.TextField()
    times = models.TextField()
    #: When a genuine delivery came last, by the clock of the process.
    last = models.DateTimeField(null=True)
    #: When the ledger last got a report of it, by the clock of the database.
    heard = models.DateTimeField()

    @override
    def __str__(self) -> str:
        return f'{self.intake} {self.hour:%Y-%m-%d %H}'


class Webhook(models.Model):
    """The webhook of an intake as ``reconcile`` last found it in the shop."""

    intake = models.CharField(max_length=TEXTS['intake'], unique=True)
    #: What is wrong with it, in a sentence; '' if nothing is.
    problem = models.CharField(max_length=LENGTHS['reason'])
    seen = models.DateTimeField()

    @override
    def __str__(self) -> str:
        return f'{self.intake} {self.problem or "delivers"}'


class Firing(models.Model):
    """When a scheduled job was last fired, and which beat is about to fire it; times in epoch seconds."""

    entry = models.CharField(max_length=255, unique=True)
    #: When the last firing was due, not when it happened: all beats come to the same moment.
    fired = models.FloatField()
    #: '' if it is not claimed.
    claimed_by = models.CharField(max_length=255)
    claimed_until = models.FloatField(default=0)
    #: When the last one was due that was published; null if none was since the entry began.
    published = models.FloatField(null=True)
    #: How many were left out when some were left out last, and when the firing was due at which that was noticed.
    missed = models.PositiveIntegerField(default=0)
    missed_at = models.FloatField(null=True)

    @override
    def __str__(self) -> str:
        return str(self.entry)


class BeatTick(models.Model):
    """The last sign of life of a beat, in epoch seconds."""

    name = models.CharField(max_length=255, unique=True)
    at = models.FloatField()

    @override
    def __str__(self) -> str:
        return str(self.name)
