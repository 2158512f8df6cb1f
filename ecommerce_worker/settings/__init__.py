"""The configuration in force: read in layers, checked as a whole, never changed afterwards.

::

    configuration.base  ←  settings module  ←  YAML file  ←  environment   ═►  Settings  ←  SITE_OVERRIDES[code]
                           WORKER_CONFIG-      ECOMMERCE_    ECOMMERCE_                     Settings.for_site(code)
                           URATION_MODULE      WORKER_CFG    WORKER_<NAME>

What each setting means is told in ``configuration.base``; ``settings.schema`` tells what it may be.
"""

from ecommerce_worker.settings.masking import environment_for_others, mask
from ecommerce_worker.settings.merging import load
from ecommerce_worker.settings.schema import DEFAULTS, SETTINGS
from ecommerce_worker.settings.values import Settings

__all__ = ['DEFAULTS', 'SETTINGS', 'Settings', 'environment_for_others', 'load', 'mask']
