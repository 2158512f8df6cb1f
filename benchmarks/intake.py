"""What one delivery costs: signed orders posted to the intake as shipped, and to what one might write in its place.

    python -m benchmarks.intake --seconds 5 --repeat 2

    ours      ecommerce-worker intake, with one process and with two
    bare      the same server and the same confirming channel, with nothing but HMAC and JSON between: a prototype
    django    a Django view that checks the signature and calls .delay(), which waits for no confirmation

Prints deliveries per second, milliseconds until the answer (median, and 99 of 100), CPU milliseconds of the server for
each, the same at half of that rate, and resident memory.

Everything runs on this machine, the senders too: compare pairs of one run.  Reads /proc.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from kombu import Connection
from typing_extensions import override

from benchmarks.processes import cpu_seconds, resident_megabytes
from ecommerce_worker.broker import topology
from ecommerce_worker.intake.signatures import code
from ecommerce_worker.testing.rabbitmq import PrivateNode, free_port

SECRET = 'a-secret-of-thirty-two-bytes-or-more'
QUEUE = 'ecommerce.fulfillment'

#: An order as large as Shopify's are.
LINES = [{'id': number, 'sku': f'PY10{number}', 'title': 'A course ' * 8, 'quantity': 1, 'price': '123.45',
          'properties': [{'name': 'email', 'value': 'learner@example.com'}]} for number in range(20)]

BARE = """
import hmac, json, os, sys, uuid
from celery import Celery
from ecommerce_worker import web
from ecommerce_worker.broker.confirming import Confirming
from ecommerce_worker.broker.notes import Notes
from ecommerce_worker.broker.publishing import new_call
from ecommerce_worker.broker.transport import BrokerConnection
from ecommerce_worker.broker.wire import Call
from ecommerce_worker.intake.signatures import code

broker = Confirming(lambda: BrokerConnection(os.environ['URL'], transport_options={'confirm_publish': False}))
broker.start()
KEY = os.environ['SECRET'].encode()

def application(environ, start_response):
    body = environ['wsgi.input'].read()
    if not hmac.compare_digest(environ.get('HTTP_X_SHOPIFY_HMAC_SHA256', ''), code(KEY, body)):
        start_response('401 Unauthorized', [])
        return [b'']
    order = json.loads(body)
    broker.publish(new_call(Call('t', str(uuid.uuid4()), kwargs={'n': order['name']}), Notes(queue='QUEUE')))
    start_response('200 OK', [('Content-Type', 'application/json'), ('Content-Length', '2')])
    return [b'{}']

web.serve(application, web.listener_at('127.0.0.1:' + os.environ['PORT'], 'it', 'IT', shared=True), threads=32,
          https=False)
""".replace('QUEUE', QUEUE)

DJANGO = """
import hmac, json, os
from celery import Celery
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from ecommerce_worker import web
from ecommerce_worker.intake.signatures import code

settings.configure(ALLOWED_HOSTS=['*'], ROOT_URLCONF=__name__, SECRET_KEY='x', MIDDLEWARE=[
    'django.middleware.security.SecurityMiddleware', 'django.middleware.common.CommonMiddleware'])
app = Celery('shop', broker=os.environ['URL'])

@app.task(name='t', ignore_result=True)
def fulfill(order_number):
    pass

app.conf.task_routes = {'t': {'queue': 'QUEUE'}}
KEY = os.environ['SECRET'].encode()

@csrf_exempt
def view(request):
    if not hmac.compare_digest(request.headers.get('X-Shopify-Hmac-Sha256', ''), code(KEY, request.body)):
        return HttpResponse(status=401)
    fulfill.delay(json.loads(request.body)['name'])
    return JsonResponse({})

urlpatterns = [path('in/shop', view)]
web.serve(get_wsgi_application(), web.listener_at('127.0.0.1:' + os.environ['PORT'], 'it', 'IT', shared=True),
          threads=32, https=False)
