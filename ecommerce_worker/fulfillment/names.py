"""The name of the task by which shops have an order fulfilled; who only names it need not load it."""

from typing import Final

FULFILL: Final = 'ecommerce_worker.fulfillment.v1.tasks.fulfill_order'

#: The last part of it; a task of another package that is called so fulfils orders too.
SHORT_NAME: Final = 'fulfill_order'
