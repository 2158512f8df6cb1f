"""Jobs that run by the clock: management commands of a Django project, and the entries of ``SCHEDULE``."""
