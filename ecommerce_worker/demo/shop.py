"""A stand-in for LMS and shop on 127.0.0.1: issues tokens, keeps an order book, fails as it is told to.

    request ──► token known? ──no──► 401
                    │ yes
               order known? ──no──► 404            POST /oauth2/access_token/               a token
                    │ yes                          GET  /api/v2/orders/                     the orders, by pages
                    │                              GET  /api/v2/orders/<number>/            the order
           next step of its script                 PUT  /api/v2/orders/<number>/fulfill/    its fulfilment
                    │ none left
            as the shop does ──► 200 or 406        POST /api/v2/assignment-email/status/  what became of a mail

In this process: `with Shop() as shop: shop.url`. As a process of its own, with the same verbs: `ShopProcess`.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hmac
import io
import json
import os
import re
import secrets
import signal
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs

from ecommerce_worker.demo.rabbitmq import free_port

CLIENT_ID = 'demo-worker'
CLIENT_SECRET = 'demo-client-secret'
JWT_SECRET = 'demo-jwt-secret-of-at-least-32-bytes'
JWT_ISSUER = 'ecommerce_worker'

# The statuses in which the shop lets an order be fulfilled; in any other it answers 406.
FULFILLABLE = ('Open', 'Fulfillment Error')

TOKEN_PATH = '/oauth2/access_token'
REPORT_PATH = '/api/v2/assignment-email/status/'
ORDER_PATH = re.compile(r'/api/v2/orders/([-\w]+)/(fulfill/)?')
LIST_PATH = '/api/v2/orders/'
CONTROL_PATH = '/__control__/'

# Orders to a page of the list, as the shop has it.
PAGE_SIZE = 20

PHRASES = {status.value: status.phrase for status in HTTPStatus}
JSON = {'Content-Type': 'application/json'}

# Longer than any client waits.
FOR_EVER = 3600.0


@dataclass(frozen=True)
class Answer:
    """One step of a script: what is to differ from what the shop does of itself in one call."""

    status: int | None = None  # None: do and answer as the shop does
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ''
    delay: float = 0  # seconds before anything else
    effect: bool = False  # the order is fulfilled, whatever the answer says
    cut: bool = False  # the connection ends in the middle of the body
    drop: bool = False  # the connection ends without an answer
    forever: bool = False  # the step is never used up

    @classmethod
    def slow(cls, seconds: float) -> Self:
        """Take your time, then do as the shop does."""
        return cls(delay=seconds)

    @classmethod
    def hanging(cls) -> Self:
        """Let the client wait longer than it can, and do nothing."""
        return cls(delay=FOR_EVER, drop=True)

    @classmethod
    def dropped(cls) -> Self:
        """Hang up without an answer, and do nothing."""
        return cls(drop=True)

    @classmethod
    def lost(cls) -> Self:
        """Fulfil the order, then hang up without an answer."""
        return cls(effect=True, drop=True)

    @classmethod
    def truncated(cls) -> Self:
        """Hang up in the middle of a body that looked well, and do nothing."""
        return cls(status=200, headers=dict(JSON), body='{"number": "EDX-', cut=True)

    @classmethod
    def html(cls, status: int = 200) -> Self:
        """Answer with a page for people, as a proxy or a login wall does, and do nothing."""
        return cls(status=status, headers={'Content-Type': 'text/html'}, body='<html>Welcome!</html>')

    @classmethod
    def garbled(cls) -> Self:
        """Answer 200 with something that only claims to be JSON, and do nothing."""
        return cls(status=200, headers=dict(JSON), body='{"number": ')

    def always(self) -> Self:
        """The same step, never used up."""
        return replace(self, forever=True)

    def as_json(self) -> dict[str, Any]:
        """The step as a script file holds it: only what differs from the defaults."""
        return {name: value for name, value in asdict(self).items() if value}


@dataclass
class Order:
    """One order of the book, and what happened to it."""

    number: str
    status: str = 'Open'
    lines: int = 1
    answers: list[Answer] = field(default_factory=list)  # the script of PUT
    reads: list[Answer] = field(default_factory=list)  # the script of GET
    hidden: int = 0  # calls of either kind that still do not find the order: it is not yet committed
    email_opt_in: bool | None = None  # what the last fulfilment said
    puts: int = 0
    fulfilments: int = 0  # more than one: the customer got it twice
    placed: float = field(default_factory=time.time, compare=False)  # seconds since the epoch

    def as_json(self) -> dict[str, Any]:
        """The order as the book and a script file hold it."""
        answers = [step.as_json() for step in self.answers]
        reads = [step.as_json() for step in self.reads]
        return self.__dict__ | {'answers': answers, 'reads': reads}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The order of such a line; all but the number may be left out."""
        scripts = {name: [Answer(**step) for step in value.get(name, ())] for name in ('answers', 'reads')}
        return cls(**{**value, **scripts})

    def shown(self) -> Reply:
        """The order as the shop's API shows it."""
        line = {'status': 'Complete' if self.status == 'Complete' else 'Open'}
        return Reply.of(self.summary() | {'lines': [line] * self.lines})

    def summary(self) -> dict[str, Any]:
        """What the list tells of it."""
        placed = datetime.fromtimestamp(self.placed, UTC).strftime('%Y-%m-%dT%H:%M:%SZ')
        return {'number': self.number, 'status': self.status, 'date_placed': placed}


