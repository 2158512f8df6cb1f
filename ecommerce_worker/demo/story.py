"""The demonstration: twenty-three orders, three mails, every kind of trouble, and a look at how each of them ended.

In the order of the acts:

    stage set ─► worker ready ─► troubles ─► a worker is killed ─► webhooks, RabbitMQ away ─► courses are sold
        ─► a person repairs ─► facts ─► table, exit status

What is shown while it lasts comes from the logs of shops, mail service and worker; what is judged at the end are
facts: the shops' books, the calls that came in, and the queues.
"""

from __future__ import annotations

import json
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from shlex import quote
from typing import Final

from ecommerce_worker.configuration import base
from ecommerce_worker.demo import webhooks
from ecommerce_worker.demo.orders import (
    ACADEMY,
    CAMPUS,
    DELIVERED,
    HOPELESS,
    IN_MID_FLIGHT,
    LETTERS,
    NEWCOMER,
    PURCHASES,
    TOKENS_AT_FIRST,
    TROUBLES,
    TWICE,
    Letter,
    Outcome,
    Purchase,
    Seen,
    Story,
    counted,
    faults,
    kind_of,
    retold,
)
from ecommerce_worker.demo.screen import BLUE, BOLD, DIM, GREEN, RED, YELLOW, Screen, Tail
from ecommerce_worker.demo.stage import HURRIED, Interrupted, Interruptions, Stage, Worker
from ecommerce_worker.demo.webhooks import INTAKES, Webhook
from ecommerce_worker.email.delivery import REPORT
from ecommerce_worker.errors import WorkerError
from ecommerce_worker.fulfillment.names import FULFILL
from ecommerce_worker.testing.shop import Call

#: Seconds after which nothing is waited for any more.
LONGEST: Final = 110

#: A call that takes longer than this, in seconds, is shown while it lasts.
SLOW: Final = 0.5

#: The worker's one line of a run, and the fields in it.
RUN = re.compile(r' - (done|skipped|retrying|parked): (.*)')
FIELD = re.compile(r'(\w+)=(?:"([^"]*)"|(\S+))')

#: Tasks of ours that enrol, and what is done when one of them is, by its name.
ENROLMENT: Final = 'ecommerce_worker.enrolment.tasks.'
DONE: Final[Mapping[str, str]] = {
    REPORT: 'reported to the shop',
    f'{ENROLMENT}enroll': 'split into its lines', f'{ENROLMENT}enroll_line': 'enrolled in the LMS',
    f'{ENROLMENT}set_mode': 'enrolled as paid for',
    f'{ENROLMENT}revoke': 'split into its lines', f'{ENROLMENT}revoke_line': 'unenrolled'}

COLOURS = {'done': GREEN, 'skipped': GREEN, 'retrying': YELLOW, 'parked': RED}


def run(keep: bool = False, *, rabbitmq: bool = True) -> int:
    """Play it; the exit status is 0 only if each order and each mail ended as it should.

    ``keep`` leaves all running at the end, until Ctrl-C; ``rabbitmq`` is False to do without one where there is one.
    """
    with Interruptions() as interruptions:
        stage = Stage(interruptions)
        play = Play(stage, Screen())
        try:
            try:
                play.perform(rabbitmq=rabbitmq)
                if keep:
                    play.go_on()
            finally:
                interruptions.hold()
        except Interrupted:
            play.screen.say()
            play.screen.say('stopping all processes ...', DIM)
        finally:
            stage.end()
    if play.status is not None:
        return play.status
    return 128 + (interruptions.came or 0)


