"""The worker's side of Celery: a consumer that loses nothing."""
