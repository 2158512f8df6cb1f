"""How long commands take that do next to nothing: most of it is imports.

    python -m benchmarks.startup
    python -m benchmarks.startup --sites 2000 --repeat 9

Prints seconds and CPU seconds (median, least) and the most memory of each; ``--sites`` gives the configuration so many
sites of their own.  How long a worker takes to its first order is in the table of ``make benchmark``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import yaml

from benchmarks.processes import environment
from ecommerce_worker.testing.rabbitmq import PrivateNode

#: What is run, and the status that it ends with; there is no worker for `status` to find.
COMMANDS: Final = {
    'python -c pass': 0, '--version': 0, '--help': 0, 'worker --help': 0, 'check': 0, 'status': 1,
    'parked list': 0, 'orders list': 0, 'resubmit --help': 0}


def configuration(sites: int, node: PrivateNode, directory: Path) -> Path:
    """The file of a configuration with so many sites of their own."""
    path = directory / 'worker.yaml'
    path.write_text(yaml.safe_dump({
        'BROKER_URL': node.url, 'DATABASES': {'default': {'NAME': str(directory / 'ledger.sqlite3')}},
        'ALLOW_INSECURE_SECRETS': True,
        'SITE_OVERRIDES': {f'site-{number}': {
            'ECOMMERCE_API_ROOT': f'https://shop-{number}.example.com/api/v2/',
            'BACKEND_SERVICE_EDX_OAUTH2_PROVIDER_URL': f'https://lms-{number}.example.com/oauth2',
            'BACKEND_SERVICE_EDX_OAUTH2_KEY': f'key-{number}', 'BACKEND_SERVICE_EDX_OAUTH2_SECRET': f'secret-{number}'}
            for number in range(sites)}}))
    return path


def measure(words: list[str], environment: dict[str, str], status: int | None) -> tuple[float, float, float]:
    """Seconds, CPU seconds and megabytes of one run."""
    begun = time.monotonic()
    process = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stderr
    said = process.stdout.read(), process.stderr.read()
    _, ended, used = os.wait4(process.pid, 0)
    seconds = time.monotonic() - begun
    process.returncode = os.waitstatus_to_exitcode(ended)
    if status is not None and process.returncode != status:
        raise SystemExit(f'{words} ended with {process.returncode}: {said}')
    return seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--repeat', type=int, default=7)
    parser.add_argument('--sites', type=int, default=0)
    parser.add_argument('--only', nargs='*', default=list(COMMANDS))
    options = parser.parse_args()
    with PrivateNode() as node, tempfile.TemporaryDirectory() as made:
        directory = Path(made)
        given = environment(CFG=configuration(options.sites, node, directory))
        program = [sys.executable, '-m', 'ecommerce_worker']
        subprocess.run([*program, 'migrate'], env=given, check=True, stdout=subprocess.DEVNULL)
        found: dict[str, list[tuple[float, float, float]]] = {command: [] for command in options.only}
        for number in range(options.repeat + 1):
            for command, rows in found.items():
                words = [sys.executable, *command.split()[1:]] if command.startswith('python') else [
                    *program, *command.split()]
                row = measure(words, given, COMMANDS.get(command))
                # The first one reads files that the others find in memory.
                if number:
                    rows.append(row)
    print(f'{options.sites} sites, median of {options.repeat}, load {os.getloadavg()[0]:.1f}')
    print(f'{"":20}{"seconds":>10}{"least":>8}{"CPU s":>8}{"MB":>8}')
    for command, rows in found.items():
        seconds, cpu, memory = zip(*rows, strict=True)
        print(f'{command:20}{statistics.median(seconds):10.2f}{min(seconds):8.2f}{statistics.median(cpu):8.2f}'
              f'{max(memory):8.0f}')


if __name__ == '__main__':
    main()
