"""The browser tier: a real Chromium before a console that runs with a real RabbitMQ, worker, recorder and shop."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException, WebDriverException
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.expected_conditions import staleness_of
from selenium.webdriver.support.wait import WebDriverWait

from ecommerce_worker.testing.rabbitmq import free_port
from ecommerce_worker.tests.support.console import Served, served
from ecommerce_worker.tests.support.fixtures import (  # noqa: F401 - for the tests of this directory
    broker,
    command,
    environment,
    node,
    publish,
    shared_node,
    shop,
    start_worker,
)
from ecommerce_worker.tests.support.harness import eventually
from ecommerce_worker.tests.support.ledger import environment_of

PASSWORD = 'correct horse 7'
INVITE = 'import sys; from ecommerce_worker.console import server as serve; print(serve.invite(*sys.argv[1:]))'


@dataclass(frozen=True)
class Browser:
    """A Chromium as a person uses it: by what is written on the page."""

    chrome: Chrome
    url: str

    def open(self, path: str) -> None:
        """Go to a page of the console, or anywhere."""
        self.chrome.get(path if path.startswith('http') else self.url + path)

    @property
    def text(self) -> str:
        """What is read on the page; nothing while another page takes its place."""
        try:
            return str(self.chrome.find_element(By.TAG_NAME, 'body').text)
        except (NoSuchElementException, StaleElementReferenceException):
            return ''

    def says(self, *texts: str) -> None:
        """Return when all of it is on the page."""
        self._wait_for(texts, lambda: None)

    def will_say(self, path: str, *texts: str) -> None:
        """Return when all of it is on a page that tells how things stand at the moment it is opened."""
        self._wait_for(texts, lambda: self.open(path))

    def _wait_for(self, texts: tuple[str, ...], look: Callable[[], None]) -> None:
        def seen() -> bool:
            look()
            return all(text in self.text for text in texts)

        try:
            eventually(seen)
        except AssertionError:
            raise AssertionError(f'{texts} not all in {self.text!r}') from None

    def press(self, name: str) -> None:
        """Press the button of that name, and see another page."""
        self._leave(self.chrome.find_element(
            By.XPATH, f'//button[normalize-space()="{name}"]|//input[@value="{name}"]'))

    def follow(self, name: str) -> None:
        """Follow the link of that name, and see another page."""
        self._leave(self.chrome.find_element(By.LINK_TEXT, name))

    def _leave(self, by: WebElement) -> None:
        # A click returns before the browser has left the page; to open another then would be to leave without asking.
        by.click()
        # Its driver has a name of its own for what is asked of a page that is just about to go.
        WebDriverWait(self.chrome, 30, ignored_exceptions=[WebDriverException]).until(staleness_of(by))

    def write(self, name: str, text: str) -> None:
        """Write into the field of that name."""
        field = self.chrome.find_element(By.XPATH, f'//input[@name="{name}"]')
        field.clear()
        field.send_keys(text)

    def has(self, name: str) -> bool:
        """Whether there is such a button."""
        return bool(self.chrome.find_elements(By.XPATH, f'//button[normalize-space()="{name}"]'))

    def log_in(self, name: str) -> None:
        """With the password of all."""
        self.open('/login/')
        self.write('username', name)
        self.write('password', PASSWORD)
        self.press('Log in')
        self.says(name, 'How things stand')


@pytest.fixture(scope='session')
def chromium() -> tuple[str, str]:
    """The paths of Chromium and of its driver."""
    found = [shutil.which(name) for name in ('chromium', 'chromedriver')]
    if not all(found):
        why = 'there is no Chromium: deploy/install.sh chromium chromium-driver installs it'
        if os.environ.get('CI') or os.environ.get('REQUIRE_BROWSER'):
            pytest.fail(why)
        pytest.skip(why)
    return str(found[0]), str(found[1])


@pytest.fixture(scope='session')
def running(chromium: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """A Chromium, which takes longer to start than most tests take."""
    program, driver = chromium
    options = ChromeOptions()
    options.binary_location = program
    for argument in ('--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run',
                     '--disable-background-networking', '--no-proxy-server', '--window-size=1200,900',
                     f'--user-data-dir={tmp_path_factory.mktemp("chromium")}'):
        options.add_argument(argument)
    chrome = Chrome(options, ChromeService(driver))
    try:
        yield chrome
    finally:
        chrome.quit()


@pytest.fixture
def chrome(running: Chrome) -> Iterator[Chrome]:
    """A window of it that knows nothing of the windows before, and runs no script: pages must do without."""
    first = running.current_window_handle
    running.switch_to.new_window('window')
    running.set_window_size(1200, 900)
    running.execute_cdp_cmd('Emulation.setScriptExecutionDisabled', {'value': True})
    running.execute_cdp_cmd('Network.clearBrowserCookies', {})
    running.execute_cdp_cmd('Network.clearBrowserCache', {})
    running.get_log('browser')
    yield running
    running.close()
    running.switch_to.window(first)


@pytest.fixture
def settings(chromium: tuple[str, str], environment: dict[str, str], tmp_path: Path) -> dict[str, str]:  # noqa: F811
    """The environment of all processes: one RabbitMQ, one shop, one ledger."""
    return {**environment, **environment_of({'NAME': str(tmp_path / 'ledger.sqlite3')}),
            'ECOMMERCE_WORKER_CONSOLE_ADDRESS': f'127.0.0.1:{free_port()}',
            'ECOMMERCE_WORKER_MAX_FULFILLMENT_RETRIES': '0'}


@pytest.fixture
def console(settings: dict[str, str], tmp_path: Path) -> Iterator[Served]:
    """A console."""
    with served(tmp_path, settings) as console:
        yield console


@pytest.fixture
def browser(chrome: Chrome, console: Served) -> Browser:
    """A browser of nobody who is logged in."""
    return Browser(chrome, console.url)


@pytest.fixture
def person(browser: Browser, settings: dict[str, str]) -> Callable[[str, str], None]:
    """Invite a person, who chooses a password and logs in: ``person('ada', 'support')``."""
    def invite(name: str, role: str) -> None:
        done = subprocess.run([sys.executable, '-c', INVITE, name, role], env=settings, capture_output=True, text=True,
                              check=True)
        browser.open(done.stdout.strip())
        choose_password(browser)
        browser.log_in(name)

    return invite


def choose_password(browser: Browser) -> None:
    """On the page of an invitation."""
    browser.write('new_password1', PASSWORD)
    browser.write('new_password2', PASSWORD)
    browser.press('Set the password')


@pytest.fixture
def start(settings: dict[str, str], tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Start a process of ours that runs until the test ends: ``start('recorder')``."""
    started: list[subprocess.Popen[bytes]] = []

    def start(name: str) -> None:
        with (tmp_path / f'{name}.log').open('wb') as log:
            started.append(subprocess.Popen([sys.executable, '-m', 'ecommerce_worker', name], env=settings,
                                            stdout=log, stderr=log, start_new_session=True))

    yield start
    for process in started:
        process.terminate()
    for process in started:
        process.wait(30)


@pytest.fixture
def at_work(console: Served, settings: dict[str, str], start_worker: Any,  # noqa: F811
            start: Callable[[str], None]) -> None:
    """A worker and a recorder."""
    start_worker(**{name.removeprefix('ECOMMERCE_WORKER_'): value for name, value in settings.items()
                    if re.match('ECOMMERCE_WORKER_', name)}).ready()
    start('recorder')
