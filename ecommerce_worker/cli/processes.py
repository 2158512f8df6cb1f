"""The commands that run processes: ``worker``, ``recorder``, ``beat`` and ``up``."""

from __future__ import annotations

import os
import secrets
import socket
import sys
from itertools import zip_longest
from typing import NoReturn

import click

from ecommerce_worker import runtime, settings
from ecommerce_worker.cli.options import DURATION, leveled
from ecommerce_worker.cli.output import fail, needs, running, say
from ecommerce_worker.cli.resources import application
from ecommerce_worker.cli.root import main


# Celery's short options take their value without a space (-Qhigh), so none of ours may be short.
@main.command(context_settings={'ignore_unknown_options': True, 'help_option_names': ['--help']})
@click.option('--debug', is_flag=True, help='Log at level DEBUG.')
@click.option('--wait', default='0s', type=DURATION, help='How long to wait for a broker that is still booting.')
@click.option('--processes', metavar='N', help='Number of processes, or auto for one per processor '
              '[default: WORKER_PROCESSES].')
@click.argument('celery_options', nargs=-1, type=click.UNPROCESSED, metavar='[CELERY OPTIONS]...')
@running
def worker(debug: bool, wait: float, processes: str | None, celery_options: tuple[str, ...]) -> None:
    """Run a worker until stopped.

    SIGTERM lets it finish running tasks, for up to SHUTDOWN_SECONDS; a second one, or SIGQUIT, does not wait.  Nothing
    is lost either way: unfinished messages are delivered again.

    With `--processes` above 1, each process has its own connection and threads and is restarted if it exits; signals to
    the parent are passed on to all.

    Pool, concurrency and queues come from the configuration.  Options not listed below are passed on to Celery's
    worker, such as `--concurrency 64`, `--pool prefork`, `-Q ecommerce.fulfillment` (see `celery worker --help`).

    Exit status: 1 for a wrong configuration, 69 if the broker is unreachable, 77 if it refuses the login or lacks a
    permission that the worker needs, 78 if it cannot be trusted with orders.
    """
    if '-h' in celery_options:
        click.echo(click.get_current_context().get_help())
        return
    if (count := _count(processes)) > 1:
        _several(count, [*(['--debug'] if debug else []), f'--wait={wait:g}s', *celery_options])

    from celery.bin.base import CLIContext
    from celery.bin.worker import worker as celerys

    from ecommerce_worker.broker import preflight
    from ecommerce_worker.worker import command_line

    for option in ('--purge', '--discard'):
        if option in celery_options:
            fail(f'{option} would destroy orders; see `ecommerce-worker queues purge`', 2)
    if any(option in celery_options for option in command_line.DETACHED):
        fail('-D is not supported: use systemd, supervisor or a container, or `celery -A ecommerce_worker worker -D '
             '--logfile FILE`', 2)
    conf = runtime.current().settings
    runtime.current().check()
    app = application()
    if pool := _said(celery_options, '-P', '--pool'):
        try:
            # Celery takes the word prefork for its own default, which gives way to what is configured.
            app.conf.worker_pool = settings.SETTINGS['WORKER_POOL'].read(pool)
        except ValueError:
            fail(f'--pool must be {settings.SETTINGS["WORKER_POOL"].wants}', 2)
    if wait:
        preflight.wait(app, conf, wait, lambda said: say(f'ecommerce-worker: {said}', err=True))
    preflight.check(app, conf)
    for remark in conf.remarks:
        say(f'ecommerce-worker: note: {remark}', err=True)
    ours = [f'--loglevel={"DEBUG" if debug else conf.LOG_LEVEL}']
    if _said(celery_options, '-n', '--hostname') is None:
        # In containers of one host name all have the same process id; who asks workers tells them apart by name.
        ours.append(f'--hostname=ecommerce-{os.getpid()}-{secrets.token_hex(3)}@{socket.gethostname()}')
    # Not app.worker_main(), which keeps the exit status to itself; nor by way of `celery`, which imports all of its
    # commands, a shell for AMQP too: a sixth of a worker's start.
    celerys.params.extend(app.user_options['worker'])
    sys.exit(celerys.main([*ours, *celery_options], prog_name='ecommerce-worker worker', standalone_mode=False,
                          obj=CLIContext(app=app, no_color=None, workdir=None)))


