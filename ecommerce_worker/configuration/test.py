"""Tests: tasks run where they are called, and no outside service is expected to be there."""

from .base import *  # noqa: F403

CELERY_ALWAYS_EAGER = True

ECOMMERCE_API_ROOT = 'http://localhost:8002/api/v2/'
ECOMMERCE_SERVICE_USERNAME = 'service'

SITE_OVERRIDES: dict[str, dict[str, object]] = {}

ALLOW_INSECURE_SECRETS = True

EMAIL_WITHOUT_VENDOR = 'outbox'
