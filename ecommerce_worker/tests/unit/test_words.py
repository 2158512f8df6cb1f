"""How names, numbers and what others wrote are shown."""

import pytest

from ecommerce_worker.cli.output import table
from ecommerce_worker.clients.ecommerce import Ecommerce
from ecommerce_worker.email.message import one_line as for_a_header
from ecommerce_worker.telemetry.run import one_line
from ecommerce_worker.words import full_stop, printable

#: What a terminal obeys, what forges a line, what turns the direction of writing, what no database takes.
EVIL = 'a\x1b[2J\r\nb\u2028c\u202ed\ud800\x00'


def test_what_others_wrote_is_shown_on_one_line_in_letters_that_only_show():
    assert printable(EVIL) == 'a?[2J??b?c?d??'
    assert printable('Grüße, 世界') == 'Grüße, 世界'


@pytest.mark.parametrize('shown', [
    printable(EVIL), printable(EVIL, ''), one_line(EVIL, 99), for_a_header(EVIL),
    Ecommerce._status_in(None, {'number': 'EDX-1', 'status': EVIL}, 'EDX-1')],  # type: ignore[arg-type]
    ids=['any', 'typed', 'in the ledger', 'in a header', 'of the shop'])
def test_wherever_it_is_shown_nothing_but_letters_is_left(shown):
    assert shown.isprintable()
    assert shown.startswith('a')


def test_a_table_is_shown_so_too(capsys):
    table(('NAME',), [(EVIL,)])
    assert capsys.readouterr().out == 'NAME\na?[2J??b?c?d??\n'


@pytest.mark.parametrize('text, said', [
    ('it failed', 'it failed.'), ('is a proxy in between?', 'is a proxy in between?'), ('it failed.', 'it failed.')])
def test_a_sentence_ends_in_one_mark(text, said):
    assert full_stop(text) == said
