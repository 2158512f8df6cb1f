"""Finding vendors, reading their options, and the page that tells how to add one."""

import importlib
import json
import re
import sys
from pathlib import Path

import pytest
import yaml

from ecommerce_worker import settings
from ecommerce_worker.email.mailer import find, names
from ecommerce_worker.email.message import Attachment, Email, Purpose, Receipt
from ecommerce_worker.email.rendering import rendered
from ecommerce_worker.errors import Misconfigured, Rejected
from ecommerce_worker.plugins import read_options
from ecommerce_worker.runtime import Runtime
from ecommerce_worker.settings.kinds import FLAG, SECRET, TEXT, whole
from ecommerce_worker.testing.peer import reply

HOW_TO = Path(__file__).parents[4] / 'docs' / 'how-to'

KINDS = {'host': TEXT, 'port': whole(1, 65_535), 'password': SECRET, 'debug': FLAG}


@pytest.fixture
def package(tmp_path, environment):
    """Makes a package ``shop_mail`` that can be imported, of the files given."""
    def make(**modules: str) -> None:
        (tmp_path / 'shop_mail').mkdir()
        for name, text in {'__init__': '', **modules}.items():
            (tmp_path / 'shop_mail' / f'{name}.py').write_text(text)
        environment.syspath_prepend(tmp_path)
        importlib.invalidate_caches()

    yield make
    for name in [name for name in sys.modules if name.partition('.')[0] == 'shop_mail']:
        del sys.modules[name]


def test_all_vendors_can_be_found():
    assert {'outbox', 'sendgrid', 'smtp'} <= set(names())
    assert all(find(name).__name__ == 'Vendor' for name in names())


def test_a_vendor_of_somebody_elses_is_found_by_its_path(package):
    package(acme='class Vendor: pass')
    assert find('shop_mail.acme').__module__ == 'shop_mail.acme'


@pytest.mark.parametrize('name, complaint', [
    ('smpt', 'EMAIL_VENDOR names smpt, which does not exist; did you mean smtp?'),
    ('shop_mail.nobody', 'EMAIL_VENDOR names shop_mail.nobody, which does not exist; there are'),
    ('shop_mail.bare', 'EMAIL_VENDOR names shop_mail.bare, which has no class Vendor'),
    ('shop_mail.needy', 'EMAIL_VENDOR shop_mail.needy needs the module acme_sdk, which is not installed'),
])
def test_a_vendor_that_cannot_be_had_is_told_by_name(package, name, complaint):
    package(bare='', needy='import acme_sdk')
    with pytest.raises(Misconfigured) as caught:
        find(name)
    assert str(caught.value).startswith(complaint)


def test_options_are_of_their_kind_and_over_the_defaults():
    found = read_options({'host': 'h', 'port': '25', 'debug': 'yes'}, KINDS, {'password': None, 'debug': False})
    assert found == {'host': 'h', 'port': 25, 'password': None, 'debug': True}


def test_none_means_the_default():
    assert read_options({'port': None}, {'port': KINDS['port']}, {'port': 25}) == {'port': 25}


def test_an_option_of_another_vendors_is_taken_back():
    assert read_options({'host': 'h', 'api_key': None}, {'host': TEXT}, {}) == {'host': 'h'}


def test_all_that_is_wrong_with_options_is_told_at_once():
    with pytest.raises(Misconfigured) as caught:
        read_options({'hots': 'h', 'port': 'many', 'password': ''}, KINDS, {'debug': False})
    assert caught.value.problems == (
        'EMAIL_OPTIONS[hots] is not a known option; did you mean host?',
        'EMAIL_OPTIONS[port] must be a whole number from 1 to 65,535',
        'EMAIL_OPTIONS[host] is not set', 'EMAIL_OPTIONS[password] is not set')


# --- The page -------------------------------------------------------------------------------------------------------


def snippet(language: str, number: int, page: str = 'add-a-vendor') -> str:
    """One of a page's code blocks, without its indent."""
    text = (HOW_TO / f'{page}.rst').read_text()
    blocks = re.findall(rf'^\.\. code-block:: {language}\n\n((?:    .*\n|\n)+)', text, re.MULTILINE)
    return re.sub(r'^    ', '', blocks[number], flags=re.MULTILINE)


EXAMPLE = HOW_TO.parent / 'examples' / 'acme-mail'


