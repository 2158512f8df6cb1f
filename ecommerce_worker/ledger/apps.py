"""The Django application."""

from django.apps import AppConfig


class LedgerConfig(AppConfig):
    """The Django application of the ledger."""

    name = 'ecommerce_worker.ledger'
    label = 'ledger'
    default_auto_field = 'django.db.models.BigAutoField'
