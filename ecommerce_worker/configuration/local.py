"""A developer's machine: everything on it, nothing to keep secret."""

from .base import *  # noqa: F403

# The user that a fresh RabbitMQ has.
BROKER_URL = 'amqp://guest:guest@127.0.0.1:5672//'

ECOMMERCE_API_ROOT = 'http://localhost:8002/api/v2/'

ALLOW_INSECURE_SECRETS = True

EMAIL_WITHOUT_VENDOR = 'outbox'
