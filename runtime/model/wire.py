"""Walk over the fields of a protobuf message in a file, without reading what is not asked for.

Knows the encoding, not what a field means.

Source: https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

#: Wire types: variable-length integer, 8 bytes, length and bytes, 4 bytes.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class WireError(Exception):
    """The bytes are not a message of this kind."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message."""

    number: int
    #: Where it begins in the file, its tag included.
    start: int
    #: Its content: the bytes from `begin` to `end`; empty for numbers.
    begin: int
    end: int
    #: The number, where it is a variable-length one.
    value: int = 0


def fields(file: BinaryIO, start: int, end: int) -> Iterator[Field]:
    """Walk over the fields of the message in a range of bytes; the file may be moved about between them.

    Raises
    ------
    WireError
        The bytes are no message.
    """
    while start < end:
        file.seek(start)
        tag = _varint(file)
        number, wire = tag >> 3, tag & 7
        if not 1 <= number <= 1000:  # unknown newer fields are fine, noise is not
            raise WireError(f"found field number {number}")
        value = length = 0
        if wire == _VARINT:
            value = _varint(file)
        elif wire == _BYTES:
            length = _varint(file)
        elif wire in (_FIXED32, _FIXED64):
            length = 4 if wire == _FIXED32 else 8
        else:
            raise WireError(f"found wire type {wire}")
        begin = file.tell()
        if begin + length > end:
            raise WireError(f"field {number} ends beyond the file's {end} bytes: is it truncated?")
        yield Field(number, start, begin, begin + length, value)
        start = begin + length


def content(file: BinaryIO, field: Field) -> bytes:
    """Return the bytes of a field."""
    file.seek(field.begin)
    return file.read(field.end - field.begin)


def integers(file: BinaryIO, field: Field, most: int) -> list[int]:
    """Return the numbers of a repeated field, which stand each in a field or packed into one.

    At most one more than `most` are read.

    Raises
    ------
    WireError
        They end within one.
    """
    if field.end == field.begin:
        return [field.value]
    file.seek(field.begin)
    found: list[int] = []
    while file.tell() < field.end and len(found) <= most:
        found.append(_varint(file))
    return found


def strings(message: bytes) -> dict[int, str]:
    """Return the string fields of a message of strings.

    Raises
    ------
    WireError
        It is no such message.
    """
    file, found = io.BytesIO(message), dict[int, str]()
    for field in fields(file, 0, len(message)):
        try:
            found[field.number] = content(file, field).decode()
        except UnicodeDecodeError:
            raise WireError("an entry is no text") from None
    return found


def tagged(number: int, content: bytes) -> bytes:
    """Return a field of bytes: its tag, its length in groups of seven bits, low ones first, and itself."""
    length, rest = b"", len(content)
    while rest > 0x7F:
        length += bytes((rest & 0x7F | 0x80,))
        rest >>= 7
    return bytes((number << 3 | _BYTES,)) + length + bytes((rest,)) + content


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise WireError("it ends inside a number: is it truncated?")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise WireError("found a number of more than 64 bits")
