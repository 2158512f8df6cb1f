"""``python -m ecommerce_worker`` is the ``ecommerce-worker`` command."""

from ecommerce_worker.cli import main

main(prog_name='ecommerce-worker')
