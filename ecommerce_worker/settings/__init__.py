"""The configuration in force: read in layers, checked as a whole, never changed afterwards.

::

    configuration.base  ←  settings module  ←  YAML file  ←  environment   ═►  Settings  ←  SITE_OVERRIDES[code]
                           WORKER_CONFIG-      ECOMMERCE_    ECOMMERCE_                     Settings.for_site(code)
                           URATION_MODULE      WORKER_CFG    WORKER_<NAME>

The meaning of each setting is in ``configuration.base``, its kind in ``settings.schema``.
"""

from ecommerce_worker.settings.checks import queue_remarks
from ecommerce_worker.settings.extensions import API, Extension, Group
from ecommerce_worker.settings.files import certificate_problems, in_home
from ecommerce_worker.settings.layers import environment_with, log_format, yaml_path
from ecommerce_worker.settings.masking import environment_for_others, mask
from ecommerce_worker.settings.merging import Examined, examine, load
from ecommerce_worker.settings.schema import DEFAULTS, SETTINGS, VENDORS
from ecommerce_worker.settings.values import Settings, broker_scheme, broker_urls, scheme_of

__all__ = ['API', 'DEFAULTS', 'SETTINGS', 'VENDORS', 'Examined', 'Extension', 'Group', 'Settings', 'broker_scheme',
           'broker_urls', 'certificate_problems', 'environment_for_others', 'environment_with', 'examine', 'in_home',
           'load', 'log_format', 'mask', 'queue_remarks', 'scheme_of', 'yaml_path']
