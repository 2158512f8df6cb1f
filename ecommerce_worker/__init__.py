"""The order-fulfilment worker of a shop: it calls REST APIs until each paid order is fulfilled."""

__version__ = '4.0.0'


def __getattr__(name: str) -> object:
    """``celery -A ecommerce_worker worker`` looks here for the application: made when it is asked for, and only then.

    Raises AttributeError for any other name.
    """
    if name not in ('app', 'celery'):
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from ecommerce_worker.celery_app import app

    return app
