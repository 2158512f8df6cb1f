"""The chaos suite: orders go through while everything around them breaks; what became of each is counted at the end.

::

    orders ──► RabbitMQ ──(proxy)──► workers ──(proxy)──► shop          harness: the scene, and the count at its end
                  ▲         ▲           ▲         ▲         ▲           proxy: a network that freezes and cuts
                  └─────────┴───── fault ─────────┴─────────┘           faults: what breaks, and how often

``python -m ecommerce_worker.tests.chaos --help`` runs it; ``tests/broker/test_chaos.py`` is its short form.
``stock`` is a worker of another kind, to compare with.
"""