@dataclass
class Call:
    """One call that came in, as the log tells it; without status it got no answer (yet)."""

    id: str
    time: float  # seconds since the epoch
    method: str
    path: str
    query: str = ''
    order: str | None = None
    assignment: str | None = None  # the id of the one whose mail is reported
    mail: str | None = None  # the worker's id of a mail, at the stand-in for who sends it
    scheme: str | None = None  # of the Authorization header; never the token
    user_agent: str | None = None
    request_id: str | None = None
    overlapping: bool = False  # another PUT of the same order was in progress
    repeated: bool = False  # a PUT of an order that is complete
    status: int | None = None
    duration: float | None = None  # seconds; None while in progress, or when the shop was killed meanwhile

    @property
    def is_put(self) -> bool:
        """Whether the call asks for fulfilment."""
        return self.method in ('PUT', 'PATCH')


@dataclass(frozen=True)
class Request:
    """What was read from the connection."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]  # names in lower case
    body: bytes


@dataclass(frozen=True)
class Reply:
    """What is written to the connection."""

    status: int
    body: bytes = b''
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False

    @classmethod
    def of(cls, value: Any, status: int = 200) -> Self:
        """A reply in JSON."""
        return cls(status, json.dumps(value).encode(), JSON)

    def encoded(self) -> bytes:
        """The bytes on the wire."""
        phrase = PHRASES.get(self.status, 'Unknown')
        lines = [f'HTTP/1.1 {self.status} {phrase}', f'Content-Length: {len(self.body) + 1000 * self.cut}']
        lines += [f'{name}: {value}' for name, value in self.headers.items()]
        return '\r\n'.join([*lines, '', '']).encode('latin-1') + self.body


class Keeper(ABC):
    """Whoever runs a shop, near or far: all verbs come down to `tell`."""

    @abstractmethod
    def tell(self, verb: str, value: Any) -> None:
        """Pass on one verb and its value, in words of JSON."""

    def add_order(
        self,
        number: str,
        *answers: Answer,
        reads: Iterable[Answer] = (),
        status: str = 'Open',
        lines: int = 1,
        hidden: int = 0,
        age: float = 0,
    ) -> None:
        """Enter an order, placed `age` seconds ago; `answers` is the script of its PUTs, `reads` that of its GETs."""
        self.add_orders([Order(number, status, lines, list(answers), list(reads), hidden, placed=time.time() - age)])

    def add_orders(self, orders: Iterable[Order]) -> None:
        """Enter many orders at once."""
        self.tell('add', [order.as_json() for order in orders])

    def fault(self, number: str, *answers: Answer) -> None:
        """Add steps to the script of an order's PUTs."""
        self.tell('fault', {'order': number, 'answers': [step.as_json() for step in answers]})

    def fault_tokens(self, *answers: Answer) -> None:
        """Add steps to the script of the token endpoint."""
        self.tell('fault_tokens', [step.as_json() for step in answers])

    def fault_reports(self, *answers: Answer) -> None:
        """Add steps to the script of reports of mail."""
        self.tell('fault_reports', [step.as_json() for step in answers])

    def repair(self, number: str) -> None:
        """End all scripts of an order; a number that is not in the book is entered."""
        self.tell('repair', number)

    def repair_tokens(self) -> None:
        """End the script of the token endpoint."""
        self.tell('repair_tokens', None)

    def repair_reports(self) -> None:
        """End the script of reports of mail."""
        self.tell('repair_reports', None)

    def revoke_tokens(self) -> None:
        """Forget all tokens: whoever comes with one of them gets 401."""
        self.tell('revoke_tokens', None)


