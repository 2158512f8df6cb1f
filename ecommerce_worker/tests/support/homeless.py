"""Our commands under a user whom the machine does not know."""

import os
import pwd
import runpy
import sys


def nobody(number: int) -> None:
    """As in a container that runs as a user of no name."""
    raise KeyError(f'getpwuid(): uid not found: {number}')


if __name__ == '__main__':
    os.environ.pop('HOME', None)
    pwd.getpwuid = nobody  # type: ignore[assignment]
    sys.argv[0] = 'ecommerce-worker'
    runpy.run_module('ecommerce_worker', run_name='__main__')
