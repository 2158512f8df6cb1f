"""Where log lines go."""

import logging
import logging.config
import sys

import pytest

from ecommerce_worker.configuration import logger
from ecommerce_worker.configuration.logger import get_logger_config, without_missing_handlers


@pytest.fixture
def untouched_logging():
    """Give the loggers back as they were, whatever a test configures."""
    loggers = [logging.getLogger(name) for name in (None, 'requests')]
    before = [(each, each.level, list(each.handlers), each.propagate) for each in loggers]
    yield
    for each, level, handlers, propagate in before:
        for handler in set(each.handlers) - set(handlers):
            handler.close()
        each.handlers, each.propagate = handlers, propagate
        each.setLevel(level)


def test_there_are_always_a_console_and_a_local_handler():
    for dev_env in (True, False):
        config = get_logger_config(dev_env=dev_env)
        assert {'console', 'local'} <= set(config['handlers'])
        assert {'requests', ''} <= set(config['loggers'])


def test_local_is_a_file_of_a_developer_and_the_syslog_of_a_server(tmp_path):
    file = get_logger_config(log_dir=str(tmp_path), edx_filename='worker.log', dev_env=True)['handlers']['local']
    assert file['class'] == 'logging.handlers.RotatingFileHandler'
    assert file['filename'] == str(tmp_path / 'worker.log')
    assert get_logger_config()['handlers']['local']['class'] == 'logging.handlers.SysLogHandler'


def test_no_file_is_opened_before_there_is_a_line_for_it(tmp_path, untouched_logging):
    logging.config.dictConfig(get_logger_config(log_dir=str(tmp_path / 'not there'), dev_env=True))
    assert list(tmp_path.iterdir()) == []


def test_a_line_arrives_in_the_file(tmp_path, untouched_logging):
    logging.config.dictConfig(get_logger_config(log_dir=str(tmp_path), edx_filename='worker.log', dev_env=True))
    logging.getLogger('anything').warning('something happened')
    assert 'something happened' in (tmp_path / 'worker.log').read_text()


def test_a_machine_without_a_syslog_is_no_obstacle(monkeypatch, tmp_path, untouched_logging):
    monkeypatch.setattr(logger, 'SYSLOG_SOCKET', str(tmp_path / 'no socket'))
    logging.config.dictConfig(get_logger_config())


def test_a_word_that_is_no_level_counts_as_info():
    assert get_logger_config(local_loglevel='LOUD')['handlers']['local']['level'] == 'INFO'
    assert get_logger_config(local_loglevel='ERROR')['handlers']['local']['level'] == 'ERROR'


@pytest.mark.parametrize('options, level', [
    ({}, 'INFO'),
    ({'debug': True}, 'DEBUG'),
    ({'local_loglevel': 'DEBUG'}, 'DEBUG'),
    ({'local_loglevel': 'ERROR'}, 'INFO'),
])
def test_the_root_logger_lets_through_what_the_more_curious_handler_wants(options, level):
    assert get_logger_config(**options)['loggers']['']['level'] == level


def test_a_line_of_requests_is_written_once(untouched_logging, capsys):
    config = get_logger_config()
    config['handlers'].pop('local')
    logging.config.dictConfig(without_missing_handlers(config))
    logging.getLogger('requests').warning('one line')
    assert capsys.readouterr().out.count('one line') == 1


def test_local_can_be_removed_from_every_logger():
    config = get_logger_config(dev_env=True)
    for each in config['loggers'].values():
        each['handlers'].remove('local')
    assert [each['handlers'] for each in config['loggers'].values()] == [['console'], ['console']]


def test_popping_a_handler_is_enough(untouched_logging):
    config = get_logger_config(dev_env=True)
    config['root'] = {'handlers': ['local'], 'level': 'INFO'}
    config['handlers'].pop('local')
    with pytest.raises(ValueError, match='Unable to configure'):
        logging.config.dictConfig(config)
    relieved = without_missing_handlers(config)
    logging.config.dictConfig(relieved)
    assert relieved['root']['handlers'] == []


def test_relieving_loggers_changes_nothing_that_was_given():
    config = get_logger_config()
    config['handlers'].pop('local')
    without_missing_handlers(config)
    assert config['loggers']['']['handlers'] == ['console', 'local']


def test_a_mac_has_its_syslog_elsewhere():
    expected = '/var/run/syslog' if sys.platform == 'darwin' else '/dev/log'
    assert expected == logger.SYSLOG_SOCKET
