"""The name of the task by which shops have an order fulfilled; who only names it need not load it."""

from typing import Final

from ecommerce_worker.enrolment.cover import LINES

FULFILL: Final = 'ecommerce_worker.fulfillment.v1.tasks.fulfill_order'

#: The last part of it; a task of another package that is called so fulfils orders too.
SHORT_NAME: Final = 'fulfill_order'

#: What may be run again without harm, since it asks how things stand first.
REPEATABLE: Final = frozenset((FULFILL, *LINES))
