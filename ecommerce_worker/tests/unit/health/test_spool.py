"""What lies in a spool, by the names of its files."""

import os

import pytest

from ecommerce_worker.health.spool import Spooled, look
from ecommerce_worker.settings import load
from ecommerce_worker.tests.support.homeless import nobody

NOW = 1_795_262_400.0


@pytest.fixture
def settings(tmp_path):
    return load({'WORKER_CONFIGURATION_MODULE': 'ecommerce_worker.configuration.test',
                 'ECOMMERCE_WORKER_INTAKE_SPOOL': str(tmp_path / 'spool')})


def test_where_there_is_no_spool_nothing_is_known(settings):
    assert look(settings) is None


def test_without_a_home_there_is_no_spool_and_the_rest_is_looked_at(environment):
    environment.delenv('HOME', raising=False)
    environment.setattr('pwd.getpwuid', nobody)
    assert look(load({'WORKER_CONFIGURATION_MODULE': 'ecommerce_worker.configuration.test',
                      'ECOMMERCE_WORKER_INTAKE_SPOOL': '~/spool'})) is None


def test_what_waits_what_cannot_be_read_and_what_was_begun_are_counted_apart(settings, tmp_path):
    (tmp_path / 'spool').mkdir()
    assert look(settings) == Spooled()
    for name, age in (('a.json', 5), ('b.json', 400), ('c.unreadable', 9), ('.d.json.7.8', 90), ('.e.json.7.9', 1)):
        path = tmp_path / 'spool' / name
        path.write_bytes(b'{}')
        os.utime(path, (NOW - age, NOW - age))
    assert look(settings, NOW) == Spooled(2, 400, 1, 1)