class Play:
    """The acts of the demonstration and their observations."""

    def __init__(self, stage: Stage, screen: Screen) -> None:
        self.stage = stage
        self.screen = screen
        self.status: int | None = None  # None until the facts are known
        self._ends_at = time.monotonic() + LONGEST
        self.stories: list[Story | Purchase | Letter] = []
        self._last: dict[str, Outcome] = {}  # by the id of the message
        self._told: dict[str, list[str]] = defaultdict(list)  # by number
        self._mishaps: list[str] = []
        self._begun: dict[str, tuple[Call, float]] = {}
        self._said: set[str] = set()
        self._logs: list[Tail] = []
        self._outputs: list[Tail] = []
        self._books: list[tuple[str, Tail]] = []

    def perform(self, *, rabbitmq: bool) -> None:
        """Perform all acts."""
        started = time.monotonic()
        self._set(rabbitmq=rabbitmq)
        self._worker_ready()
        self._troubles()
        if self.stage.broker.keeps:
            self._kill()
        if self._webhooks():
            self._sell()
        self._repair()
        self.judge(started)

    def go_on(self) -> None:
        """Keep everything running until a signal comes."""
        stage, say = self.stage, self.screen.say
        if stage.console:
            self._open_console()
        self.screen.heading('Everything keeps running until Ctrl-C.')
        say(f'logs    {stage.logs}')
        say('To use `ecommerce-worker status`, `parked list` and so on in another terminal:')
        for name, value in stage.variables.items():
            say(f'export {name}={quote(value)}')
        say()
        while True:
            self.stage.interruptions.check()
            self._show()
            time.sleep(0.2)

    def _open_console(self) -> None:
        """Start a ledger and the console; not earlier, since parked messages move into the ledger."""
        self.screen.heading('A ledger is created, and the console serves it')
        self._ends_at = time.monotonic() + LONGEST
        if not self._command('migrate'):
            return
        self.stage.start('recorder')
        console = self.stage.start('console')
        # It says where it is, and gives a link by which to log in.
        self._outputs.append(Tail(console.log))
        self._until(lambda: 'no operator has a password yet' in console.log.read_text() or console.ended, 20)
        for story in self.stories:
            key = story.number.rpartition(' ')[2]  # of a mail that of its assignment
            self.screen.say(f'{self.stage.console}/orders/?q={key}  {story.title}')
        self.screen.say()

    def judge(self, started: float) -> None:
        """Check the facts, show what happened to each order and mail, and set the status."""
        self._until(lambda: not self._wrong(), 5)
        wrong, seen = self._wrong(), self.seen()
        self.screen.heading('What happened')
        self.screen.table(
            ('WHICH', 'STORY', 'CALLS', 'WHAT HAPPENED', 'END', ''),
            [(story.number, story.title, counted(facts.calls), retold(facts.told), facts.end,
              '✗' if story.number in wrong else '✓')
             for story in self.stories for facts in (seen[story.number],)], flexible=3)
        self.screen.say()
        for who, what in wrong.items():
            failed = f'{who} did not end as it should' if who in seen else who
            self.screen.say(f'{failed}: {"; ".join(what)}', RED)
        if wrong:
            self.screen.say(f'The logs are in {self.stage.logs}')
        else:
            mails = sum(isinstance(story, Letter) for story in self.stories)
            self.screen.say(f'All {len(self.stories) - mails} orders and {mails} mails ended as they should: none '
                            'lost, none fulfilled or sent twice, nothing left in a queue '
                            f'({time.monotonic() - started:.0f} s).', GREEN)
        self.stage.keep_logs = bool(wrong)
        self.status = 1 if wrong else 0

    # -- acts ---------------------------------------------------------------------------------------------------------

    def _set(self, *, rabbitmq: bool) -> None:
        say, stage = self.screen.say, self.stage
        say('Orders and mails of a pretend shop, through every kind of trouble, on 127.0.0.1 only.', BOLD)
        say()
        say('starting a broker ...', DIM)
        stage.set(rabbitmq=rabbitmq)
        broker = stage.broker
        say(f'broker  {broker.what}: {broker.shown}')
        if not broker.keeps:
            say('        It loses the messages of a killed worker, so that story is left out.',
                YELLOW)
        say(f'shop    {stage.shop.url}, and one of another site, {stage.campus.url}')
        say(f'mail    {stage.mail.url}, with the API of SendGrid')
        hurried = ', '.join(f'{name} {value:g} ({getattr(base, name):g})' for name, value in HURRIED.items())
        say(f'worker  with shorter delays: {hurried}; otherwise with the defaults')
        self._books = [('LMS', Tail(stage.shop.log)), ('other LMS', Tail(stage.campus.log)),
                       ('mail', Tail(stage.mail.log))]
        stage.campus.fault_tokens(*TOKENS_AT_FIRST)

    def _worker_ready(self) -> Worker:
        worker = self.stage.start_worker()
        self._logs.append(Tail(worker.log))
        started = time.monotonic()
        if not self._until(lambda: worker.ready, 30):
            words = '\n'.join(worker.log.read_text(errors='replace').splitlines()[-15:])
            raise WorkerError(f'the worker did not start; the end of its log:\n{words}')
        self.screen.event('', 'started', f'a worker, process {worker.pid}, ready after '
                                         f'{time.monotonic() - started:.1f} s', BLUE)
        return worker

    def _troubles(self) -> None:
        self.screen.heading('Orders are paid, codes are assigned')
        self._publish([*TROUBLES, HOPELESS, *LETTERS])
        self._until(self._settled, 40)

    def _kill(self) -> None:
        self.screen.heading('A worker is killed while it works')
        self._publish(IN_MID_FLIGHT)
        numbers = {story.number for story in IN_MID_FLIGHT}
        self._until(lambda: numbers <= {call.order for call, _ in self._begun.values()}, 10)
        worker = self.stage.workers[-1]
        worker.kill()
        for number in sorted(numbers):
            self._tell(number, 'killed', f'kill -9 of worker {worker.pid}, which was processing it', RED,
                       'its worker was killed')
        self._worker_ready()
        self._until(self._settled, 30)

    def _webhooks(self) -> bool:
        """Shops of other makes deliver their orders over HTTP; one is forged, and RabbitMQ is away for a moment.

        Whether there is an intake.
        """
        stage = self.stage
        if not stage.start_intake():
            return False
        self.screen.heading('Shopify and WooCommerce deliver webhooks')
        if not self._until(lambda: webhooks.is_ready(stage.intake), 30):
            self._mishaps.append('the intake did not start')
            return False
        twice, once, again = (
            Webhook(intake, story.number) for intake, story in zip(('acme', 'blog', 'acme'), DELIVERED, strict=True))
        for story in DELIVERED:
            self.stories.append(story)
            stage.shop.add_orders([story.order()])
        self._deliver(twice, 'accepted')
        self._deliver(twice, 'repeated')
        self._deliver(twice, 'unauthorized', forged=True)
        if stage.node:
            self._until(lambda: self._settled(DELIVERED[0]), 20)
            self.screen.event('', 'away', 'RabbitMQ is killed', RED)
            stage.node.kill()
            self._until(lambda: not webhooks.is_ready(stage.intake), 10)
            self._deliver(again, 'unavailable')
            # It never delivers again: the intake keeps it on disk.
            self._deliver(once, 'accepted')
            stage.node.start(45)
            self.screen.event('', 'back', 'RabbitMQ is running again', BLUE)
            self._until(lambda: webhooks.is_ready(stage.intake), 20)
        else:
            self._deliver(once, 'accepted')
        self._deliver(again, 'accepted')
        self._until(self._settled, 40)
        return True

    def _sell(self) -> None:
        """Courses are bought from Shopify, with no Open edX shop in between; one of two for a learner is given back."""
        self.screen.heading('An academy sells courses with Shopify: learners are enrolled, line by line')
        lms = self.stage.lms
        for purchase in PURCHASES:
            self.stories.append(purchase)
            self._deliver(Webhook(ACADEMY, purchase.number, 'orders/paid', purchase.delivery()), 'accepted')
        self._until(lambda: lms.allowed and self._runs(TWICE[0]) == self._runs(TWICE[1]) == 2, 20)
        lms.register(NEWCOMER.learner, 'newcomer')
        self._tell(NEWCOMER.number, 'registers', 'the learner has an account now', BLUE, 'registered')
        self._deliver(Webhook(ACADEMY, TWICE[0].number, 'orders/updated', TWICE[0].delivery(refunded=True)), 'accepted')
        self._until(self._settled, 30)

    def _deliver(self, webhook: Webhook, expected: str, *, forged: bool = False) -> None:
        """Deliver an order from a shop, and show the answer."""
        status, content = webhook.posted(self.stage.intake, forged=forged)
        said, ours = webhooks.said(status, content), not forged
        if content.get('id'):
            self.stage.published[content['id']] = webhook.number
        if said != expected:
            self._mishaps.append(f'the intake answered {webhook.number}{"" if ours else " (forged)"} {said}, not '
                                 f'{expected}')
        colour = GREEN if status < 300 else YELLOW if ours else RED
        what = f'{INTAKES[webhook.intake]["kind"]} delivers it: {said}'
        if ours:
            self._tell(webhook.number, f'POST {status}', what, colour, said)
        else:
            self.screen.event('', f'POST {status}', f'a forged order is delivered: {said}', colour)
        self._show()

    def _repair(self) -> None:
        self.screen.heading('A person steps in')
        self._command('parked', 'list')
        self.stage.shop.repair(HOPELESS.number)
        self._tell(HOPELESS.number, 'repaired', 'in the shop, by a person', BLUE, 'repaired')
        self._last.clear()
        self._told[HOPELESS.number].append('resent')
        if self._command('parked', 'resend', '--order', HOPELESS.number):
            self._until(lambda: self._settled(HOPELESS), 20)

    # -- doing --------------------------------------------------------------------------------------------------------

    def _publish(self, stories: Iterable[Story | Letter]) -> None:
        for story in stories:
            self.stories.append(story)
            if isinstance(story, Story) and story.task == FULFILL:
                shop = self.stage.campus if story.site == CAMPUS else self.stage.shop
                shop.add_orders([story.order()])
            self.stage.publish(story)
            self.screen.event(story.number, 'published', f'{story.title} ({story.shape})', BLUE)
            self._show()

    def _command(self, *words: str) -> bool:
        """Run a command and return whether it succeeded."""
        self.screen.say(f'$ ecommerce-worker {" ".join(words)}', BOLD)
        process, output = self.stage.command(*words)
        self._outputs.append(Tail(output))
        self._until(lambda: process.poll() is not None, 20)
        self._show()
        status = process.poll()
        if status != 0:
            self._mishaps.append(f'`ecommerce-worker {" ".join(words)}` ended with status {status}')
        return status == 0

    def _tell(self, number: str, what: str, text: str, colour: str, remark: str) -> None:
        self.screen.event(number, what, text, colour)
        self._told[number].append(remark)

    def _until(self, condition: Callable[[], object], seconds: float) -> bool:
        """Show events until the condition is true; False if that takes too long or the worker has exited."""
        ends_at = min(time.monotonic() + seconds, self._ends_at)
        while True:
            self.stage.interruptions.check()
            self._show()
            if condition():
                return True
            if time.monotonic() > ends_at or self.stage.workers[-1].ended:
                return False
            time.sleep(0.05)

    # -- seeing -------------------------------------------------------------------------------------------------------

    def _settled(self, *stories: Story) -> bool:
        """Whether the worker has finished these orders, or all orders and mails."""
        return all(self._runs(story) >= story.runs for story in stories or self.stories)

    def _runs(self, story: Story | Purchase | Letter) -> int:
        """The number of its settled messages."""
        return sum(self.stage.published[id_] == story.number for id_, last in self._last.items() if last.final)

    def _show(self) -> None:
        # Read first and shown last: what a worker says follows from what the shop answered.
        said = [line for log in self._logs for line in log.lines()]
        for name, book in self._books:
            for line in book.lines():
                self._show_call(name, Call(**json.loads(line)))
        self._show_slow_calls()
        for output in self._outputs:
            for line in output.lines():
                self.screen.say(f'  {line}')
        for line in said:
            self._show_run(line)

    def _show_call(self, name: str, call: Call) -> None:
        if call.duration is None:
            self._begun[call.id] = call, time.monotonic()
            return
        self._begun.pop(call.id, None)
        took = f' after {call.duration:.1f} s' if call.duration >= SLOW else ''
        if call.status is None:
            what, text, colour = '-', 'the connection is closed without an answer', YELLOW
        else:
            what, text = str(call.status), HTTPStatus(call.status).phrase
            colour = GREEN if call.status < 300 else YELLOW
        self.screen.event(self._about(call) or name, f'{kind_of(call)} {what}', text + took, colour)

    def _about(self, call: Call) -> str | None:
        """The number of the order or mail that a call is about."""
        if call.mail:
            return self.stage.published.get(call.mail)
        return f'mail {call.assignment}' if call.assignment else call.order

    def _show_slow_calls(self) -> None:
        for call, begun in self._begun.values():
            if call.id not in self._said and time.monotonic() - begun > SLOW:
                self._said.add(call.id)
                self.screen.event(call.order or 'LMS', f'{call.method} ...', 'the shop takes its time', DIM)

    def _show_run(self, line: str) -> None:
        found = RUN.search(line)
        if not found:
            return
        fields = {name: text or word for name, text, word in FIELD.findall(found[2])}
        if fields.get('task') == REPORT:
            # The worker published it, so that only now its id is known.
            self.stage.published[fields['id']] = f'mail {fields["key"]}'
        if fields.get('task', '').startswith(ENROLMENT):
            # So it is with the lines of an order, which are known by its number and their own.
            self.stage.published[fields['id']] = fields['key'].partition(' ')[0]
        number = self.stage.published.get(fields.get('id', ''))
        if not number:
            return
        outcome = self._last[fields['id']] = Outcome.of(found[1], fields)
        told = outcome.told(DONE.get(fields.get('task', ''), self._story(number).done))
        when = f' (again in {outcome.next_try})' if outcome.word == 'retrying' else ''
        remark = f'parked: {outcome.reason}' if outcome.word == 'parked' else told
        self._tell(number, outcome.word, told + when, COLOURS[outcome.word], remark)

    def _story(self, number: str) -> Story | Purchase | Letter:
        return next(story for story in self.stories if story.number == number)

    def seen(self) -> Mapping[str, Seen]:
        """The facts about each order and mail."""
        stage = self.stage
        orders = {**stage.shop.orders, **stage.campus.orders}
        parked = stage.broker.parked()
        tokens = [call for call in stage.campus.calls if not call.order]
        calls = [*stage.mail.calls, *stage.shop.calls, *stage.campus.calls]
        return {story.number: Seen(
            orders.get(story.number),
            tuple([call for call in calls if self._about(call) == story.number]
                  + (tokens if story.site == CAMPUS else [])),
            tuple(reason for id_, reason in parked if stage.published.get(id_) == story.number),
            tuple(self._told[story.number]),
            tuple(self._mode(story.learner, course) for course in story.courses) if isinstance(story, Purchase) else (),
        ) for story in self.stories}

    def _mode(self, learner: str, course: str) -> str:
        """The learner's mode; '' if not enrolled."""
        mode, active = self.stage.lms.standing(learner, course) or ('', False)
        return mode if active else ''

    def _wrong(self) -> Mapping[str, list[str]]:
        """Everything that is wrong, by number, and other problems."""
        seen = self.seen()
        found = {story.number: faults(story, seen[story.number]) for story in self.stories}
        found['In the queues'] = [f'{count} left in {name}' for name, count in self.stage.broker.left().items()]
        found['Among the commands'] = self._mishaps
        return {who: what for who, what in found.items() if what}
