"""A server: described by the YAML file named by ECOMMERCE_WORKER_CFG, with secrets of its own."""

from .base import *  # noqa: F403

YAML_REQUIRED = True

EMAIL_WITHOUT_VENDOR = 'refuse'
