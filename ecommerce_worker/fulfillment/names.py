"""The names of tasks that fulfil orders; who only names them need not load them."""

from typing import Final

from ecommerce_worker.enrolment.names import LINES

#: The task by which shops have an order fulfilled.
FULFILL: Final = 'ecommerce_worker.fulfillment.v1.tasks.fulfill_order'

#: The last part of it; a task of another package that is called so fulfils orders too.
SHORT_NAME: Final = 'fulfill_order'

#: What may be run again without harm, since it asks how things stand first.
REPEATABLE: Final = frozenset((FULFILL, *LINES))
