"""Checks across settings that are each valid on their own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

from ecommerce_worker.settings.kinds import Secrecy
from ecommerce_worker.settings.masking import mask
from ecommerce_worker.settings.schema import SETTINGS, VENDORS
from ecommerce_worker.settings.values import SHIPPED, Settings, broker_scheme, broker_urls
from ecommerce_worker.words import did_you_mean

_OAUTH2 = ('BACKEND_SERVICE_EDX_OAUTH2_KEY', 'BACKEND_SERVICE_EDX_OAUTH2_SECRET')
CREDENTIALS = {'AUTHENTICATION', 'JWT_SECRET_KEY', 'ALLOW_INSECURE_SECRETS', *_OAUTH2}
DELAYS = {'RETRY_DELAY_MIN', 'RETRY_DELAY_MAX'}
MAIL = {'EMAIL_VENDOR', 'EMAIL_WITHOUT_VENDOR', *VENDORS}
BROKER_TLS = {'BROKER_URL', 'BROKER_USE_SSL'}
_GOOD_KEY = 32  # bytes, as many as an HS256 signature


def credential_problems(settings: Settings) -> Iterator[tuple[str, str]]:
    """Problems by setting: secrets that are missing or publicly known."""
    way = settings.authentication
    remedy = (f' (AUTHENTICATION is {way})' if settings.AUTHENTICATION != 'auto' else
              f'; set {" and ".join(_OAUTH2)} for oauth2, or JWT_SECRET_KEY for jwt')
    for name in ('JWT_SECRET_KEY',) if way == 'jwt' else _OAUTH2:
        value = getattr(settings, name)
        if not value:
            if settings.AUTHENTICATION != 'auto' or not settings.ALLOW_INSECURE_SECRETS:
                yield name, f'is not set, but {way} authentication needs it{remedy}'
        elif value in SHIPPED and SETTINGS[name].secrecy is Secrecy.WHOLE and not settings.ALLOW_INSECURE_SECRETS:
            yield name, f'is the publicly known default, which production refuses{remedy}'
    secret = settings.BACKEND_SERVICE_EDX_OAUTH2_SECRET
    if way == 'jwt' and settings.PRODUCTS and (not secret or secret in SHIPPED) and not settings.ALLOW_INSECURE_SECRETS:
        yield _OAUTH2[1], 'is not set, but PRODUCTS needs it: the LMS supports no other authentication'


def delay_problems(settings: Settings) -> Iterator[tuple[str, str]]:
    """Problems by setting: delays that contradict each other."""
    least, most = settings.RETRY_DELAY_MIN, settings.RETRY_DELAY_MAX
    if least > most:
        yield 'RETRY_DELAY_MIN', f'({least}) is more than RETRY_DELAY_MAX ({most})'


def mail_problems(settings: Settings) -> Iterator[tuple[str, str]]:
    """Problems by setting: mail without a vendor."""
    if not settings.email_vendor and settings.EMAIL_WITHOUT_VENDOR == 'refuse':
        yield 'EMAIL_VENDOR', ('is not set, and neither Braze nor Sailthru is enabled: no mail would be sent; set '
                               'it (smtp, say), or EMAIL_WITHOUT_VENDOR: park')


def tls_problems(settings: Settings) -> Iterator[tuple[str, str]]:
    """Problems by setting: TLS options that the broker does not support."""
    tls = settings.BROKER_USE_SSL
    if isinstance(tls, dict) and 'server_hostname' in tls and broker_scheme(settings) == 'redis':
        yield 'BROKER_USE_SSL', '[server_hostname] is for RabbitMQ; with Redis, name that host in BROKER_URL'


def _tls_remarks(settings: Settings) -> Iterator[tuple[str, str]]:
    tls, urls = settings.BROKER_USE_SSL, broker_urls(settings)
    said = tls if isinstance(tls, dict) else {}
    if said.get('cert_reqs') == 'none':
        yield 'BROKER_USE_SSL', 'trusts any server: cert_reqs is none'
    elif tls and len(urls) > 1 and 'server_hostname' not in said and said.get('check_hostname', True):
        yield 'BROKER_USE_SSL', ('does not compare host names, since BROKER_URL names several brokers; '
                                 'set server_hostname to compare them')
    elif not tls and urls[0].startswith('rediss:') and 'ssl_cert_reqs' not in urls[0]:
        yield 'BROKER_USE_SSL', 'is not set, so the certificate of Redis is not verified; true verifies it'
    elif not tls and urls[0].startswith('amqps:'):
        yield 'BROKER_USE_SSL', ('is not set, so certificates of any host are accepted; '
                                 'true compares the host name')


# Where shops publish: since June 2019, until then, and before that or by default.
PUBLISHED_TO = ('ecommerce.fulfillment', 'ecommerce.email_marketing', 'ecommerce.default')
_ONCE_PUBLISHED_TO = ('fulfillment', 'email_marketing', 'celery', 'ecommerce')


def queue_remarks(consumed: Iterable[str], extensions: Iterable[str] = ()) -> Iterator[str]:
    """Remarks on the queues that a worker consumes: those without a publisher, and missing ones.

    Each of the ``extensions`` has a queue of its name.
    """
    consumed, extensions = list(consumed), list(extensions)
    if missing := [name for name in PUBLISHED_TO if name not in consumed]:
        yield f'does not consume {", ".join(missing)}, to which shops publish: another worker must'
    if missing := [name for name in extensions if name not in consumed]:
        yield f'does not consume {", ".join(missing)}, to which extensions publish: another worker must'
    for name in consumed:
        if name not in (*PUBLISHED_TO, *_ONCE_PUBLISHED_TO, *extensions):
            yield (f'consumes {name}, to which no shop publishes by default'
                   f'{did_you_mean(name, PUBLISHED_TO, 0.75)}')


def remarks_on(settings: Settings, given: set[str]) -> Iterator[tuple[str, str]]:
    """Remarks by setting: not mistakes, but worth knowing."""
    way = settings.authentication
    if 'QUEUES' in given:
        for remark in queue_remarks(settings.QUEUES, settings.EXTENSIONS):
            yield 'QUEUES', remark
    if 'BROKER_URL' in given:
        yield from _tls_remarks(settings)
    if 'JWT_SECRET_KEY' in given and settings.JWT_SECRET_KEY:
        if way == 'jwt' and len(settings.JWT_SECRET_KEY.encode()) < _GOOD_KEY:
            yield 'JWT_SECRET_KEY', f'is shorter than {_GOOD_KEY} bytes, which makes it easier to guess'
        if way == 'oauth2' and not given & set(_OAUTH2):
            yield 'JWT_SECRET_KEY', 'is not used with oauth2; AUTHENTICATION: jwt would use it'
    if not settings.email_vendor and MAIL & given:
        yield 'EMAIL_VENDOR', 'is not set, and neither Braze nor Sailthru is enabled: mail is parked'
    if settings.ALLOW_INSECURE_SECRETS:
        return
    for name in ('ECOMMERCE_API_ROOT', *(['BACKEND_SERVICE_EDX_OAUTH2_PROVIDER_URL'] if way == 'oauth2' else []),
                 *(['LMS_ROOT_URL'] if settings.PRODUCTS else [])):
        url = getattr(settings, name)
        # Whoever says what is sold, and no LMS, has that of a development machine.
        is_meant = name in given or (name == 'LMS_ROOT_URL' and 'PRODUCTS' in given)
        if is_meant and urlsplit(url).hostname in ('127.0.0.1', 'localhost', '::1'):
            yield name, f'is {mask(name, url)}, on this machine itself'
