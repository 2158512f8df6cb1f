"""Django's settings for a process that writes or reads the ledger, made from our configuration."""

from ecommerce_worker import runtime
from ecommerce_worker.ledger.database import database

INSTALLED_APPS = ['ecommerce_worker.ledger.apps.LedgerConfig']

DATABASES = {'default': database(runtime.current().settings.DATABASES['default'])}

USE_TZ = True
TIME_ZONE = 'UTC'
USE_I18N = False

# Logging is ours, as LOGGING has it.
LOGGING_CONFIG = None
