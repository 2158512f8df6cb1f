"""Licences of Acme: a webhook of a shop comes in, a licence is granted at https://licences.acme.example/."""

from ecommerce_worker.extension import SECRET, URL, Delivery, Group, Hmac, Policy, Then, intake, site, task

API = 1
ACME = Group('ACME', {'url': URL, 'token': SECRET})


@intake('acme', scheme=Hmac('X-Acme-Signature'), id='X-Acme-Delivery')
def order(delivery: Delivery) -> Then | str:
    """A paid order grants a licence."""
    if delivery.text('state') != 'paid':
        return 'not paid'
    return Then(grant.name, {'order_number': delivery.text('number'), 'email': delivery.text('email')})


@task(key='order_number', policy=lambda _: Policy(give_up_after=3 * 86400))
def grant(_self, order_number: str, email: str, site_code: str | None = None) -> None:
    """Grant the licence; granting it again has no effect."""
    site(site_code).service(ACME).request('PUT', f'grants/{order_number}', json={'email': email})