""".replace('QUEUE', QUEUE)


@dataclass(frozen=True)
class Measured:
    """Deliveries per second, and the milliseconds that answers took."""

    rate: float
    p50: float
    p99: float
    failed: int

    @override
    def __str__(self) -> str:
        """One line of the table."""
        return f'{self.rate:7.0f}/s  p50 {self.p50:6.1f} ms  p99 {self.p99:7.1f} ms  failed {self.failed}'


def environment(kind: str, node: PrivateNode, port: int) -> dict[str, str]:
    """That of a server of this kind."""
    intakes = {'shop': {'kind': 'shopify', 'secrets': [SECRET], 'events': {'orders/paid': 'fulfill_order'}}}
    return {**os.environ, 'URL': node.url, 'SECRET': SECRET, 'PORT': str(port), **({
        'WORKER_CONFIGURATION_MODULE': 'ecommerce_worker.configuration.local',
        'ECOMMERCE_WORKER_BROKER_URL': node.url, 'ECOMMERCE_WORKER_INTAKES': json.dumps(intakes),
        'ECOMMERCE_WORKER_INTAKE_ADDRESS': f'127.0.0.1:{port}'} if kind == 'ours' else {})}


@contextmanager
def served(kind: str, node: PrivateNode, processes: int) -> Iterator[tuple[int, list[int]]]:
    """The port, and the processes that serve it."""
    port = free_port()
    command = {'ours': ['-m', 'ecommerce_worker', 'intake'], 'bare': ['-c', BARE], 'django': ['-c', DJANGO]}[kind]
    with ExitStack() as stack:
        log = stack.enter_context(tempfile.TemporaryFile())
        started = []
        for _ in range(processes):
            process = subprocess.Popen([sys.executable, *command], env=environment(kind, node, port), stdout=log,
                                       stderr=log, start_new_session=True)
            stack.callback(process.wait)
            stack.callback(os.killpg, process.pid, signal.SIGKILL)
            started.append(process)
        headers, body = delivery(0)
        until = time.monotonic() + 60
        # Each of them: the kernel deals connections out.
        good = 0
        while good < 10 * processes:
            try:
                good += post(port, headers, body) == 200
            except OSError:
                time.sleep(0.1)
            if time.monotonic() > until:
                log.seek(0)
                raise SystemExit(log.read().decode())
        yield port, [process.pid for process in started]


def delivery(number: int) -> tuple[dict[str, str], bytes]:
    """One order, signed."""
    order = {'id': number, 'name': f'EDX-{number}', 'financial_status': 'paid', 'line_items': LINES}
    body = json.dumps(order).encode()
    return {'Content-Type': 'application/json', 'X-Shopify-Topic': 'orders/paid',
            'X-Shopify-Event-Id': f'{time.time_ns()}-{number}',
            'X-Shopify-Hmac-Sha256': code(SECRET.encode(), body)}, body


def post(port: int, headers: dict[str, str], body: bytes, kept: http.client.HTTPConnection | None = None) -> int:
    """The status of the answer, by a connection of its own unless there is one."""
    connection = kept or http.client.HTTPConnection('127.0.0.1', port, timeout=30)
    try:
        connection.request('POST', '/in/shop', body, headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        if not kept:
            connection.close()


def load(port: int, seconds: float, senders: int, *, keep: bool, rate: float = 0.0) -> Measured:
    """Post for so long by so many senders, each after its answer; at this rate at most, if there is one."""
    took: list[float] = []
    failed: list[int] = []
    prepared = [delivery(number) for number in range(200)]
    end = time.monotonic() + seconds

    def send(sender: int) -> None:
        connection = http.client.HTTPConnection('127.0.0.1', port, timeout=30) if keep else None
        due, number = time.monotonic() + sender / max(rate, 1), 0
        while (now := time.monotonic()) < end:
            if rate and now < due:
                time.sleep(due - now)
            due += senders / rate if rate else 0
            number += 1
            headers, body = prepared[(sender * 37 + number) % len(prepared)]
            headers = {**headers, 'X-Shopify-Event-Id': f'{sender}-{number}-{end}'}
            began = time.monotonic()
            try:
                status = post(port, headers, body, connection)
            except (OSError, http.client.HTTPException):
                status = 0
                connection = http.client.HTTPConnection('127.0.0.1', port, timeout=30) if keep else None
            took.append(time.monotonic() - began)
            if status != 200:
                failed.append(status)
        if connection:
            connection.close()

    threads = [threading.Thread(target=send, args=(sender,)) for sender in range(senders)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took.sort()
    return Measured(len(took) / (time.monotonic() - began), 1000 * took[len(took) // 2],
                    1000 * took[int(len(took) * 0.99)], len(failed))


def hostile(port: int, number: int, stop: threading.Event) -> int:
    """Open so many connections that send half a request, until it is time to stop; how many were opened."""
    opened: list[socket.socket] = []
    count = 0
    while count < number and not stop.is_set():
        try:
            made = socket.create_connection(('127.0.0.1', port), timeout=5)
            made.sendall(b'POST /in/shop HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n'
                         b'Content-Length: 5000\r\n\r\n{')
        except OSError:
            continue
        count += 1
        opened.append(made)
        if len(opened) > 800:
            opened.pop(0).close()
    for made in opened:
        made.close()
    return count


def purge(node: PrivateNode) -> None:
    """Empty the queue, so that each begins alike."""
    with Connection(node.url) as connection:
        channel = connection.channel()
        topology.task_queue(QUEUE).bind(channel).declare()
        channel.queue_purge(QUEUE)
        topology.declare_facts(connection)
        channel.queue_purge(topology.LEDGER)


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seconds', type=float, default=5, help='of each measurement')
    parser.add_argument('--senders', type=int, default=32)
    parser.add_argument('--repeat', type=int, default=1)
    parser.add_argument('--kinds', default='ours,bare,django')
    parser.add_argument('--slow', type=int, default=0, metavar='N', help='then: so many half requests beside it')
    options = parser.parse_args()
    with PrivateNode() as node:
        for _ in range(options.repeat):
            for kind in options.kinds.split(','):
                for processes in (1, 2) if kind == 'ours' else (1,):
                    purge(node)
                    with served(kind, node, processes) as (port, pids):
                        rate = 0.0
                        for keep in (True, False):
                            spent = sum(map(cpu_seconds, pids))
                            found = load(port, options.seconds, options.senders, keep=keep)
                            spent = (sum(map(cpu_seconds, pids)) - spent) / (found.rate * options.seconds)
                            print(f'{kind:7} processes {processes} {"kept  " if keep else "opened"} {found}  CPU '
                                  f'{1000 * spent:.2f} ms', flush=True)
                            rate = found.rate
                            purge(node)
                        half = load(port, options.seconds, options.senders, keep=True, rate=rate / 2)
                        memory = max(resident_megabytes(pid) for pid in pids)
                        print(f'{kind:7} processes {processes} half   {half}  {memory:.0f} MB', flush=True)
        if options.slow:
            purge(node)
            with served('ours', node, 1) as (port, _):
                stop, opened = threading.Event(), list[int]()
                thread = threading.Thread(target=lambda: opened.append(hostile(port, options.slow, stop)))
                thread.start()
                found = load(port, options.seconds, 4, keep=False, rate=20)
                stop.set()
                thread.join()
                print(f'beside {opened[0]} half requests: {found}')


if __name__ == '__main__':
    main()
