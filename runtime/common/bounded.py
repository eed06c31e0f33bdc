"""Read what others wrote, within bounds that are known before anything is allocated.

Regions, tables, configurations and records come by mail and from downloads: a few kilobytes of them may
unpack to gigabytes, nest a hundred thousand levels deep, or be no file at all but a pipe that never ends.
What is too much is refused with a :class:`ValueError` whose text says what was found and what the limit
is; who calls puts the file's name before it. This module knows nothing of what is in the files.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import reprlib
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: Bytes of memory that the content of one file may take once it is read.
BUDGET = 512 << 20
#: Bytes that one file of text may have, unpacked.
LONGEST_TEXT = 128 << 20
#: Rows and columns of a table.
MAX_ROWS, MAX_COLUMNS = 1_000_000, 1_000
#: Bytes of a table.
LONGEST_TABLE = 64 << 20

#: What Python objects take at least, by the character that announces one in JSON: a list with its place
#: in another, a table, an entry's key and place, an item's number and place, half a string.
_COSTS = {b"[": 64, b"{": 72, b":": 180, b",": 40, b'"': 26}
_KINDS = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISDIR, "a folder"),
)

_repr = reprlib.Repr()
_repr.maxlevel, _repr.maxstring, _repr.maxother = 2, 80, 80
_repr.maxlist = _repr.maxtuple = _repr.maxdict = _repr.maxset = 4


def brief(value: Any) -> str:
    """Return a value for a message: never long, whatever it is.

    Examples
    --------
    >>> brief([[[[1]]], *range(1000)])
    '[[[...]], 0, 1, 2, ...]'
    >>> brief(1 << 100_000)
    'a number of 100,001 bits'
    """
    if isinstance(value, int) and value.bit_length() > 256:
        return f"a number of {value.bit_length():,} bits"  # Python refuses to write very long ones
    try:
        return _repr.repr(value)
    except ValueError:  # one of those lies within
        return f"a {type(value).__name__}"


def check_file(path: Path) -> int:
    """Return the size of a file in bytes; it is not opened.

    Raises
    ------
    ValueError
        It is a pipe, a device, a socket or a folder: reading it might never end.
    OSError
        It is not there.
    """
    state = os.stat(path)  # noqa: PTH116  (one call, and a path of any kind)
    if stat.S_ISREG(state.st_mode):
        return state.st_size
    kind = next((name for check, name in _KINDS if check(state.st_mode)), "no file")
    raise ValueError(f"it is {kind}, wanted a file")


def read_bytes(path: Path, limit: int = LONGEST_TEXT) -> bytes:
    """Read a file of at most ``limit`` bytes; one that is packed by gzip is unpacked.

    Raises
    ------
    ValueError
        It is no file, or has more than ``limit`` bytes, unpacked.
    OSError, EOFError
        It cannot be read or unpacked.
    """
    size = check_file(path)
    if size > limit:
        raise ValueError(f"it has {size:,} bytes; at most {limit:,} are read")
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if data[:2] == b"\x1f\x8b":
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
                data = packed.read(limit + 1)
        except (OSError, EOFError, ValueError):
            raise
        except Exception as error:  # zlib's own error has no base class
            raise ValueError(f"it cannot be unpacked: {error}") from None
    if len(data) > limit:
        raise ValueError(f"it unpacks to more than {limit:,} bytes")
    return data


def parse_json(data: bytes) -> Any:
    """Parse JSON, unless what it becomes would be larger than :data:`BUDGET`.

    Raises
    ------
    ValueError
        It is no JSON, too large or too deep.
    """
    text = len(data) * (1 if data.isascii() else 4)
    size = text + sum(data.count(mark) * cost for mark, cost in _COSTS.items())
    if size > BUDGET:
        raise ValueError(
            f"its {len(data):,} bytes may take {size / 1e9:.1f} GB of memory; at most {BUDGET / 1e9:.1f} "
            "are used"
        )
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValueError as error:
        raise ValueError(plain(error)) from None


def plain(error: Exception) -> str:
    """Return what a parser complains about; of Python's limit on digits without advice to programmers."""
    text = " ".join(str(error).split())
    return "it holds a number of thousands of digits" if "integer string conversion" in text else text


def read_table(path: Path, delimiter: str = ",") -> tuple[list[str], Iterator[tuple[int, dict[str, str]]]]:
    """Read a table whose first line names its columns.

    Parameters
    ----------
    path
        The file, in UTF-8 with or without a byte order mark.
    delimiter
        Between columns.

    Returns
    -------
    list of str
        Names of the columns; empty for an empty file.
    iterator of (int, dict)
        Line number and cells of every row that is not empty, by column; a row may be shorter than the
        first. Errors of a row come as it is reached.

    Raises
    ------
    ValueError
        It is no file, no text, too large, holds a null character, or two columns share a name; a row has
        more cells than there are columns.
    OSError
        It cannot be read.
    """
    data = read_bytes(path, LONGEST_TABLE)
    if b"\0" in data:
        raise ValueError("it holds null characters: it is no text, or in another encoding; save it as UTF-8")
    try:
        reader = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), delimiter=delimiter)
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not in UTF-8 ({error.reason} at byte {error.start})") from None
    lines = _lines(reader)
    _, header = next(lines, (0, []))
    if len(header) > MAX_COLUMNS:
        raise ValueError(f"it has {len(header):,} columns; at most {MAX_COLUMNS:,} are read")
    for name in header:
        if header.count(name) > 1:
            raise ValueError(f"two columns are called {brief(name)}")
    return header, _rows(header, lines)


def _lines(reader: Any) -> Iterator[tuple[int, list[str]]]:
    """Yield number and cells of every line that is not empty."""
    try:
        for cells in reader:
            if cells:
                yield reader.line_num, cells
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from None


def _rows(header: list[str], lines: Iterator[tuple[int, list[str]]]) -> Iterator[tuple[int, dict[str, str]]]:
    for count, (number, cells) in enumerate(lines):
        if count == MAX_ROWS:
            raise ValueError(f"it has more than {MAX_ROWS:,} rows; split it")
        if len(cells) > len(header):
            raise ValueError(f"line {number} has {len(cells)} cells, the first line {len(header)}")
        yield number, dict(zip(header, cells, strict=False))
