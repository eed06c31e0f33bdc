"""The files of a folder of results: what its record says of them, and whether it is so.

The record lists every other file with its size and SHA-256. By that list results are known to be whole,
and only what it names is ever deleted. A record may come from a stranger: no name in it leads out of
its folder.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ..common.bounded import parse_json, read_bytes
from ..common.disk import contents
from ..common.files import writing
from ..common.spelling import option
from ..errors import OutputError

#: The file that every finished folder of results holds.
RECORD = "run.json"
#: The table of cells, unless another kind was asked for.
TABLE = "cells.parquet"


class File(NamedTuple):
    """A file of a folder of results."""

    #: Relative to the folder, with ``/`` between parts.
    path: str
    bytes: int
    sha256: str


def check(written: Mapping[Path, int]) -> None:
    """Raise :class:`OutputError` unless files are as long as their writers left them, in bytes."""
    for path, size in written.items():
        try:
            found = path.stat().st_size
        except OSError:
            raise OutputError(f"{path}: was removed while the results were written; run it again") from None
        if found != size:
            raise OutputError(
                f"{path}: has {found:,} bytes, and {size:,} were written: something changed it meanwhile; "
                "run it again"
            )


def seal(folder: Path, written: Mapping[Path, int]) -> list[File]:
    """Flush files to the disk and say what they hold.

    Parameters
    ----------
    folder
        The folder they are in, at any depth.
    written
        Size in bytes of each, as its writer left it.

    Returns
    -------
    list of File
        In the order of their names.

    Raises
    ------
    OutputError
        One has gone, or is not as long as what was written; or the disk fails.
    """
    check(written)
    paths = sorted(written)
    with writing(folder):
        found = contents(paths, flush=True)
    return [
        File(path.relative_to(folder).as_posix(), content.size, content.sha256)
        for path, content in zip(paths, found, strict=True)
    ]


def listed(folder: Path) -> list[File]:
    """Return the files that the record of a folder lists.

    Raises
    ------
    OutputError
        The record cannot be read, lists nothing, or names what lies outside of the folder.
    """
    record = folder / RECORD
    try:
        entries = parse_json(read_bytes(record))["files"]
        files = [File(str(entry["path"]), int(entry["bytes"]), str(entry["sha256"])) for entry in entries]
        if not files:
            raise ValueError("it lists none")
        if outside := [file.path for file in files if not _inside(file.path)]:
            raise ValueError(f"it names {outside[0][:80]!r}")
    except (OSError, EOFError, ValueError, KeyError, TypeError, OverflowError) as error:
        why = f"no {error}" if isinstance(error, KeyError) else getattr(error, "strerror", None) or error
        raise OutputError(
            f"{folder}: its {RECORD} does not say which files are of these results ({why}); move the folder "
            f"away, or choose another with {option('output')}"
        ) from None
    return files


def difference(folder: Path, files: Iterable[File]) -> str | None:
    """Return in which file a folder is not what its record says, in words; ``None`` where all is well.

    Parameters
    ----------
    folder
        A finished folder of results.
    files
        What its record lists; anything with ``path``, ``bytes`` and ``sha256``.
    """
    files = list(files)
    for file in files:  # what takes no time first
        if not _inside(file.path):
            return f"its record names {file.path[:80]!r}"
        try:
            size = (folder / file.path).stat().st_size
        except OSError:
            return f"{file.path} is missing"
        if size != file.bytes:
            return f"{file.path} has {size:,} bytes, and {file.bytes:,} were written"
    try:
        found = contents([folder / file.path for file in files])
    except OSError as error:
        return f"{error.filename} cannot be read ({error.strerror})"
    for file, content in zip(files, found, strict=True):
        if content.sha256 != file.sha256:
            return f"{file.path} has changed since it was written"
    return None


def remove_listed(folder: Path) -> None:
    """Delete the files that the record of a folder lists, and the folders that become empty by that.

    The record stays, and everything that it does not list. Links are not followed: what lies behind one
    is not ours.
    """
    root = folder.resolve()
    parents = set()
    for file in listed(folder):
        path = folder / file.path
        if path.parent.resolve() == root.joinpath(*PurePosixPath(file.path).parts[:-1]):
            with contextlib.suppress(IsADirectoryError, PermissionError, NotADirectoryError):
                path.unlink(missing_ok=True)
            parents |= {folder / parent for parent in list(PurePosixPath(file.path).parents)[:-1]}
    for parent in sorted(parents, key=lambda path: -len(path.parts)):
        with contextlib.suppress(OSError):
            os.rmdir(parent)  # noqa: PTH106  (a link to a folder is no folder)


def _inside(name: str) -> bool:
    """Whether a name in a record lies below its folder."""
    try:
        os.fsencode(name)
    except UnicodeEncodeError:  # half of a letter, which no file is called
        return False
    parts = PurePosixPath(name).parts
    odd = "\\" in name or "\0" in name or name != "/".join(parts)
    return bool(parts) and not odd and ".." not in parts and not name.startswith("/") and ":" not in parts[0]
