"""The names of the tasks that enrol learners; who only names them need not load them."""

from typing import Final

_TASKS: Final = 'ecommerce_worker.enrolment.tasks'

#: Takes back what the refunded lines of an order paid for.
REVOKE: Final = f'{_TASKS}.revoke'

#: The tasks of the lines of orders, whose ends the ledger is to know whatever becomes of the worker.
ENROLL_LINE: Final = f'{_TASKS}.enroll_line'
SET_MODE: Final = f'{_TASKS}.set_mode'
REVOKE_LINE: Final = f'{_TASKS}.revoke_line'
LINES: Final = (ENROLL_LINE, SET_MODE, REVOKE_LINE)
