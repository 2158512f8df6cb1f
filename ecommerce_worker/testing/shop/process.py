"""The stand-in shop in a process of its own."""

from __future__ import annotations

import argparse
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from typing_extensions import override

from ecommerce_worker.testing.rabbitmq import free_port
from ecommerce_worker.testing.shop.book import Call, Order, ShopControl, read_calls
from ecommerce_worker.testing.shop.shop import CONTROL_PATH, Shop, addresses


class ShopProcess(ShopControl):
    """A shop in a process of its own, which can be stopped or killed and started again with what it knew.

    `directory` holds its order book and its log. The process ends with its owner, whatever the owner dies of.
    """

    def __init__(
        self,
        directory: Path,
        *,
        port: int = 0,
        latency: float = 0,
        certificate: Path | None = None,
        token_lifetime: float = 3600,
    ) -> None:
        self.port = port or free_port()
        self.url, self.api_root, self.oauth2_root = addresses(self.port, certificate)
        self.log = directory.resolve() / 'calls.jsonl'
        self._certificate = certificate
        self._process: subprocess.Popen[bytes] | None = None
        options: dict[str, object] = {
            'port': self.port,
            'latency': latency,
            'token-lifetime': token_lifetime,
            'log': self.log,
            'book': self.log.with_name('book.jsonl'),
        }
        if certificate:
            options['certificate'] = certificate.resolve()
        self._command = [sys.executable, '-m', 'ecommerce_worker.testing.shop', '--until-eof']
        self._command += [f'--{name}={value}' for name, value in options.items()]

    @property
    def orders(self) -> dict[str, Order]:
        """The order book as it is now."""
        return {number: Order.from_json(order) for number, order in self._ask()['orders'].items()}

    @property
    def reports(self) -> dict[str, str]:
        """The assignment id of each reported mail, by the vendor's id."""
        return dict(self._ask()['reports'])

    @property
    def tokens_issued(self) -> int:
        """How many tokens were issued, over all lives of the process."""
        return int(self._ask()['tokens_issued'])

    @property
    def calls(self) -> list[Call]:
        """All calls so far, over all lives of the process; also known while it is down."""
        return read_calls(self.log)

    def start(self) -> None:
        """Return when the shop listens."""
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[3],
            # Ctrl-C is for the owner, who stops the shop when it is time.
            start_new_session=True,
        )
        if self._process.stdout is not None and not self._process.stdout.readline():
            self.kill()
            raise RuntimeError('the shop did not start; what it wrote to standard error says why')

    def stop(self) -> None:
        """Stop in good order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the process at once, in the middle of whatever it does."""
        self._end(signal.SIGKILL)

    @override
    def tell(self, verb: str, value: Any) -> None:
        """Pass a verb on to the process."""
        self._ask({verb: value})

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _end(self, by: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            # Leaving the context closes the pipes and waits for the process.
            with process:
                process.send_signal(by)

    def _ask(self, verbs: Mapping[str, Any] | None = None) -> Any:
        data = json.dumps(verbs).encode() if verbs else None
        context = ssl.create_default_context(cafile=self._certificate) if self._certificate else None
        # No proxy of the environment's stands between us and our own process.
        direct = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
        with direct.open(f'{self.url}{CONTROL_PATH}', data, timeout=30) as answer:
            return json.load(answer)


def main() -> None:
    """Run a shop until SIGTERM, or until standard input ends; the first line it prints is its URL."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument('--port', type=int, default=0)
    parser.add_argument('--latency', type=float, default=0, help='seconds of a call, and of a line')
    parser.add_argument('--log', type=Path, help='file that gets a line when a call begins and when it ends')
    parser.add_argument('--book', type=Path, help='file that keeps orders and tokens for the next run')
    parser.add_argument('--script', type=Path, help='JSON file of verbs: {"add": [{"number": "EDX-1"}]}')
    parser.add_argument('--certificate', type=Path, help='PEM file of key and certificate: TLS')
    parser.add_argument('--token-lifetime', type=float, default=3600, help='seconds')
    parser.add_argument('--until-eof', action='store_true', help='end when standard input does')
    options = parser.parse_args()

    ends = {signal.SIGTERM, signal.SIGINT}
    # Before any thread is started, as threads inherit the mask: the signals are to wait for `sigwait`.
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    first_run = options.book is None or not options.book.exists()
    shop = Shop(
        port=options.port,
        latency=options.latency,
        log=options.log,
        book=options.book,
        certificate=options.certificate,
        token_lifetime=options.token_lifetime,
    )
    if options.script and first_run:
        for verb, value in json.loads(options.script.read_text()).items():
            shop.tell(verb, value)
    with shop:
        print(shop.url, flush=True)
        if options.until_eof:
            threading.Thread(target=_end_with_input, daemon=True).start()
        signal.sigwait(ends)


def _end_with_input() -> None:
    # Not through `sys.stdin`: the interpreter cannot end while a thread holds that one's lock.
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
