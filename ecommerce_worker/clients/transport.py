"""The transport of requests: connections of urllib3 whose sockets respect the limits of an exchange."""

from __future__ import annotations

import socket
import ssl
from typing import Any, Final

from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter
from typing_extensions import override
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError
from urllib3.util.ssl_ import create_urllib3_context, resolve_cert_reqs

from ecommerce_worker.clients import exchange
from ecommerce_worker.clients.exchange import Plain, connected, resolved, securing


class NameNotResolved(NewConnectionError):
    """The host name cannot be resolved; urllib3 has such an error only since version 2."""


class _Connecting:
    """What both kinds of connections do before anything is sent."""

    def _new_conn(self) -> Plain:
        host, port, timeout, options = (getattr(self, name) for name in (
            '_dns_host', 'port', 'timeout', 'socket_options'))
        try:
            return connected(resolved(host, port), timeout, options or ())
        except socket.gaierror:
            raise NameNotResolved(self, 'the host name could not be resolved') from None  # type: ignore[arg-type]
        except TimeoutError:
            raise ConnectTimeoutError(self, 'connecting took too long') from None
        except OSError:
            raise NewConnectionError(self, 'the connection could not be opened') from None  # type: ignore[arg-type]


class _Connection(_Connecting, HTTPConnection):
    response_class = exchange.Response


class _SecureConnection(_Connecting, HTTPSConnection):
    response_class = exchange.Response

    @override
    def connect(self) -> None:
        # One for each connection, as urllib3 has it: it adds the CA bundle to whichever it is given.
        self.ssl_context = securing(create_urllib3_context(cert_reqs=resolve_cert_reqs(self.cert_reqs)))
        super().connect()


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


_POOLS: Final = {'http': _Pool, 'https': _SecurePool}


class Transport(HTTPAdapter):
    """An adapter of requests that keeps within the exchange in which it is used, by whichever proxy but SOCKS.

    It is for one service, so that the pool of connections to that is looked up once, and takes no cookie.
    """

    _pool: Any = None

    @override
    def get_connection_with_tls_context(self, *given: Any, **named: Any) -> Any:
        """The pool of connections."""
        if self._pool is None or self._pool.pool is None:  # none yet, or closed
            self._pool = super().get_connection_with_tls_context(*given, **named)
        return self._pool

    @override
    def request_url(self, request: PreparedRequest, proxies: Any) -> str:
        """What stands in the first line of a request."""
        return super().request_url(request, proxies) if proxies else request.path_url

    @override
    def build_response(self, req: PreparedRequest, resp: Any) -> Response:
        """The answer, without the cookies that the adapter would read from it."""
        original, resp._original_response = resp._original_response, None  # noqa: SLF001 - where it looks for them
        try:
            return super().build_response(req, resp)
        finally:
            resp._original_response = original  # noqa: SLF001

    @override
    def init_poolmanager(self, *given: Any, **named: Any) -> None:
        """Like the adapter's, with our connections."""
        super().init_poolmanager(*given, **named)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    @override
    def proxy_manager_for(self, proxy: str, **named: Any) -> Any:
        """Like the adapter's, with our connections."""
        if proxy.lower().startswith('https:'):
            context: ssl.SSLContext = securing(create_urllib3_context())
            context.load_default_certs()
            named['proxy_ssl_context'] = context
        manager = super().proxy_manager_for(proxy, **named)
        if not proxy.lower().startswith('socks'):
            manager.pool_classes_by_scheme = _POOLS
        return manager
