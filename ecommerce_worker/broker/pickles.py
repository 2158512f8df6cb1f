"""Pickles of plain values, read by a reader of our own that builds nothing before it has counted it.

Shops still send pickle, and a pickle is a program: it names code to be run, makes a text of 100 MB of 90 bytes, nests
keys so deep that hashing them overflows the stack, or shares one value so often that writing it as JSON never ends.
Read here are the opcodes that picklers write for plain values, and three names (:data:`ADMITTED`); the value counts
as the tree that it would be as JSON, by its nodes, its bytes and its depth; anything else is refused.

Written in Python, as the standard library has one too (``pickle._Unpickler``), and about as fast.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from struct import Struct
from typing import Any, Final

from ecommerce_worker.errors import Undecodable

#: The most opcodes, each of which takes up to a microsecond.
MOST_OPCODES: Final = 30_000

#: The most nodes and bytes of text of the value, as a tree, and how deep it nests.
MOST_NODES: Final = 40_000
MOST_BYTES: Final = 4 * 1024 * 1024
DEEPEST: Final = 64

#: The longest text of a number.
LONGEST_NUMBER: Final = 1000
LONGEST_DECIMAL: Final = 64

#: What pickles of the shop name (counted in genuine messages of Django 2.2 to 4.2), and what it is read as.
ADMITTED: Final[Mapping[tuple[str, str], type]] = {
    ('decimal', 'Decimal'): Decimal,
    ('django.utils.safestring', 'SafeString'): str,
    ('django.utils.safestring', 'SafeText'): str,
}

_MARK: Final = object()

_BYTE, _SHORT, _INT, _SIZE, _LONG, _FLOAT = (Struct(form) for form in ('<B', '<H', '<i', '<I', '<Q', '>d'))

#: Nodes, bytes and depth of a value, and the value itself, so that its identity is not reused in between.
_Weight = tuple[int, int, int, Any]


def load_pickle(body: bytes) -> Any:
    """The value of a pickle of plain values; raises :class:`~ecommerce_worker.errors.Undecodable`, or whatever a
    damaged one leads to.
    """
    return _Reader(body).value()


class _Named:
    """One of :data:`ADMITTED`, on the stack until it is called."""

    def __init__(self, type_: type) -> None:
        self.type = type_


class _Reader:
    """A stack of values, and a memo of those that are used again.

    Lists and mappings are filled while they are on the stack. Once one has been put into another its weight is known
    and it changes no more, so a value that holds itself cannot be made.
    """

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        # By identity; of tuples, there is one empty one only.
        self._weights: dict[int, _Weight] = {id(()): (1, 0, 1, ())}
        self._finished: set[int] = set()

    def value(self) -> Any:
        """What the pickle is of."""
        opcodes, body = _OPCODES, self._body
        for _ in range(MOST_OPCODES):
            code = body[self._at]
            self._at += 1
            if code == 0x2E:  # '.'
                value = self._pop()
                self._weigh(value)
                return value
            opcode = opcodes.get(code)
            if opcode is None:
                raise ValueError(f'the pickle has the opcode {code:#04x}, which plain values do not need')
            opcode(self)
        raise Undecodable('the pickle has too many parts')

    # -- The bytes

    def _take(self, size: int) -> bytes:
        begin, self._at = self._at, self._at + size
        if self._at > len(self._body):
            raise ValueError('the pickle is truncated')
        return self._body[begin:self._at]

    def _number(self, form: Struct) -> Any:
        return form.unpack(self._take(form.size))[0]

    def _line(self, longest: int = MOST_BYTES) -> bytes:
        end = self._body.find(b'\n', self._at, self._at + longest + 1)
        if end < 0:
            raise ValueError('the pickle has an unterminated line')
        begin, self._at = self._at, end + 1
        return self._body[begin:end]

    # -- The stack

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _pop(self) -> Any:
        value = self._stack.pop()
        if value is _MARK:
            raise ValueError('the pickle has a mark where a value should be')
        return value

    def _pop_to_mark(self) -> list[Any]:
        stack = self._stack
        for at in range(len(stack) - 1, -1, -1):
            if stack[at] is _MARK:
                values = stack[at + 1:]
                del stack[at:]
                return values
        raise ValueError('the pickle lacks a mark')

    # -- Counting

    def _weigh(self, value: Any) -> _Weight:
        """The weight of a value that changes no more from now on."""
        kind = type(value)
        if kind in (str, bytes):
            return 1, len(value), 0, value
        known = self._weights.get(id(value))
        if known is not None:
            self._finished.add(id(value))
            return known
        if kind not in (int, float, bool, type(None), Decimal):
            raise Undecodable('the pickle names a class where a value should be')
        return 1, 0, 0, value

    def _weigh_in(self, container: Any, values: list[Any]) -> None:
        """Add the weight of these values to that of what they are put into."""
        known = self._weights.get(id(container))
        nodes, size, depth, _ = known if known is not None else (1, 0, 1, container)
        for value in values:
            more, bytes_, deep, _ = self._weigh(value)
            nodes += more
            size += bytes_
            if deep >= depth:
                depth = deep + 1
        if nodes > MOST_NODES or size > MOST_BYTES:
            raise Undecodable('the value of the pickle has too many parts')
        if depth > DEEPEST:
            raise Undecodable(f'the value of the pickle is nested deeper than {DEEPEST}')
        if id(container) in self._finished:
            raise Undecodable('the pickle changes a value that is part of another')
        self._weights[id(container)] = nodes, size, depth, container

    def _new(self, container: Any, values: list[Any]) -> None:
        self._weigh_in(container, values)
        self._stack.append(container)

    # -- Opcodes: numbers, texts and constants

    def proto(self) -> None:
        if self._number(_BYTE) > 5:
            raise ValueError('the pickle is of a newer protocol')

    def frame(self) -> None:
        self._take(8)

    def int_line(self) -> None:
        line = self._line(LONGEST_NUMBER)
        self._push({b'00': False, b'01': True}[line] if line in (b'00', b'01') else int(line))

    def long_line(self) -> None:
        self._push(int(self._line(LONGEST_NUMBER).removesuffix(b'L')))

    def float_line(self) -> None:
        self._push(float(self._line(LONGEST_NUMBER)))

    def long1(self) -> None:
        self._push(int.from_bytes(self._take(self._number(_BYTE)), 'little', signed=True))

    def string_line(self) -> None:
        line = self._line()
        if len(line) < 2 or line[0] != line[-1] or line[:1] not in (b'"', b"'"):
            raise ValueError('the pickle has a string without quotes')
        # Text of a Python 2 producer comes as bytes, in UTF-8.
        self._push(codecs.escape_decode(line[1:-1])[0].decode())

    def unicode_line(self) -> None:
        self._push(self._line().decode('raw-unicode-escape'))

    def mark(self) -> None:
        self._push(_MARK)

    def pop(self) -> None:
        self._stack.pop()

    def pop_mark(self) -> None:
        self._pop_to_mark()

    # -- Opcodes: containers

    def empty_list(self) -> None:
        self._new([], [])

    def empty_dict(self) -> None:
        self._new({}, [])

    def tuple_(self) -> None:
        self._tuple(self._pop_to_mark())

    def _tuple(self, values: list[Any]) -> None:
        if values:
            self._new(tuple(values), values)
        else:
            self._push(())

    def tuple1(self) -> None:
        self._tuple([self._pop()])

    def tuple2(self) -> None:
        second, first = self._pop(), self._pop()
        self._tuple([first, second])

    def tuple3(self) -> None:
        third, second, first = self._pop(), self._pop(), self._pop()
        self._tuple([first, second, third])

    def list_(self) -> None:
        values = self._pop_to_mark()
        self._new(values, values)

    def dict_(self) -> None:
        values = self._pop_to_mark()
        self._new({}, [])
        self._set(values)

    def append(self) -> None:
        self._extend([self._pop()])

    def appends(self) -> None:
        self._extend(self._pop_to_mark())

    def _extend(self, values: list[Any]) -> None:
        found = self._stack[-1]
        if type(found) is not list:
            raise Undecodable('the pickle appends to something that is not a list')
        self._weigh_in(found, values)
        found += values

    def setitem(self) -> None:
        value, key = self._pop(), self._pop()
        self._set([key, value])

    def setitems(self) -> None:
        self._set(self._pop_to_mark())

    def _set(self, values: list[Any]) -> None:
        found = self._stack[-1]
        if type(found) is not dict or len(values) % 2:
            raise Undecodable('the pickle sets items of something that is not a mapping')
        keys = values[::2]
        for key in keys:
            if type(key) is not str and not (isinstance(key, int) and -2 ** 63 <= key < 2 ** 63):
                raise Undecodable('the pickle has a mapping whose keys are neither strings nor integers')
        self._weigh_in(found, values)
        found.update(zip(keys, values[1::2], strict=True))

    # -- Opcodes: what is used again

    def put(self) -> None:
        self._remember(int(self._line(LONGEST_NUMBER)))

    def binput(self) -> None:
        self._remember(self._number(_BYTE))

    def long_binput(self) -> None:
        self._remember(self._number(_SIZE))

    def memoize(self) -> None:
        self._remember(len(self._memo))

    def _remember(self, name: int) -> None:
        self._memo[name] = self._stack[-1]

    def get(self) -> None:
        self._push(self._memo[int(self._line(LONGEST_NUMBER))])

    def binget(self) -> None:
        self._push(self._memo[self._number(_BYTE)])

    def long_binget(self) -> None:
        self._push(self._memo[self._number(_SIZE)])

    # -- Opcodes: what is named

    def global_(self) -> None:
        module, name = self._line(), self._line()
        self._name(module.decode(), name.decode())

    def inst(self) -> None:
        self.global_()
        raise Undecodable('the pickle makes a call that is not allowed')

    def stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        if type(name) is not str or type(module) is not str:
            raise Undecodable('the pickle names something that is not a string')
        self._name(module, name)

    def _name(self, module: str, name: str) -> None:
        try:
            self._push(_Named(ADMITTED[module, name]))
        except KeyError:
            raise Undecodable(
                f'the pickle names {module[:80]}.{name[:80]}, which is never loaded from a message') from None

    def call(self) -> None:
        """REDUCE and NEWOBJ: one text makes a decimal, or a text."""
        arguments, named = self._pop(), self._pop()
        if not isinstance(named, _Named) or type(arguments) is not tuple or len(arguments) != 1 \
                or type(arguments[0]) is not str:
            raise Undecodable('the pickle makes a call that is not allowed, or with other arguments')
        self._push(arguments[0] if named.type is str else _decimal(arguments[0]))


def _decimal(text: str) -> Decimal:
    """One that can be computed with: a few letters make numbers of many digits."""
    try:
        found = Decimal(text) if len(text) <= LONGEST_DECIMAL else None
    except InvalidOperation:
        found = None
    if found is None or (found.is_finite() and abs(found.adjusted()) > 400):
        raise Undecodable('the pickle has a decimal that is invalid or out of range')
    return found


def _sized(size: Struct, make: Callable[[bytes], Any]) -> Callable[[_Reader], None]:
    """The opcode of a text, or of bytes, that follow their length."""
    def opcode(reader: _Reader) -> None:
        reader._push(make(reader._take(reader._number(size))))  # noqa: SLF001 - part of it

    return opcode


def _fixed(form: Struct) -> Callable[[_Reader], None]:
    """The opcode of a number of a fixed size."""
    def opcode(reader: _Reader) -> None:
        reader._push(reader._number(form))  # noqa: SLF001 - part of it

    return opcode


def _constant(value: Any) -> Callable[[_Reader], None]:
    def opcode(reader: _Reader) -> None:
        reader._push(value)  # noqa: SLF001 - part of it

    return opcode


def _text(data: bytes) -> str:
    return data.decode('utf-8', 'surrogatepass')


_OPCODES: Final[Mapping[int, Callable[[_Reader], None]]] = {ord(code): opcode for code, opcode in {
    '\x80': _Reader.proto, '\x95': _Reader.frame,
    'N': _constant(None), '\x88': _constant(True), '\x89': _constant(False),
    'I': _Reader.int_line, 'L': _Reader.long_line, 'F': _Reader.float_line,
    'J': _fixed(_INT), 'K': _fixed(_BYTE), 'M': _fixed(_SHORT), 'G': _fixed(_FLOAT), '\x8a': _Reader.long1,
    'S': _Reader.string_line, 'T': _sized(_SIZE, bytes.decode), 'U': _sized(_BYTE, bytes.decode),
    'V': _Reader.unicode_line, 'X': _sized(_SIZE, _text), '\x8c': _sized(_BYTE, _text), '\x8d': _sized(_LONG, _text),
    'B': _sized(_SIZE, bytes), 'C': _sized(_BYTE, bytes), '\x8e': _sized(_LONG, bytes),
    '(': _Reader.mark, '0': _Reader.pop, '1': _Reader.pop_mark,
    ')': _constant(()), 't': _Reader.tuple_, '\x85': _Reader.tuple1, '\x86': _Reader.tuple2,
    '\x87': _Reader.tuple3,
    ']': _Reader.empty_list, 'l': _Reader.list_, 'a': _Reader.append, 'e': _Reader.appends,
    '}': _Reader.empty_dict, 'd': _Reader.dict_, 's': _Reader.setitem, 'u': _Reader.setitems,
    'p': _Reader.put, 'q': _Reader.binput, 'r': _Reader.long_binput, '\x94': _Reader.memoize,
    'g': _Reader.get, 'h': _Reader.binget, 'j': _Reader.long_binget,
    'c': _Reader.global_, 'i': _Reader.inst, '\x93': _Reader.stack_global, 'R': _Reader.call, '\x81': _Reader.call,
}.items()}
