"""The Django application."""

from django.apps import AppConfig


class ConsoleConfig(AppConfig):
    """The Django application of the console."""

    name = 'ecommerce_worker.console'
    label = 'console'
    default_auto_field = 'django.db.models.BigAutoField'
