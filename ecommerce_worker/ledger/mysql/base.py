"""Django's MySQL and MariaDB for a ledger: with a pure Python driver, and with exact look-ups."""

from fnmatch import fnmatch

import pymysql
from typing_extensions import override

# Django knows its driver by the name of another one.
pymysql.install_as_MySQLdb()

from django.db import NotSupportedError  # noqa: E402
from django.db.backends.mysql import base  # noqa: E402


class DatabaseWrapper(base.DatabaseWrapper):
    """Django's wrapper, for databases in which EDX-1 and edx-1 are two orders."""

    # With `LIKE BINARY`, as Django has it, no index is used; in such a database it says the same.
    operators = base.DatabaseWrapper.operators | {'startswith': 'LIKE %s', 'endswith': 'LIKE %s'}

    @override
    def check_database_version_supported(self) -> None:
        """Raise ``NotSupportedError`` for another database too: at the first connection of a process."""
        super().check_database_version_supported()
        with self.cursor() as cursor:
            cursor.execute('SELECT DATABASE(), @@collation_database')
            name, collation = cursor.fetchone()
        if not fnmatch(collation, 'utf8mb4_*bin'):
            raise NotSupportedError(f'its collation, {collation}, ignores case and would mix up orders: ALTER DATABASE '
                                    f'{self.ops.quote_name(name)} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin')
