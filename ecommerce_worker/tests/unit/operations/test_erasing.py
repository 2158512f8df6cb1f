"""Which messages name a person."""

import json
import pickle
import zlib

import pytest

from ecommerce_worker.broker.notes import NOTES
from ecommerce_worker.broker.wire import Raw
from ecommerce_worker.operations.erasing import NoAddress, Person

ANN = 'ann.lee+x@example.com'


def raw(value, content_type='application/json', **headers):
    body = pickle.dumps(value) if 'pickle' in content_type or 'python' in content_type else json.dumps(value).encode()
    return Raw(body, content_type, 'utf-8', headers)


@pytest.mark.parametrize('text', [
    ANN, f'to {ANN}.', f'<{ANN}>', f'"{ANN}"', ANN.upper(), f'mailto:{ANN}?subject=x', f'{ANN},bob@example.com',
    f"'{ANN}'", f'{ANN}\n', f'({ANN})'])
def test_an_address_is_found_wherever_it_stands_and_however_it_is_written(text):
    assert Person(ANN).named_in(text)
    assert ANN.lower() not in Person(ANN).without(text).lower()


@pytest.mark.parametrize('text', [
    f'jo{ANN}', f'jo.{ANN}', f'{ANN}.au', f'{ANN}x', f'{ANN}-x.org', 'ann.lee@example.com',
    'annXlee+x@example.com', ''])
def test_another_address_is_left(text):
    assert not Person(ANN).named_in(text)
    assert Person(ANN).without(text) == text


@pytest.mark.parametrize('message', [
    raw([[], {'to': ANN}, {}]), raw([[f'Hello {ANN},'], {}, {}]),
    raw({'billing': [{'email': ANN.title()}]}, 'text/plain'),
    raw([[], {ANN: 1}, {}], 'application/x-python-serialize'), raw([[], {}, {}], **{NOTES: {'reason': f'no {ANN}'}}),
    Raw(json.dumps([[], {'to': ANN}, {}]).encode().replace(b'@', rb'\u0040'), 'application/json', 'utf-8'),
    Raw(zlib.compress(json.dumps([[], {'to': ANN}, {}]).encode()), 'application/json', 'utf-8',
        {'compression': 'application/x-gzip'}),
    Raw(b'\xff' + ANN.encode() + b'\xff', None, None), Raw(b'{}', None, None, {}, {}, {'x': ANN.encode()})])
def test_a_message_that_names_the_person_is_known_whatever_it_is_made_of(message):
    assert Person(ANN).named_by(message)
    assert not Person('bob@example.com').named_by(message)


@pytest.mark.parametrize('body', [b'', b'\xff\xfe', b'[' * 100_000, pickle.dumps(print)])
def test_a_message_that_nobody_can_read_is_no_hindrance(body):
    for content_type in ('application/json', 'application/x-python-serialize', None):
        assert not Person(ANN).named_by(Raw(body, content_type, None))


@pytest.mark.parametrize('given', ['', 'ann', '@', 'ann@', '@example.com', 'a b@example.com', 'a@b@c'])
def test_what_is_no_address_is_refused_and_not_quoted(given):
    with pytest.raises(NoAddress, match=r'^not a mail address$'):
        Person(given)
