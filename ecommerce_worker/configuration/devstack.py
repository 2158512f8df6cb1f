"""A development stack of containers, described by a YAML file unless IGNORE_YAML_OVERRIDES is set."""

import contextlib

from .base import *  # noqa: F403

YAML_REQUIRED = True
YAML_OPT_OUT = 'IGNORE_YAML_OVERRIDES'

ECOMMERCE_API_ROOT = 'http://localhost:18130/api/v2/'

ALLOW_INSECURE_SECRETS = True

EMAIL_WITHOUT_VENDOR = 'outbox'

LOG_LEVEL = 'DEBUG'

# A developer's own settings, in a file that is never committed.
with contextlib.suppress(ModuleNotFoundError):
    from .private import *  # type: ignore[import-not-found,unused-ignore] # noqa: F403
