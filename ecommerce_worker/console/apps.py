"""The Django application."""

from django.apps import AppConfig


class ConsoleConfig(AppConfig):
    """The console's."""

    name = 'ecommerce_worker.console'
    label = 'console'
    default_auto_field = 'django.db.models.BigAutoField'
