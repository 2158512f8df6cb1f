"""Scheduled jobs: management commands of a Django project, and the entries of ``SCHEDULE``."""
