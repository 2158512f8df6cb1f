"""A console whose warnings are errors, and whose passwords are quickly tried."""

import sys
import warnings

from django.contrib.auth.hashers import PBKDF2PasswordHasher

from ecommerce_worker.console import server

if __name__ == '__main__':
    warnings.simplefilter('error')
    # What makes guessing slow makes tests slow.
    PBKDF2PasswordHasher.iterations = 1000
    server.run(lambda line: print(line, flush=True), sys.argv[1:])
