"""The worker process: a Celery consumer that loses nothing."""