def _count(given: str | None) -> int:
    """The number of processes to run."""
    try:
        count = settings.SETTINGS['WORKER_PROCESSES'].read(given or runtime.current().settings.WORKER_PROCESSES)
    except ValueError:
        fail(f'--processes must be {settings.SETTINGS["WORKER_PROCESSES"].wants}', 2)
    return len(os.sched_getaffinity(0)) if count == 'auto' else int(count)


def _several(count: int, options: list[str]) -> NoReturn:
    """Run this many workers until stopped."""
    from ecommerce_worker.process import several

    for short, long in (('-n', '--hostname'), ('--pidfile', '--pidfile'), ('-S', '--statedb')):
        if _said(tuple(options), short, long) is not None:
            fail(f'{long} cannot be shared by several processes: omit it, or use --processes 1', 2)
    conf = runtime.current().settings
    address, _, first = conf.METRICS_ADDRESS.rpartition(':')
    ports = {}
    if first.isdigit():
        # Of a range each takes the first port that is free.
        ports['ECOMMERCE_WORKER_METRICS_ADDRESS'] = f'{address}:{first}-{int(first) + count - 1}'
    workers = several.Several(
        [sys.executable, '-m', 'ecommerce_worker', 'worker', '--processes=1', *options], count, 'worker',
        environment=ports, tell=lambda line: say(f'ecommerce-worker: {line}', err=True))
    sys.exit(workers.run(directory=conf.HEALTH_DIR, health_seconds=conf.HEALTH_SECONDS,
                         shutdown_seconds=conf.SHUTDOWN_SECONDS))


def _said(options: tuple[str, ...], short: str, long: str) -> str | None:
    """The value of an option of Celery's, in any of its spellings; the last one counts."""
    said = None
    for option, following in zip_longest(options, options[1:]):
        if option in (short, long):
            said = following
        elif option.startswith(f'{long}='):
            said = option.removeprefix(f'{long}=')
        elif option.startswith(short):
            said = option.removeprefix(short)
    return said


@main.command()
@leveled
@needs('ledger', 'django')
@running
def recorder(level: str | None) -> None:
    """Record reports and parked messages in the ledger.

    Runs until stopped.
    """
    from ecommerce_worker import celery_app
    from ecommerce_worker.ledger import setup

    app = application()
    celery_app.configure_logging(level)
    setup.open_ledger()
    from ecommerce_worker.ledger import recorder as recording  # not before the ledger is open

    recording.keep(app, runtime.current().settings)


@main.command()
@leveled
@running
def beat(level: str | None) -> None:
    """Publish the jobs of SCHEDULE when they are due.

    Runs until stopped; several may run.
    """
    from ecommerce_worker import celery_app
    from ecommerce_worker.ledger import stores
    from ecommerce_worker.schedule import beat as beats

    app = application()
    celery_app.configure_logging(level)
    conf = runtime.current().settings
    beats.run(app, conf, stores.firings_of(conf, stores.ledger_unused))


@main.command()
@click.option('--debug', is_flag=True, help='Log at level DEBUG.')
@needs('up', 'circus', 'django', 'axes', 'waitress', 'whitenoise')
@running
def up(debug: bool) -> None:
    """Run all processes of a small site together.

    These are recorder, worker, console, beat and, if INTAKES is not empty, intake.  The ledger is migrated first.  A
    process that exits is restarted.  SIGTERM stops them one after the other; the worker finishes running tasks.
    """
    from ecommerce_worker.cli import up as together
    from ecommerce_worker.ledger import setup

    runtime.current().check()
    setup.migrate()
    together.run(runtime.current().settings, say, debug=debug)
