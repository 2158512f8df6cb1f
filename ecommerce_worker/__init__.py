"""The order-fulfilment worker of a shop: it calls REST APIs until each paid order is fulfilled."""

__version__ = '4.0.0'