Responder = Callable[[Request], Reply | None]


class Shop(Keeper):
    """The stand-in itself, in this process; may be used from any thread.

    `latency` is the time in seconds of each call, and of each line of an order to fulfil. `log` gets a line
    when a call begins and another when it ends. `book` keeps orders and tokens, so that the next shop with
    that file knows them. `certificate` is a PEM file of key and certificate: TLS.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        latency: float = 0,
        log: Path | None = None,
        book: Path | None = None,
        certificate: Path | None = None,
        token_lifetime: float = 3600,  # seconds
    ) -> None:
        self.port = port or free_port()
        self.url, self.api_root, self.oauth2_root = _addresses(self.port, certificate)
        self.latency = latency
        self.token_lifetime = token_lifetime
        self.orders: dict[str, Order] = {}
        self.reports: dict[str, str] = {}  # the id of the assignment by the id that the vendor gave its mail
        self.tokens_issued = 0
        self.calls: list[Call] = []
        self._certificate = certificate
        self._scripts: dict[str, list[Answer]] = {'tokens': [], 'reports': []}
        self._tokens: dict[str, float] = {}
        self._puts_in_progress: Counter[str] = Counter()
        self._lock = threading.RLock()
        self._closing = threading.Event()
        self._server: Server | None = None
        self._log = Journal(log)
        self._book = Journal(book)
        for line in self._book.lines():
            self._recall(line)

    def start(self) -> None:
        """Listen; after `stop` again on the same port, with the same order book."""
        self._closing.clear()
        self._server = Server(self.port, self.serve, self._certificate)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), name='shop', daemon=True).start()

    def stop(self) -> None:
        """Refuse new connections and cut the open ones; calls that wait end without effect."""
        server, self._server = self._server, None
        if server is not None:
            self._closing.set()
            server.shutdown()
            server.server_close()
        self._log.close()
        self._book.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def tell(self, verb: str, value: Any) -> None:
        """Carry out one verb; ValueError if there is no such verb, KeyError if there is no such order."""
        with self._lock:
            match verb:
                case 'add':
                    for order in map(Order.from_json, value):
                        self._keep(order)
                case 'fault':
                    order = self.orders[value['order']]
                    order.answers += [Answer(**step) for step in value['answers']]
                    self._keep(order)
                case 'repair':
                    order = self.orders.get(value) or Order(value)
                    order.answers, order.reads, order.hidden = [], [], 0
                    self._keep(order)
                case 'fault_tokens' | 'fault_reports':
                    name = verb.removeprefix('fault_')
                    self._keep_script(name, self._scripts[name] + [Answer(**step) for step in value])
                case 'repair_tokens' | 'repair_reports':
                    self._keep_script(verb.removeprefix('repair_'), [])
                case 'revoke_tokens':
                    self._tokens.clear()
                    self._book.write({'revoked': True})
                case _:
                    raise ValueError(f'no such verb: {verb}')

    def serve(self, request: Request) -> Reply | None:
        """Answer a request; None hangs up."""
        if request.path == CONTROL_PATH:
            return self._control(request)
        call = self._begun(request)
        reply = None
        try:
            reply = self._reply(request, call)
        finally:
            self._ended(call, reply)
        return reply

    def _begun(self, request: Request) -> Call:
        path = ORDER_PATH.fullmatch(request.path)
        headers = request.headers
        assignment = _fields(request).get('offer_assignment_id') if request.path == REPORT_PATH else None
        call = Call(
            id=secrets.token_hex(8),
            time=time.time(),
            method=request.method,
            path=request.path,
            query=request.query,
            order=path[1] if path else None,
            assignment=None if assignment is None else str(assignment),
            scheme=headers.get('authorization', '').partition(' ')[0] or None,
            user_agent=headers.get('user-agent'),
            request_id=headers.get('x-request-id'),
        )
        with self._lock:
            if call.is_put and call.order:
                order = self.orders.get(call.order)
                call.repeated = order is not None and order.status == 'Complete'
                call.overlapping = self._puts_in_progress[call.order] > 0
                self._puts_in_progress[call.order] += 1
            self.calls.append(call)
            self._log.write(call.__dict__)
        return call

    def _ended(self, call: Call, reply: Reply | None) -> None:
        with self._lock:
            if call.is_put and call.order:
                self._puts_in_progress[call.order] -= 1
            call.status = reply.status if reply else None
            call.duration = round(time.time() - call.time, 6)
            self._log.write(call.__dict__)

    def _reply(self, request: Request, call: Call) -> Reply | None:
        if request.path.rstrip('/') == TOKEN_PATH:
            return self._token(request)
        if not self._knows(request.headers.get('authorization', '')):
            return self._done(Answer(), lambda: Reply.of({'detail': 'Invalid token.'}, 401))
        if (call.method, call.path) == ('POST', REPORT_PATH):
            return self._report(request)
        if (call.method, call.path) == ('GET', LIST_PATH):
            return self._done(Answer(), lambda: self._listed(request))
        with self._lock:
            order = self.orders.get(call.order or '')
            if order is not None and order.hidden:
                order.hidden -= 1
                self._keep(order)
                order = None
        if order is None:
            return self._done(Answer(), lambda: Reply.of({'detail': 'Not found.'}, 404))
        match call.method, request.path.endswith('/fulfill/'):
            case 'PUT' | 'PATCH', True:
                return self._fulfil(order, opt_in='True' in parse_qs(request.query).get('email_opt_in', ()))
            case 'GET', False:
                with self._lock:
                    step = _next(order.reads)
                    self._keep(order)
                return self._done(step, order.shown)
        return Reply.of({'detail': 'Method not allowed.'}, 405)

    def _listed(self, request: Request) -> Reply:
        """A page of the orders, the newest first."""
        page = int(parse_qs(request.query).get('page', ['1'])[0])
        with self._lock:
            newest = sorted(self.orders.values(), key=lambda order: order.placed, reverse=True)
        shown = [order.summary() for order in newest[PAGE_SIZE * (page - 1):PAGE_SIZE * page] if not order.hidden]
        if not shown and page > 1:
            return Reply.of({'detail': 'Invalid page.'}, 404)

        def link(other: int) -> str | None:
            exists = 0 < other <= -(-len(newest) // PAGE_SIZE)
            return f'{self.url}{LIST_PATH}?page={other}' if exists else None

        return Reply.of({'count': len(newest), 'next': link(page + 1), 'previous': link(page - 1), 'results': shown})

    def _fulfil(self, order: Order, *, opt_in: bool) -> Reply | None:
        with self._lock:
            # Asked now, not when it is done: the shop holds no lock either, so two at once both go through.
            fulfillable = order.status in FULFILLABLE
            order.puts += 1
            step = _next(order.answers)
            self._keep(order)

        def fulfilled() -> Reply:
            if not fulfillable:
                return Reply(406)
            with self._lock:
                order.status, order.email_opt_in = 'Complete', opt_in
                order.fulfilments += 1
                self._keep(order)
            return order.shown()

        return self._done(step, fulfilled, order.lines)

    def _report(self, request: Request) -> Reply | None:
        step = self._step('reports')
        fields = _fields(request)
        told = {name: fields.get(name, '') for name in ('offer_assignment_id', 'send_id')}

        def noted() -> Reply:
            if fields.get('status') != 'success':
                return Reply.of({**told, 'status': 'failed', 'error': 'The status is not success.'}, 400)
            with self._lock:
                # Unique in the shop's table of mails, whatever assignment it is told for.
                if str(told['send_id']) in self.reports:
                    return Reply.of({**told, 'status': 'failed', 'error': 'There is a mail of that send_id.'}, 500)
                self.reports[str(told['send_id'])] = str(told['offer_assignment_id'])
                self._book.write({'report': told})
            return Reply.of({**told, 'status': 'updated', 'error': ''})

        return self._done(step, noted)

    def _token(self, request: Request) -> Reply | None:
        step = self._step('tokens')
        form = _fields(request)

        def issued() -> Reply:
            if (form.get('client_id'), form.get('client_secret')) != (CLIENT_ID, CLIENT_SECRET):
                return Reply.of({'error': 'invalid_client'}, 401)
            if form.get('grant_type') != 'client_credentials':
                return Reply.of({'error': 'unsupported_grant_type'}, 400)
            token = secrets.token_urlsafe(32)
            with self._lock:
                self._tokens[token] = time.time() + self.token_lifetime
                self.tokens_issued += 1
                self._book.write({'token': token, 'expires': self._tokens[token]})
            told = {'expires_in': int(self.token_lifetime), 'token_type': 'JWT', 'scope': 'read write'}
            return Reply.of({'access_token': token, **told})

        return self._done(step, issued)

    def _done(self, step: Answer, as_ever: Callable[[], Reply], lines: int = 1) -> Reply | None:
        """Carry out a step; `as_ever` does what the shop does of itself."""
        if self._closing.wait(self.latency * lines + step.delay):
            return None
        reply = Reply(step.status or 200, step.body.encode(), step.headers)
        if step.effect or (step.status is None and not step.drop):
            done = as_ever()
            reply = reply if step.status else done
        return None if step.drop else replace(reply, cut=step.cut)

    def _knows(self, authorization: str) -> bool:
        scheme, _, token = authorization.partition(' ')
        issued = self._tokens.get(token, 0) > time.time()
        return scheme == 'JWT' and (issued or _signed(token, JWT_SECRET, JWT_ISSUER))

    def _control(self, request: Request) -> Reply:
        if request.method == 'POST':
            try:
                for verb, value in json.loads(request.body).items():
                    self.tell(verb, value)
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                return Reply.of({'error': f'{type(error).__name__}: {error}'}, 400)
        with self._lock:
            orders = {number: order.as_json() for number, order in self.orders.items()}
            return Reply.of({'orders': orders, 'reports': self.reports, 'tokens_issued': self.tokens_issued,
                             'calls': len(self.calls)})

    def _keep(self, order: Order) -> None:
        self.orders[order.number] = order
        self._book.write({'order': order.as_json()})

    def _step(self, name: str) -> Answer:
        """The next step of a script that is no order's."""
        with self._lock:
            step = _next(self._scripts[name])
            if step is not _AS_EVER:
                self._keep_script(name, self._scripts[name])
        return step

    def _keep_script(self, name: str, answers: list[Answer]) -> None:
        self._scripts[name] = answers
        self._book.write({'script': name, 'answers': [step.as_json() for step in answers]})

    def _recall(self, line: Mapping[str, Any]) -> None:
        match line:
            case {'order': order}:
                self.orders[order['number']] = Order.from_json(order)
            case {'token': token, 'expires': expires}:
                self._tokens[token] = expires
                self.tokens_issued += 1
            case {'script': name, 'answers': answers}:
                self._scripts[name] = [Answer(**step) for step in answers]
            case {'report': report}:
                self.reports[str(report['send_id'])] = str(report['offer_assignment_id'])
            case {'revoked': _}:
                self._tokens.clear()


