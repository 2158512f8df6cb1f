"""Where log lines go, as a dictionary for ``logging.config.dictConfig``; building one touches no disk and no socket."""

import platform
import sys
from collections.abc import Mapping
from logging import getLevelNamesMapping
from logging.handlers import SysLogHandler
from pathlib import Path
from typing import Any

SYSLOG_SOCKET = '/var/run/syslog' if sys.platform == 'darwin' else '/dev/log'


def get_logger_config(
    log_dir: str = '/var/tmp',  # noqa: S108
    logging_env: str = 'no_env',
    edx_filename: str = 'edx.log',
    dev_env: bool = False,
    debug: bool = False,
    local_loglevel: str = 'INFO',
    service_variant: str = 'ecomworker',
) -> dict[str, Any]:
    """Log lines to the console and to ``local``: a rotating file if ``dev_env``, else the machine's syslog.

    ``log_dir`` and ``edx_filename`` name the file; it is opened with the first line written to it, so whoever wants no
    file pops ``local`` from the handlers. ``logging_env`` and ``service_variant`` mark each line in the syslog.
    ``debug`` lets the console show everything. An invalid ``local_loglevel`` counts as ``INFO``.
    """
    levels = getLevelNamesMapping()
    local_level = local_loglevel if local_loglevel in levels else 'INFO'
    console_level = 'DEBUG' if debug else 'INFO'
    host = platform.node().partition('.')[0]
    return {
        'version': 1,
        'disable_existing_loggers': False,
        'formatters': {
            'standard': {
                'format': '%(asctime)s %(levelname)s %(process)d [%(name)s] %(filename)s:%(lineno)d - %(message)s',
            },
            'syslog': {
                'format': f'[service_variant={service_variant}][%(name)s][env:{logging_env}] %(levelname)s '
                          f'[{host} %(process)d] [%(filename)s:%(lineno)d] - %(message)s',
            },
        },
        'handlers': {
            'console': {
                'class': 'logging.StreamHandler',
                'level': console_level,
                'formatter': 'standard',
                'stream': 'ext://sys.stdout',
            },
            'local': {
                'class': 'logging.handlers.RotatingFileHandler',
                'level': local_level,
                'formatter': 'standard',
                'filename': str(Path(log_dir) / edx_filename),
                'maxBytes': 2 * 1024 * 1024,
                'backupCount': 5,
                'encoding': 'utf-8',
                'delay': True,
            } if dev_env else {
                'class': 'logging.handlers.SysLogHandler',
                'level': local_level,
                'formatter': 'syslog',
                'address': SYSLOG_SOCKET,
                'facility': SysLogHandler.LOG_LOCAL0,
            },
        },
        # A list for each logger, not one for both: whoever removes `local` from one must find it in the other too.
        'loggers': {
            'requests': {'handlers': ['console', 'local'], 'level': 'WARNING', 'propagate': False},
            # As much as the more curious of the two handlers wants.
            '': {'handlers': ['console', 'local'], 'level': min(console_level, local_level, key=levels.__getitem__),
                 'propagate': False},
        },
    }


def without_missing_handlers(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same logging, its loggers relieved of handlers that are not defined: popping a handler is enough.

    ``dictConfig`` would refuse the whole of it for one name left behind.
    """
    defined = config.get('handlers', {})

    def relieved(logger: Mapping[str, Any]) -> dict[str, Any]:
        kept = [handler for handler in logger.get('handlers', ()) if handler in defined]
        return {**logger, 'handlers': kept} if 'handlers' in logger else dict(logger)

    result = dict(config)
    if 'loggers' in config:
        result['loggers'] = {name: relieved(logger) for name, logger in config['loggers'].items()}
    if 'root' in config:
        result['root'] = relieved(config['root'])
    return result
