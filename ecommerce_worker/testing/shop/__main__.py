"""``python -m ecommerce_worker.testing.shop``."""

from ecommerce_worker.testing.shop.process import main

main()
