"""How ``edx-ecommerce-worker`` is packaged."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent


def version() -> str:
    """The version the package states of itself, read without importing it (its dependencies may not be there yet)."""
    source = (HERE / 'ecommerce_worker' / '__init__.py').read_text(encoding='utf-8')
    found = re.search(r"^__version__\s*=\s*['\"]([^'\"]+)['\"]", source, re.MULTILINE)
    if found is None:
        raise SystemExit('ecommerce_worker/__init__.py states no __version__')
    return found.group(1)


def requirements() -> list[str]:
    """What an installation needs: ranges, so that a shop can install this beside its own pins."""
    lines = (HERE / 'requirements' / 'base.in').read_text(encoding='utf-8').splitlines()
    stripped = (line.partition('#')[0].strip() for line in lines)
    return [line for line in stripped if line]


def long_description() -> str:
    """README.rst, where there is one."""
    readme = HERE / 'README.rst'
    return readme.read_text(encoding='utf-8') if readme.exists() else ''


# Beyond what a shop needs to publish: what each kind of process imports. The pins are in requirements/production.txt.
LEDGER = ['Django>=5.2,<6']
CONSOLE = [*LEDGER, 'django-axes>=8,<9', 'waitress>=3.0.2,<4', 'whitenoise>=6.7,<7']
EXTRAS = {
    # The waiting room of RabbitMQ is made by what came with these.
    'worker': ['celery>=5.7', 'kombu>=5.7'],
    'ledger': LEDGER,
    'console': CONSOLE,
    'intake': ['waitress>=3.0.2,<4'],
    'up': [*CONSOLE, 'circus>=0.19,<0.20'],
    # /metrics at METRICS_ADDRESS, for Prometheus.
    'metrics': ['prometheus-client>=0.20'],
    'postgresql': ['psycopg[binary]>=3.2,<4'],
    'mysql': ['PyMySQL>=1.2,<2'],
    # A monitor of workers (`ecommerce-worker flower`); 2.2 is the first that can be read-only.
    'flower': ['flower>=2.2'],
}

setup(
    name='edx-ecommerce-worker',
    version=version(),
    description='The worker behind a shop: it fulfils paid orders and sends their mail, whatever the network does.',
    long_description=long_description(),
    long_description_content_type='text/x-rst',
    license='AGPL-3.0-only',
    license_files=['LICENSE.txt'],
    keywords='ecommerce celery rabbitmq worker fulfillment edx',
    classifiers=[
        'Development Status :: 5 - Production/Stable',
        'Environment :: No Input/Output (Daemon)',
        'Intended Audience :: Developers',
        'Intended Audience :: System Administrators',
        'Operating System :: POSIX',
        'Programming Language :: Python',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3 :: Only',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
        'Programming Language :: Python :: 3.14',
        'Typing :: Typed',
    ],
    python_requires='>=3.11',
    # The tests stay in the repository: they need a RabbitMQ program and are of no use beside a shop.
    packages=find_packages(include=['ecommerce_worker', 'ecommerce_worker.*'], exclude=['ecommerce_worker.tests*']),
    package_data={'ecommerce_worker': [
        'py.typed', 'email/templates/*.html',
        'console/templates/*.html', 'console/templates/*/*.html', 'console/static/console/*']},
    install_requires=requirements(),
    extras_require={**EXTRAS, 'all': sorted({needed for extra in EXTRAS.values() for needed in extra})},
    entry_points={'console_scripts': ['ecommerce-worker = ecommerce_worker.cli:main']},
    zip_safe=False,
)
