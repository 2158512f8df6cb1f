"""The ``ecommerce-worker`` command, to which each module adds subcommands."""

from __future__ import annotations

import click

from ecommerce_worker import __version__
from ecommerce_worker.process import role

CONTEXT = {'help_option_names': ['-h', '--help'], 'max_content_width': 110}


@click.group(context_settings=CONTEXT)
@click.version_option(__version__, prog_name='ecommerce-worker')
@click.pass_context
def main(context: click.Context) -> None:
    """Fulfil the orders that a shop publishes on RabbitMQ.

    The configuration is chosen by WORKER_CONFIGURATION_MODULE (ecommerce_worker.configuration.local if unset), a
    YAML file named by ECOMMERCE_WORKER_CFG, and variables ECOMMERCE_WORKER_<SETTING>.
    """
    role.be(context.invoked_subcommand or '')
