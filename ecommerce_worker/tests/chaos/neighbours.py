"""Who else takes threads: the shop of another site, and who sends the mail, each at the end of a wire of its own."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Final

from kombu.exceptions import KombuError

from ecommerce_worker.testing.mail import API_KEY, MailService
from ecommerce_worker.testing.shop import Answer, ShopProcess
from ecommerce_worker.tests.chaos.harness import Scene, send
from ecommerce_worker.tests.support.harness import shop_app
from ecommerce_worker.tests.support.proxy import Proxy

#: The site whose shop makes trouble.
SITE: Final = 'neighbour'

#: Its patience: long enough for what is slow, and not too slow to be an answer.
PATIENCE_SECONDS: Final = 30
SLOW_SECONDS: Final = 25.0

#: Orders of the other site, or mails, in a second.
PACE: Final = 1.0

MAIL: Final = 'ecommerce_worker.email.v1.tasks.send_offer_usage_email'


class Neighbour:
    """The shop of another site; its orders go through the same workers."""

    def __init__(self, scene: Scene) -> None:
        directory = scene.directory / SITE
        directory.mkdir()
        self._scene = scene
        self.shop = scene.stack.enter_context(ShopProcess(directory))
        self.wire = scene.stack.enter_context(Proxy(self.shop.port))
        there = f'http://127.0.0.1:{self.wire.port}'
        scene.configure(SITE_OVERRIDES=json.dumps({SITE: {
            'ECOMMERCE_API_ROOT': self.shop.api_root.replace(self.shop.url, there),
            'BACKEND_SERVICE_EDX_OAUTH2_PROVIDER_URL': self.shop.oauth2_root.replace(self.shop.url, there),
            'FULFILLMENT_READ_TIMEOUT': PATIENCE_SECONDS}}))

    def publish(self, seconds: float, *answers: Answer) -> None:
        """Publish orders at an even pace, for so long."""
        with shop_app(self._scene.broker.url) as app:
            for number in range(int(seconds * PACE)):
                self.shop.add_order(f'NEIGHBOUR-{number}', *answers)
                with contextlib.suppress(KombuError):  # it is another fault's turn at this moment
                    send(app, f'NEIGHBOUR-{number}', site_code=SITE)
                time.sleep(1 / PACE)

    def mend(self) -> None:
        """Answer at once from now on."""
        for number, order in self.shop.orders.items():
            if order.answers:
                self.shop.repair(number)
        self.wire.thaw()


class Mail:
    """Who sends the mail."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        service = scene.stack.enter_context(MailService(scene.directory / 'mail.jsonl', {}))
        self.wire = scene.stack.enter_context(Proxy(int(service.url.rpartition(':')[2].strip('/'))))
        scene.configure(EMAIL_VENDOR='sendgrid', EMAIL_OPTIONS=json.dumps({
            'api_key': API_KEY, 'api_url': f'http://127.0.0.1:{self.wire.port}/', 'from_email': 'shop@example.com'}))

    def publish(self, seconds: float) -> None:
        """Publish mails at an even pace, for so long."""
        with shop_app(self._scene.broker.url) as app:
            for _ in range(int(seconds * PACE)):
                with contextlib.suppress(KombuError):
                    app.send_task(MAIL, ('learner@example.com', 'subject', 'text'), queue='ecommerce.email_marketing',
                                  ignore_result=True)
                time.sleep(1 / PACE)
