"""Pages for machines at ``METRICS_ADDRESS``: whether this process is alive and ready, and its metrics.

A separate thread answers, and checks the pulse of the main loop: it cannot report health while that hangs.
"""

from __future__ import annotations

import os
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from typing_extensions import override

from ecommerce_worker import logs
from ecommerce_worker.errors import where
from ecommerce_worker.process import pulse
from ecommerce_worker.telemetry import metrics
from ecommerce_worker.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from ecommerce_worker.settings import Settings

logger = logs.of(__name__)

#: Seconds for a request and its answer, and how many there may be at once.
SECONDS: Final = 5.0
AT_ONCE: Final = 20

#: Seconds until a connection is tried again that could not be taken, for want of a file: the client waits meanwhile.
PAUSE: Final = 0.5

#: The longest head of a request, in bytes.
LARGEST: Final = 16 * 1024

#: What answers a path: the status, the type of the content, the content.
Page = Callable[[], tuple[int, str, bytes]]


def begin(role: str, settings: Settings, look: Callable[[], tuple[str, str]] | None = None,
          tasks: Collection[str] = ()) -> Metrics | None:
    """Report the health and metrics of this process, as configured.

    ``look`` is that of :class:`~ecommerce_worker.process.pulse.Pulse`, ``tasks`` are the names of tasks that may be
    counted.  The metrics of the process, None if they are not collected. Errors are only logged.
    """
    pulse.own.begin(role, seconds=settings.HEALTH_SECONDS, directory=settings.HEALTH_DIR, look=look)
    if not settings.METRICS_ADDRESS:
        return None
    counted = metrics.begun(settings, tasks)
    serve(settings.METRICS_ADDRESS, {**PAGES, '/metrics': counted.page} if counted else PAGES)
    return counted


def _asked(what: str) -> Page:
    def page() -> tuple[int, str, bytes]:
        trouble = pulse.own.trouble(what)
        return 503 if trouble else 200, 'text/plain; charset=utf-8', f'{trouble or what}\n'.encode()

    return page


PAGES: Final[Mapping[str, Page]] = {'/livez': _asked('live'), '/readyz': _asked('ready')}


def ports_of(address: str) -> tuple[str, range]:
    """The host, and the candidate ports: ``127.0.0.1:9100-9104`` has five."""
    host, _, ports = address.rpartition(':')
    first, _, last = ports.partition('-')
    return host.strip('[]'), range(int(first), int(last or first) + 1)


def serve(address: str, pages: Mapping[str, Page]) -> None:
    """Serve at this address, in a thread; if it cannot be opened, log that and continue."""
    host, ports = ports_of(address)
    error: OSError | None = None
    for port in ports:
        try:
            server = _Server(host, port, pages)
        except OSError as failed:
            error = failed
            continue
        os.register_at_fork(after_in_child=server.socket.close)
        threading.Thread(target=server.serve_forever, name='metrics', daemon=True).start()
        logger.info('health and metrics are served', host=host, port=port)
        return
    why = (error.strerror or str(error)).partition(' (')[0] if error else ''
    logger.warning('cannot listen at METRICS_ADDRESS: health and metrics of this process are not served, but it '
                   'continues',
                   address=address, error=why)


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = AT_ONCE

    def __init__(self, host: str, port: int, pages: Mapping[str, Page]) -> None:
        self.address_family = socket.AF_INET6 if ':' in host else socket.AF_INET
        self.pages = pages
        self._room = threading.Semaphore(AT_ONCE)
        super().__init__((host, port), _Handler)

    @override
    def get_request(self) -> Any:
        try:
            return super().get_request()
        except OSError:
            # The selector reports it again immediately, for as long as no file descriptor is free.
            time.sleep(PAUSE)
            raise

    @override
    def verify_request(self, *_: Any) -> bool:
        return self._room.acquire(blocking=False)

    @override
    def process_request(self, *args: Any) -> None:
        try:
            super().process_request(*args)
        except BaseException:  # no thread can be started
            self._room.release()
            raise

    @override
    def process_request_thread(self, *args: Any) -> None:
        try:
            super().process_request_thread(*args)
        finally:
            self._room.release()

    @override
    def handle_error(self, *_: Any) -> None:
        """Ignore clients that are gone or too slow; log other errors."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            logger.error('a page about this process failed', error=type(error).__name__,
                         at=where(error) if error else None)


class _Handler(socketserver.BaseRequestHandler):
    server: _Server

    @override
    def handle(self) -> None:
        """Answer one request within the time-out."""
        until, head = time.monotonic() + SECONDS, b''
        while b'\r\n\r\n' not in head and len(head) < LARGEST:
            if (left := until - time.monotonic()) <= 0:
                return  # it sends its head byte by byte
            self.request.settimeout(left)
            piece = self.request.recv(4096)
            if not piece:
                return
            head += piece
        words = head.partition(b'\r\n')[0].decode('latin-1').split(' ')
        status, kind, content = self._page(words)
        lines = (f'HTTP/1.1 {status} {HTTPStatus(status).phrase}', f'Content-Type: {kind}',
                 f'Content-Length: {len(content)}', 'Cache-Control: no-store', 'Connection: close', '', '')
        self.request.settimeout(SECONDS)
        self.request.sendall('\r\n'.join(lines).encode() + (b'' if words[0] == 'HEAD' else content))

    def _page(self, words: list[str]) -> tuple[int, str, bytes]:
        if len(words) != 3:
            return 400, 'text/plain', b''
        if words[0] not in ('GET', 'HEAD'):
            return 405, 'text/plain', b''
        page = self.server.pages.get(words[1].partition('?')[0])
        return page() if page else (404, 'text/plain', b'')
