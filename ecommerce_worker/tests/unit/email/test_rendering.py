"""The text of mail that came without one."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecommerce_worker.email.message import Email, Purpose
from ecommerce_worker.email.mime import text_of
from ecommerce_worker.email.rendering import rendered
from ecommerce_worker.errors import Misconfigured

REFUND = {'amount': 'US$49.00', 'course_name': 'Café & Co <101>', 'order_number': 'EDX-100002',
          'order_url': 'https://shop.example.com/receipt/?a=1&order_number=EDX-100002'}


def mail(purpose=Purpose.REFUND, variables=REFUND, **given_):
    return Email(purpose, ('ann@example.com',), variables=variables, **given_)


def by(template, directory, purpose=Purpose.USAGE, **variables):
    """What a template of the operator's makes of variables."""
    (directory / f'{purpose}.html').write_text(template, encoding='utf-8')
    return rendered(mail(purpose, variables), str(directory))


def test_a_mail_with_a_body_stays_as_it_is():
    email = mail(body='<p>Hi')
    assert rendered(email) is email


def test_a_refund_is_told_with_all_that_the_shop_says():
    email = rendered(mail())
    assert email.subject == 'Your refund for Café & Co <101>'
    assert '<td class="amount">US$49.00</td>' in email.body
    assert '<strong>Café &amp; Co &lt;101&gt;</strong>' in email.body
    url = 'https://shop.example.com/receipt/?a=1&amp;order_number=EDX-100002'
    assert f'<a href="{url}">{url}</a>' in email.body
    assert 'US$49.00' in text_of(email.body)


def test_the_subject_of_the_shop_stays():
    assert rendered(mail(subject='Money!')).subject == 'Money!'


def test_the_usage_of_an_offer_is_told_whatever_it_consists_of():
    variables = {'percent_usage': 80, 'total_limit': 100, 'offer_name': '<b>', 'codes': ['A', 'B'], 'nothing': None,
                 'by_month': {'May': 1}}
    email = rendered(mail(Purpose.USAGE, variables, subject='Usage'))
    rows = re.findall(r'<th scope="row">(.*?)</th><td>(.*?)</td>', email.body)
    assert rows == [('Percent usage', '80'), ('Total limit', '100'), ('Offer name', '&lt;b&gt;'), ('Codes', 'A, B'),
                    ('Nothing', ''), ('By month', 'May: 1')]
    assert 'Percent usage  80\n' in text_of(email.body)


@pytest.mark.parametrize('url', [
    'javascript:alert(1)', 'data:text/html,x', 'https://x/" onclick="y', ' https://x', '//x', 'vbscript:x',
    'https://a b'])
def test_what_is_no_web_address_never_becomes_a_link(url, tmp_path):
    variables = {**REFUND, 'order_url': url}
    assert 'href' not in rendered(mail(variables=variables)).body
    assert 'href' not in rendered(mail(Purpose.USAGE, variables)).body
    own = by('<a href="$order_url">Order</a>', tmp_path, Purpose.REFUND, order_url=url)
    assert own.body == '<a href="">Order</a>'


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.none() | st.lists(st.text())))
def test_no_variable_adds_markup(variables):
    body = rendered(mail(Purpose.USAGE, {'x': 1, **variables})).body
    tags = set(re.findall(r'<(\w+)', body[body.index('<table>'):]))
    assert tags <= {'table', 'tr', 'th', 'td', 'a'}


def test_a_template_of_the_operators_comes_first(tmp_path):
    email = by('<title>You used\n $used &amp; more</title><p>$used of $limit, $unknown$$', tmp_path, used=3, limit=4)
    assert (email.subject, email.body.partition('<p>')[2]) == ('You used 3 & more', '3 of 4, $')


def test_the_shipped_template_stands_in_for_one_that_the_operator_has_not(tmp_path):
    assert rendered(mail(), str(tmp_path)) == rendered(mail())


@pytest.mark.parametrize('template', [b'$ 5 off', b'${', b'\xff'])
def test_a_broken_template_is_told_by_its_name(tmp_path, template):
    (tmp_path / 'refund.html').write_bytes(template)
    with pytest.raises(Misconfigured, match=re.escape(str(tmp_path / 'refund.html'))):
        rendered(mail(), str(tmp_path))


def test_a_template_that_cannot_be_read_is_told_by_its_name(tmp_path):
    (tmp_path / 'refund.html').mkdir()
    with pytest.raises(Misconfigured, match=r'refund\.html: this template cannot be read: Is a directory'):
        rendered(mail(), str(tmp_path))


def test_a_directory_that_is_not_there_is_told(tmp_path):
    with pytest.raises(Misconfigured, match='directory of mail templates does not exist'):
        rendered(mail(), str(tmp_path / 'templates'))


def test_mail_without_text_or_template_is_not_sent_empty():
    with pytest.raises(Misconfigured, match=r'nudge\.html: the template does not exist'):
        rendered(mail(Purpose.NUDGE))