@pytest.fixture
def example(monkeypatch):
    """The vendor of the page, where it is found."""
    monkeypatch.syspath_prepend(EXAMPLE)
    yield
    sys.modules.pop('acme_mail', None)


@pytest.mark.parametrize('number, name', [(0, 'acme_mail.py'), (1, 'test_acme_mail.py')])
def test_the_page_shows_the_files_of_the_example(number, name):
    assert snippet('python', number).strip() == (EXAMPLE / name).read_text().strip()


@pytest.mark.usefixtures('example')
def test_the_vendor_of_the_page_works_as_it_is_written(peer, api):
    acme = peer(reply(200, b'{"id": "acme-1"}'), reply(200, b'[{"reason": "no such user"}]'),
                reply(422, b'{"error": "ann@example.com is blocked"}'))
    vendor = find('acme_mail')(
        {'api_key': 'key', 'from_email': 'shop@example.com', 'api_url': acme.url},
        lambda root, *, peer, signer: api(root, signer=signer))
    mail = Email(Purpose.UPDATE, ('ann@example.com',), 'Hello', '<p>Hi</p>', reply_to='help@example.com',
                 attachments=(Attachment('a.pdf', 'https://files.example.com/a'),), id='id-1')
    assert vendor.send(mail) == Receipt('acme-1')
    assert json.loads(acme.requests[0].body) == {
        'from': 'EdX Support Team <shop@example.com>', 'reply_to': 'help@example.com', 'to': ['ann@example.com'],
        'subject': 'Hello', 'idempotency_key': 'id-1',
        'html': '<p>Hi</p><p>Attachments:</p><ul><li><a href="https://files.example.com/a">a.pdf</a></li></ul>'}
    assert acme.requests[0].headers['authorization'] == 'Bearer key'
    assert vendor.bounced('ann@example.com') is True
    with pytest.raises(Rejected, match='blocked') as caught:
        vendor.send(mail)
    assert 'ann@' not in str(caught.value)


@pytest.mark.usefixtures('example')
def test_the_settings_of_the_page_name_its_vendor_and_what_it_needs(api):
    given_ = yaml.safe_load(snippet('yaml', 0))
    vendor = find(given_['EMAIL_VENDOR'])(
        given_['EMAIL_OPTIONS'], lambda root, *, peer, signer: api(root, signer=signer))
    assert vendor.policy is None


@pytest.mark.parametrize('page, number', [('add-a-vendor', 2), ('send-mail', 0)])
def test_the_mail_that_a_page_tries_is_sent(in_force, tmp_path, capsys, page, number):
    in_force(EMAIL_VENDOR='outbox', EMAIL_OPTIONS={'directory': str(tmp_path)})
    exec(compile(snippet('python', number, page), page, 'exec'), {})
    assert 'Receipt' in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ['update-try-1.eml']


@pytest.mark.parametrize('number, site, vendor', [
    (0, None, 'smtp'), (1, None, 'sendgrid'), (2, None, 'outbox'), (3, None, 'smtp'), (3, 'acme', 'sendgrid')])
def test_the_settings_of_the_page_on_sending_set_up_its_vendors(tmp_path, number, site, vendor):
    secret = tmp_path / 'secret'
    secret.write_text('a secret')
    text = re.sub(r'file:/run/secrets/\w+', f'file:{secret}', snippet('yaml', number, 'send-mail'))
    (tmp_path / 'worker.yml').write_text(text)
    found = settings.load({
        'WORKER_CONFIGURATION_MODULE': 'ecommerce_worker.configuration.test',
        'ECOMMERCE_WORKER_CFG': str(tmp_path / 'worker.yml'),
        'ECOMMERCE_WORKER_JWT_SECRET_KEY': 'a secret of more than thirty-two bytes'})
    assert type(Runtime(found).site(site).mailer).__module__ == f'ecommerce_worker.email.vendors.{vendor}'


def test_the_template_of_the_page_on_sending_is_one(tmp_path):
    (tmp_path / 'refund.html').write_text(snippet('html', 0, 'send-mail'))
    email = rendered(Email(Purpose.REFUND, ('ann@example.com',), variables={
        'amount': '$1', 'course_name': 'A', 'order_number': 'EDX-1', 'order_url': 'https://x.org/'}), str(tmp_path))
    assert (email.subject, email.body.splitlines()[1]) == (
        'Your refund for A', '<p>We have sent you $1. Here is <a href="https://x.org/">your receipt</a>.</p>')
