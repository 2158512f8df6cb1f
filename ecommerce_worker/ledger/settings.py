"""Django's settings for a process that keeps or reads the ledger; made of our configuration, for no other process."""

from ecommerce_worker import runtime
from ecommerce_worker.ledger.database import database

INSTALLED_APPS = ['ecommerce_worker.ledger.apps.LedgerConfig']

DATABASES = {'default': database(runtime.current().settings.DATABASES['default'])}

USE_TZ = True
TIME_ZONE = 'UTC'
USE_I18N = False

# Logging is ours, as LOGGING has it.
LOGGING_CONFIG = None
