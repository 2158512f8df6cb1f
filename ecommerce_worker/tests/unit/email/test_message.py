"""A mail as a value, and the texts in it that must stay what they are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecommerce_worker.email.message import (
    DEFAULT_SENDER,
    Email,
    Purpose,
    is_address,
    one_line,
    sender,
    without_addresses,
)


@pytest.mark.parametrize('text', [
    'ann@example.com', "o'reilly+mail@sub.example.co.uk", 'ärger@bücher.example', 'a_b-c.d@1und1.de', 'x@пример.рф',
])
def test_an_address_is_one(text):
    assert is_address(text)


@pytest.mark.parametrize('text', [
    '', 'ann', '@example.com', 'ann@', 'ann@localhost', 'ann@127.0.0.1', 'ann@[127.0.0.1]', 'ann @example.com',
    'ann@example.com,bob@example.com', 'ann@example.com\n', 'ann@example.com\r\nBcc: bob@example.com',
    'Ann <ann@example.com>', '"ann"@example.com', 'ann@-example.com', 'ann@example..com', 'ann@example.com@example.org',
    'a' * 65 + '@example.com', 'a@' + 'b' * 63 + '.' + 'c' * 63 + '.' + 'd' * 63 + '.' + 'e' * 63 + '.com',
    'ann;bob@example.com', 'ann(x)@example.com', 'ann\x00@example.com',
])
def test_what_is_more_or_less_than_one_address_is_none(text):
    assert not is_address(text)


@pytest.mark.parametrize('alias, address, line', [
    ('Acme', 'a@b.org', 'Acme <a@b.org>'),
    ('', '<a@b.org>', f'{DEFAULT_SENDER} <a@b.org>'),
    ("O'Reilly, Inc.", ' <a@b.org> ', '"O\'Reilly, Inc." <a@b.org>'),
    ('Café', 'a@b.org', 'Café <a@b.org>'),
    ('Evil" <x@y.org>\r\nBcc: z@y.org', 'a@b.org', '"Evil x@y.org Bcc: z@y.org" <a@b.org>'),
    ('=?utf-8?q?=0D=0ABcc:_z=40y.org?=', 'a@b.org', '"utf-8?q?=0D=0ABcc:_z=40y.org?=" <a@b.org>'),
    ('\\', 'a@b.org', f'{DEFAULT_SENDER} <a@b.org>'),
])
def test_who_a_mail_is_from_is_one_name_and_one_address(alias, address, line):
    assert sender(alias, address) == line


@given(st.text())
def test_no_alias_gets_out_of_its_quotes(alias):
    name, _, address = sender(alias, 'a@b.org').rpartition(' ')
    assert address == '<a@b.org>'
    assert not set(name.removeprefix('"').removesuffix('"')) & set('"\\<>\r\n')
    assert '=?' not in name


@given(st.text())
def test_one_line_has_nothing_that_does_not_print(text):
    assert one_line(text).isprintable()
    assert one_line(one_line(text)) == one_line(text)


@pytest.mark.parametrize('text, plain', [
    ('no such user: ann@example.com.', 'no such user: <address>'),
    ('We found [ann@example.com] in\nthe field', 'We found <address> in the field'),
    ('?email=ann%40example.com&x', '<address>'),
    ('<ann@example.com>: unknown', '<<address>>: unknown'),
    ('x' * 400, 'x' * 300),
])
def test_addresses_are_taken_out_of_what_others_wrote(text, plain):
    assert without_addresses(text) == plain


def test_a_mail_in_a_traceback_shows_no_contents():
    mail = Email(Purpose.NUDGE, ('ann@example.com', 'bob@example.com'), 'Your code', '<p>Dear Ann', id='id-1')
    assert repr(mail) == '<Email nudge id-1 to 2>'
