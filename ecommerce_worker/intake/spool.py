"""A spool on disk for deliveries that arrive while the broker is unreachable, for senders that never retry.

::

    not confirmed ──► a file, written to the disk ──► 200 ……… broker back ──► published, confirmed ──► file removed

A process that is killed in between leaves the file, and the next one publishes it, perhaps again, with the same id.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Protocol

from ecommerce_worker import logs
from ecommerce_worker.broker.publishing import Publication
from ecommerce_worker.broker.wire import Raw
from ecommerce_worker.errors import Misconfigured, NotPublished, Undecodable
from ecommerce_worker.settings import Settings, in_home
from ecommerce_worker.telemetry.run import RunReport

logger = logs.of(__name__)

#: Seconds after which an incomplete file is considered abandoned by its process.
DRAFT_SECONDS: Final = 60.0

#: Seconds between two checks whether the broker is reachable again.
LOOK_SECONDS: Final = 1.0


class Broker(Protocol):
    """A publisher that knows whether the broker is ready: :class:`~ecommerce_worker.broker.confirming.Confirming`."""

    @property
    def ready(self) -> bool:
        """Whether it accepts messages."""

    def publish(self, publication: Publication, fact: RunReport | None = None) -> None:
        """Return when the message is confirmed; raises :class:`~ecommerce_worker.errors.NotPublished`."""


class Spool:
    """Publishes to the broker or, while that is unreachable, to a directory, and publishes the files there later.

    Raises :class:`~ecommerce_worker.errors.Misconfigured` for a directory that cannot be used.
    """

    def __init__(self, broker: Broker, directory: Path) -> None:
        self._broker = broker
        self._directory = directory
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name='spool', daemon=True)
        #: Files that are published and could not be removed, and files that were said to be of no use; each by its name
        #: and when it was written.
        self._published = set[tuple[str, int]]()
        self._said = set[tuple[str, int]]()
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            (directory / f'.{os.getpid()}').write_bytes(b'')
            (directory / f'.{os.getpid()}').unlink()
        except OSError as error:
            raise Misconfigured([f'INTAKE_SPOOL {directory} cannot be used: {error.strerror}']) from None

    def start(self) -> None:
        """Begin to publish the files in the directory."""
        self._thread.start()

    def end(self) -> None:
        """Stop; remaining files are left for the next process."""
        self._ending.set()
        self._thread.join()

    def publish(self, publication: Publication, fact: RunReport | None = None) -> None:
        """Return when the message is with the broker or on disk; raises ``NotPublished``."""
        try:
            self._broker.publish(publication, fact)
        except NotPublished as error:
            try:
                self._keep(publication, fact)
            except OSError as full:
                raise NotPublished(f'{error}, and INTAKE_SPOOL cannot be written ({full.strerror})') from None

    def _keep(self, publication: Publication, fact: RunReport | None) -> None:
        raw = publication.raw
        content = json.dumps({
            'queue': publication.queue, 'body': base64.b64encode(raw.body).decode(), 'content_type': raw.content_type,
            'content_encoding': raw.content_encoding, 'headers': raw.headers, 'properties': raw.properties,
            'fact': fact.as_body().decode() if fact else None}).encode()
        path = self._directory / f'{raw.properties["correlation_id"]}.json'
        draft = path.with_name(f'.{path.name}.{os.getpid()}.{threading.get_ident()}')
        try:
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(descriptor, 'wb') as file:  # noqa: PTH123 - of a descriptor
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            draft.rename(path)
            directory = os.open(self._directory, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            raise

    def _run(self) -> None:
        while not self._ending.wait(LOOK_SECONDS):
            if self._broker.ready:
                try:
                    self._publish_all()
                except OSError as error:
                    logger.warning('INTAKE_SPOOL cannot be read', error=error.strerror)

    def _publish_all(self) -> None:
        refused = set[str]()
        for path in sorted(self._directory.glob('[!.]*.json')):
            if self._ending.is_set():
                return
            try:
                written = path.name, path.stat().st_mtime_ns
            except OSError:
                continue  # another process has published it
            try:
                self._publish_one(path, written, refused)
            except FileNotFoundError:
                pass  # so it has now
            except OSError as error:
                # Of another user, or on a disk that has become read-only; it keeps nothing from the others.
                if written not in self._said:
                    self._said.add(written)
                    logger.error('a file of INTAKE_SPOOL cannot be read or removed', file=path.name,
                                 error=error.strerror)

    def _publish_one(self, path: Path, written: tuple[str, int], refused: set[str]) -> None:
        """Publish one file and remove it; a queue that does not take it is ``refused`` from now on.  Raises OSError."""
        content = path.read_bytes()
        try:
            publication, fact = _of(content)
        except Exception:  # noqa: BLE001 - whatever it holds, it is not what was written here
            logger.error('a file in INTAKE_SPOOL cannot be read and is renamed to *.unreadable', file=path.name)
            path.rename(path.with_suffix('.unreadable'))
            return
        if publication.queue in refused:
            return
        if written not in self._published:
            try:
                self._broker.publish(publication, fact)
            except NotPublished:
                # A queue that is missing or does not confirm must not block the others.
                refused.add(publication.queue)
                return
            self._published.add(written)
        path.unlink(missing_ok=True)
        self._published.discard(written)
        logger.info('published from the spool', id=path.stem)


def directory_of(settings: Settings) -> Path:
    """The directory of the spool."""
    return in_home(settings.INTAKE_SPOOL, 'INTAKE_SPOOL')


def lying(directory: Path) -> Iterator[tuple[Path, Raw]]:
    """The files in a spool directory, each with its message.

    Includes unreadable files that were renamed, and incomplete files of killed processes: of these the body is all that
    they hold, followed by what can be decoded of the message's body.
    """
    for path in sorted(directory.glob('*')) if directory.is_dir() else ():
        try:
            content = path.read_bytes()
        except (FileNotFoundError, IsADirectoryError):
            continue  # it has been published, or is not one of our files
        try:
            yield path, _of(content)[0].raw
        except Exception:  # noqa: BLE001 - whatever it holds
            yield path, Raw(content + b'\n' + _body_begun(content), None, None)


def _body_begun(content: bytes) -> bytes:
    begun = re.search(rb'"body": "([A-Za-z0-9+/]*)', content)
    return base64.b64decode(begun[1][:len(begun[1]) // 4 * 4]) if begun else b''


def _of(content: bytes) -> tuple[Publication, RunReport | None]:
    """The content of a file; raises anything for one that is not ours."""
    said: dict[str, Any] = json.loads(content)
    raw = Raw(base64.b64decode(said['body']), said['content_type'], said['content_encoding'], said['headers'],
              said['properties'])
    fact = None
    if said['fact']:
        with contextlib.suppress(Undecodable):  # of another version, as after a downgrade: the order is worth more
            fact = RunReport.read(said['fact'].encode())
    return Publication(raw, said['queue']), fact
