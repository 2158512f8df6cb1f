"""Bodies of messages, decompressed and decoded within bounds that are checked before anything is built.

Decoding happens on the event loop, or with Python's lock held, so a message may cost 50 ms at most, however small it
is or whatever it is made of.  What may cost more is refused: a person finds it parked, as it came.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Protocol, cast

from kombu.utils.json import loads

from ecommerce_worker.bounds import bounded_json
from ecommerce_worker.errors import Undecodable

#: The largest that a compressed body may become, in bytes.
LARGEST_UNPACKED: Final = 2 * 1024 * 1024

#: Seconds of CPU, and bytes of memory, for decompressing one body; and in pieces of how many bytes it is done.
UNPACKING_SECONDS: Final = 0.02
UNPACKING_MEMORY: Final = 32 * 1024 * 1024
_PIECE: Final = 16 * 1024


def load_json(body: bytes) -> Any:
    """The value of a body of JSON, kombu's dates and decimals included.

    Raises :class:`~ecommerce_worker.errors.Undecodable` for one out of bounds, and whatever kombu raises.
    """
    bounded_json(body)
    if b'__type__' in body or b'\\u' in body:  # as kombu writes them, or may be written
        return loads(body)
    return json.loads(body.decode())


class Unpacker(Protocol):
    """Decompresses piece by piece, like those of ``bz2`` and ``lzma``."""

    @property
    def eof(self) -> bool:
        """Whether all has been decompressed."""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """About so many bytes at most; with no more data, what it has held back."""


def decompressed(body: bytes, how: object) -> bytes:
    """The body without the compression that kombu calls ``how``, a content type or a short name; as it is if there is
    none.

    Raises :class:`~ecommerce_worker.errors.Undecodable` if it becomes too large, takes too long, or cannot be done.
    """
    if not how:
        return body
    unpacker = _UNPACKERS.get(_ALIASES.get(how, how)) if isinstance(how, str) else None
    if unpacker is None:
        raise Undecodable(f'unknown compression {str(how)[:80]!r}')
    try:
        return b''.join(_unpacked(unpacker(), body))
    except Undecodable:
        raise
    except Exception as error:  # noqa: BLE001 - each of them raises its own
        raise Undecodable(f'the body cannot be decompressed ({type(error).__name__})') from None


def _unpacked(unpacker: Unpacker, body: bytes) -> Iterator[bytes]:
    began, total = time.thread_time(), 0
    for at in range(0, len(body), _PIECE):
        part = unpacker.decompress(body[at:at + _PIECE], _PIECE)
        while True:
            total += len(part)
            if total > LARGEST_UNPACKED:
                raise Undecodable(f'the body has more than {LARGEST_UNPACKED} bytes when decompressed')
            if time.thread_time() - began > UNPACKING_SECONDS:
                raise Undecodable('the body takes too long to decompress')
            yield part
            if unpacker.eof:
                return
            if len(part) < _PIECE:
                break
            part = unpacker.decompress(b'', _PIECE)
    raise Undecodable('the compressed body is truncated')


class _Zlib:
    """Like those of ``bz2`` and ``lzma``."""

    def __init__(self) -> None:
        self._unpacker = zlib.decompressobj()

    @property
    def eof(self) -> bool:
        return self._unpacker.eof

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._unpacker.decompress(self._unpacker.unconsumed_tail + data, max_length)


class _Brotli:
    """Like those of ``bz2`` and ``lzma``; before version 1.2 of ``brotli`` nothing bounds what it returns, so that it
    raises TypeError.
    """

    def __init__(self) -> None:
        self._unpacker = importlib.import_module('brotli').Decompressor()

    @property
    def eof(self) -> bool:
        return bool(self._unpacker.is_finished())

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return bytes(self._unpacker.process(data, output_buffer_limit=max_length))


def _bz2() -> Unpacker:
    return cast('Unpacker', importlib.import_module('bz2').BZ2Decompressor())


def _lzma() -> Unpacker:
    return cast('Unpacker', importlib.import_module('lzma').LZMADecompressor(memlimit=UNPACKING_MEMORY))


def _zstd() -> Unpacker:
    name = 'compression.zstd' if sys.version_info >= (3, 14) else 'backports.zstd'
    zstd: Any = importlib.import_module(name)
    largest = UNPACKING_MEMORY.bit_length() - 2
    return cast('Unpacker', zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: largest}))


#: All that kombu knows, as far as Python has them and, of the last two, their packages are installed.
_UNPACKERS: Final[Mapping[str, Callable[[], Unpacker]]] = {
    'application/x-gzip': _Zlib, 'application/x-bz2': _bz2, 'application/x-lzma': _lzma,
    'application/x-brotli': _Brotli, 'application/zstd': _zstd}
_ALIASES: Final[Mapping[str, str]] = {
    'gzip': 'application/x-gzip', 'zlib': 'application/x-gzip', 'bzip2': 'application/x-bz2',
    'bzip': 'application/x-bz2', 'lzma': 'application/x-lzma', 'xz': 'application/x-lzma',
    'brotli': 'application/x-brotli', 'zstd': 'application/zstd', 'zstandard': 'application/zstd'}
