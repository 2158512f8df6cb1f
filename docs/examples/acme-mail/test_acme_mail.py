"""Acme keeps the contract of all vendors, against a stand-in for its service."""

import json

from ecommerce_worker.testing.vendors import SECRET, HttpStandIn, Mailed, VendorContract


class Acme(HttpStandIn):
    answers = {'/v1/messages': {'id': 'm-1'}, '/v1/bounces': []}
    refused = 400, lambda said: {'error': said}

    def options(self):
        return {'api_key': SECRET, 'from_email': 'shop@example.com', 'api_url': self.peer.url + 'v1/'}

    def read(self, request):
        said = json.loads(request.body)
        return Mailed(tuple(said['to']), said['subject'], said['from'], said['html'] + said['from'])


class TestAcme(VendorContract):
    name, stand_in = 'acme_mail', Acme
