"""Which settings a worker runs with: ``base`` lists them all, the modules beside it hold only what differs.

Nothing here reads the environment, a file or the network when it is imported; ``ecommerce_worker.settings`` does, on
request. A settings package of one's own may be put beside these modules: ``from ..base import *``, then what differs.
"""

import os

#: Name of the environment variable that names the settings module.
CONFIGURATION_MODULE = 'WORKER_CONFIGURATION_MODULE'


def get_overrides_filename(variable: str) -> str:
    """Path of the YAML file of overrides that the environment variable names; EnvironmentError if it names none.

    Settings modules written for older workers call it. It is not needed any more: the worker itself lays the file
    named by ``ECOMMERCE_WORKER_CFG`` over whichever module is in use.
    """
    try:
        return os.environ[variable]
    except KeyError:
        message = f'The environment variable {variable} must name the YAML file of settings; it is not set.'
        raise OSError(message) from None
