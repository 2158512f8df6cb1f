"""The stand-in shop itself, in this process."""

from __future__ import annotations

import base64
import hmac
import json
import re
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs

from typing_extensions import override

from ecommerce_worker.testing.rabbitmq import free_port
from ecommerce_worker.testing.shop.book import (
    CLIENT_ID,
    CLIENT_SECRET,
    FULFILLABLE,
    JWT_ISSUER,
    JWT_SECRET,
    Answer,
    Call,
    Journal,
    Order,
    ShopControl,
)
from ecommerce_worker.testing.shop.server import Reply, Request, Server

TOKEN_PATH = '/oauth2/access_token'
REPORT_PATH = '/api/v2/assignment-email/status/'
ORDER_PATH = re.compile(r'/api/v2/orders/([-\w]+)/(fulfill/)?')
LIST_PATH = '/api/v2/orders/'
CONTROL_PATH = '/__control__/'

# Orders to a page of the list, as the shop has it.
PAGE_SIZE = 20


class Shop(ShopControl):
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
        self.url, self.api_root, self.oauth2_root = addresses(self.port, certificate)
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
        self._released = False
        self._changed = threading.Condition()
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
            with self._changed:
                self._changed.notify_all()
            server.shutdown()
            server.server_close()
        self._log.close()
        self._book.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @override
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
                case 'release':
                    with self._changed:
                        self._released = True
                        self._changed.notify_all()
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
                # Unique in the shop's table of mails, whatever the assignment.
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
        if step.held:
            self._wait_for_release()
        if self._closing.wait(self.latency * lines + step.delay):
            return None
        reply = Reply(step.status or 200, step.body.encode(), step.headers)
        if step.effect or (step.status is None and not step.drop):
            done = as_ever()
            reply = reply if step.status else done
        return None if step.drop else replace(reply, cut=step.cut)

    def _wait_for_release(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._released or self._closing.is_set())

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
        """The next step of a script other than an order's."""
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


def addresses(port: int, certificate: Path | None) -> tuple[str, str, str]:
    """The shop's URL, the root of its API, and the root of the token endpoint."""
    url = f'{"https" if certificate else "http"}://127.0.0.1:{port}'
    return url, f'{url}/api/v2/', f'{url}/oauth2'
