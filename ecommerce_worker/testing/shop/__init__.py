"""A stand-in for LMS and shop on 127.0.0.1: issues tokens, keeps an order book, fails as scripted.

    request ──► token known? ──no──► 401
                    │ yes
               order known? ──no──► 404            POST /oauth2/access_token/               a token
                    │ yes                          GET  /api/v2/orders/                     the orders, by pages
                    │                              GET  /api/v2/orders/<number>/            the order
           next step of its script                 PUT  /api/v2/orders/<number>/fulfill/    its fulfilment
                    │ none left
            as the shop does ──► 200 or 406        POST /api/v2/assignment-email/status/  what became of a mail

In this process: `with Shop() as shop: shop.url`. As a process of its own, with the same verbs: `ShopProcess`; from a
command line: `python -m ecommerce_worker.testing.shop`.
"""

from ecommerce_worker.testing.shop.book import (
    CLIENT_ID,
    CLIENT_SECRET,
    JWT_ISSUER,
    JWT_SECRET,
    Answer,
    Call,
    Order,
    read_calls,
)
from ecommerce_worker.testing.shop.process import ShopProcess
from ecommerce_worker.testing.shop.shop import Shop

__all__ = ['CLIENT_ID', 'CLIENT_SECRET', 'JWT_ISSUER', 'JWT_SECRET', 'Answer', 'Call', 'Order', 'Shop', 'ShopProcess',
           'read_calls']