class ShopProcess(Keeper):
    """A shop in a process of its own, which can be stopped or killed and started again with what it knew.

    `directory` holds its order book and its log. The process ends with its owner, whatever the owner dies of.
    """

    def __init__(
        self,
        directory: Path,
        *,
        port: int = 0,
        latency: float = 0,
        certificate: Path | None = None,
        token_lifetime: float = 3600,
    ) -> None:
        self.port = port or free_port()
        self.url, self.api_root, self.oauth2_root = _addresses(self.port, certificate)
        self.log = directory.resolve() / 'calls.jsonl'
        self._certificate = certificate
        self._process: subprocess.Popen[bytes] | None = None
        options: dict[str, object] = {
            'port': self.port,
            'latency': latency,
            'token-lifetime': token_lifetime,
            'log': self.log,
            'book': self.log.with_name('book.jsonl'),
        }
        if certificate:
            options['certificate'] = certificate.resolve()
        self._command = [sys.executable, '-m', 'ecommerce_worker.demo.shop', '--until-eof']
        self._command += [f'--{name}={value}' for name, value in options.items()]

    @property
    def orders(self) -> dict[str, Order]:
        """The order book as it is now."""
        return {number: Order.from_json(order) for number, order in self._ask()['orders'].items()}

    @property
    def reports(self) -> dict[str, str]:
        """The mails that it was told of, by the id that the vendor gave each: the id of its assignment."""
        return dict(self._ask()['reports'])

    @property
    def tokens_issued(self) -> int:
        """How many tokens were issued, over all lives of the process."""
        return int(self._ask()['tokens_issued'])

    @property
    def calls(self) -> list[Call]:
        """All calls so far, over all lives of the process; also known while it is down."""
        return read_calls(self.log)

    def start(self) -> None:
        """Return when the shop listens."""
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            # Ctrl-C is for the owner, who stops the shop when it is time.
            start_new_session=True,
        )
        if self._process.stdout is not None and not self._process.stdout.readline():
            self.kill()
            raise RuntimeError('the shop did not start; what it wrote to standard error says why')

    def stop(self) -> None:
        """Stop in good order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the process at once, in the middle of whatever it does."""
        self._end(signal.SIGKILL)

    def tell(self, verb: str, value: Any) -> None:
        """Pass a verb on to the process."""
        self._ask({verb: value})

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _end(self, by: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            # Leaving the context closes the pipes and waits for the process.
            with process:
                process.send_signal(by)

    def _ask(self, verbs: Mapping[str, Any] | None = None) -> Any:
        data = json.dumps(verbs).encode() if verbs else None
        context = ssl.create_default_context(cafile=self._certificate) if self._certificate else None
        # No proxy of the environment's stands between us and our own process.
        direct = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
        with direct.open(f'{self.url}{CONTROL_PATH}', data, timeout=30) as answer:
            return json.load(answer)


def read_calls(log: Path) -> list[Call]:
    """The calls in a log file, in the order in which they began."""
    # A call has one line or two; the second one, with the status, replaces the first.
    return list({call.id: call for call in (Call(**line) for line in Journal(log).lines())}.values())


class Journal:
    """A file of JSON lines, each appended by one write: it is whole even after kill -9 of the writer."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file: io.FileIO | None = None

    def lines(self) -> list[Any]:
        """The values so far."""
        if self._path is None or not self._path.exists():
            return []
        return [json.loads(line) for line in self._path.read_bytes().splitlines()]

    def write(self, value: Mapping[str, Any]) -> None:
        """Append a value; nothing, where there is no file."""
        if self._path is None:
            return
        if self._file is None:
            self._file = self._path.open('ab', buffering=0)
        self._file.write(json.dumps(value).encode() + b'\n')

    def close(self) -> None:
        """Close the file; writing opens it again."""
        file, self._file = self._file, None
        if file is not None:
            file.close()


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """One thread per connection, and a list of the open ones, so that all can be cut."""

    allow_reuse_address = True
    request_queue_size = 256

    def __init__(self, port: int, respond: Responder, certificate: Path | None) -> None:
        self.respond = respond
        self._open: set[socket.socket] = set()
        self._tls: ssl.SSLContext | None = None
        if certificate is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(certificate)
        super().__init__(('127.0.0.1', port), _Connection)

    def get_request(self) -> tuple[socket.socket, Any]:
        """A new connection."""
        connection, address = super().get_request()
        if self._tls is not None:
            # Hands are shaken at the first read, in the connection's thread: one client must not hold up all.
            connection = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def process_request(self, request: Any, client_address: Any) -> None:
        """Begin to serve a connection."""
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """End a connection that was served."""
        self._open.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Listen no more, cut all connections, and return when nobody is served any more."""
        for connection in self._open.copy():
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        super().server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Tell of what went wrong with a connection."""
        # A client that goes away is part of the play.
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Connection(socketserver.StreamRequestHandler):
    """As much of HTTP/1.1 as the clients speak; the parser of `http.server` costs more than all the rest."""

    server: Server
    disable_nagle_algorithm = True

    def handle(self) -> None:
        while request := self._request():
            reply = self.server.respond(request)
            if reply is None:
                return
            self.wfile.write(reply.encoded())
            if reply.cut or request.headers.get('connection', '').lower() == 'close':
                return

    def _request(self) -> Request | None:
        words = self.rfile.readline().decode('latin-1').split()
        if len(words) != 3:
            return None
        headers = {}
        while line := self.rfile.readline().strip():
            name, _, value = line.decode('latin-1').partition(':')
            headers[name.lower()] = value.strip()
        path, _, query = words[1].partition('?')
        return Request(words[0], path, query, headers, self.rfile.read(int(headers.get('content-length', 0))))


_AS_EVER = Answer()


def _next(script: list[Answer]) -> Answer:
    if not script:
        return _AS_EVER
    return script[0] if script[0].forever else script.pop(0)


def _fields(request: Request) -> dict[str, Any]:
    """The fields of a body that is a form or a mapping in JSON, as the shop's API takes both; none of any other."""
    text = request.body.decode('utf-8', 'replace')
    if 'json' not in request.headers.get('content-type', ''):
        return {name: values[0] for name, values in parse_qs(text).items()}
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _signed(token: str, secret: str, issuer: str) -> bool:
    """Whether this is a JWT of that issuer, signed HS256 with the secret and not expired."""

    def decoded(part: str) -> bytes:
        return base64.urlsafe_b64decode(part + '=' * (-len(part) % 4))

    try:
        content, _, signature = token.rpartition('.')
        header, claims = (json.loads(decoded(part)) for part in content.split('.'))
        expected = hmac.digest(secret.encode(), content.encode(), 'sha256')
        genuine = header['alg'] == 'HS256' and hmac.compare_digest(decoded(signature), expected)
        return genuine and claims['iss'] == issuer and claims['exp'] > time.time()
    except (KeyError, TypeError, ValueError):
        return False


def _addresses(port: int, certificate: Path | None) -> tuple[str, str, str]:
    """The shop's URL, the root of its API, and the root of the token endpoint."""
    url = f'{"https" if certificate else "http"}://127.0.0.1:{port}'
    return url, f'{url}/api/v2/', f'{url}/oauth2'


def main() -> None:
    """Run a shop until SIGTERM, or until standard input ends; the first line it prints is its URL."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument('--port', type=int, default=0)
    parser.add_argument('--latency', type=float, default=0, help='seconds of a call, and of a line')
    parser.add_argument('--log', type=Path, help='file that gets a line when a call begins and when it ends')
    parser.add_argument('--book', type=Path, help='file that keeps orders and tokens for the next run')
    parser.add_argument('--script', type=Path, help='JSON file of verbs: {"add": [{"number": "EDX-1"}]}')
    parser.add_argument('--certificate', type=Path, help='PEM file of key and certificate: TLS')
    parser.add_argument('--token-lifetime', type=float, default=3600, help='seconds')
    parser.add_argument('--until-eof', action='store_true', help='end when standard input does')
    options = parser.parse_args()

    ends = {signal.SIGTERM, signal.SIGINT}
    # Before any thread is started, as threads inherit the mask: the signals are to wait for `sigwait`.
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    first_run = options.book is None or not options.book.exists()
    shop = Shop(
        port=options.port,
        latency=options.latency,
        log=options.log,
        book=options.book,
        certificate=options.certificate,
        token_lifetime=options.token_lifetime,
    )
    if options.script and first_run:
        for verb, value in json.loads(options.script.read_text()).items():
            shop.tell(verb, value)
    with shop:
        print(shop.url, flush=True)
        if options.until_eof:
            threading.Thread(target=_end_with_input, daemon=True).start()
        signal.sigwait(ends)


def _end_with_input() -> None:
    # Not through `sys.stdin`: the interpreter cannot end while a thread holds that one's lock.
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == '__main__':
    main()
