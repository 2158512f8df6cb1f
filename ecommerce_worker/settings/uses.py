"""The secrets that each command uses: it starts without the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ecommerce_worker.settings.checks import CREDENTIALS, MAIL

BROKER: Final = frozenset({'BROKER_URL', 'BROKER_TRANSPORT_OPTIONS', 'BROKER_USE_SSL'})
LEDGER: Final = frozenset({'DATABASES'})
#: What opens the APIs of the shop and of the LMS.
APIS: Final = frozenset(CREDENTIALS)
MAILING: Final = frozenset({*MAIL, 'EMAIL_OPTIONS'})
JOBS: Final = frozenset({'DJANGO_PROJECT_ENVIRONMENT'})
#: Who reads the schedule looks whether it is whole.
SCHEDULE: Final = frozenset({'WAKE_UP_URL'})
PAGES: Final = frozenset({'CONSOLE_SECRET_KEY'})
INTAKE: Final = frozenset({'INTAKE_BROKER_URL'})
#: The keys by which learners are found.
LEARNERS: Final = frozenset({'LEARNER_KEY', 'LEARNER_KEY_BEFORE'})
DOCTOR: Final = frozenset({'MANAGEMENT_URL'})

#: All in which a secret may stand.  Those of INTAKES are read by who uses them.
ALL: Final = BROKER | LEDGER | APIS | MAILING | JOBS | SCHEDULE | PAGES | INTAKE | LEARNERS | DOCTOR

#: What those use that do not use everything.
_USED: Final[Mapping[str, frozenset[str]]] = {
    # The ledger is for its jobs, such as `resubmit`.
    'worker': BROKER | LEDGER | APIS | MAILING | JOBS | SCHEDULE | LEARNERS,
    'recorder': BROKER | LEDGER,
    'beat': BROKER | LEDGER | SCHEDULE,
    # The shop is asked before an order is sent again.
    'console': BROKER | LEDGER | APIS | SCHEDULE | PAGES | LEARNERS,
    'console-user': LEDGER | PAGES,
    'intake': BROKER | INTAKE,
    'migrate': LEDGER,
    'orders': LEDGER | LEARNERS,
    'status': BROKER | LEDGER | SCHEDULE,
    'flower': BROKER,
}


def unused(command: str) -> frozenset[str]:
    """The settings whose secrets this command does not use; empty for unknown commands."""
    return ALL - _USED.get(command, ALL)
