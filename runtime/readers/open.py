"""Choose the reader for a path."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Unpack

from ..common.addresses import is_address
from ..errors import ImageError
from .base import SlideReader
from .blocks import reason
from .fetched import FetchedReader, is_fetched
from .formats import FORMATS, KNOWN, SlideOptions, open_zarr
from .headers import kind
from .refused import refusal

__all__ = ["SlideOptions", "by_size", "open_slide"]


def open_slide(path: str | Path, **options: Unpack[SlideOptions]) -> SlideReader:
    """Open a picture of any supported format.

    Parameters
    ----------
    path
        A file, an OME-Zarr folder, or the address of one, such as ``s3://bucket/a.svs``. OME-Zarr is read
        where it is; other formats are copied to the temporary folder for as long as they are open.
    **options
        See :class:`SlideOptions`.

    Returns
    -------
    SlideReader
        To be closed, or used in a ``with`` statement.

    Raises
    ------
    ImageError
        The path is missing, unreadable, empty, damaged or of another format.
    UsageError
        An option names something that the picture does not have.
    """
    if is_address(path):
        if not is_fetched(path):
            return open_zarr(str(path), options)
        return FetchedReader(str(path), lambda copy: open_slide(copy, **options))
    path = Path(path)
    head = first_bytes(path)
    if head is not None and (refused := refusal(path)):
        raise ImageError(refused)
    for each in FORMATS:
        if each.sniff(path, head):
            return each.open(path, options)
    found = kind(head or b"")
    what = (
        f"a {found} file" if found else f"no picture format that is known here ({path.suffix or 'no suffix'})"
    )
    raise ImageError(f"{path}: {what}; readable are {KNOWN}. Bio-Formats converts others to OME-TIFF")


def by_size(files: Mapping[str, Path]) -> list[str]:
    """Return the names of pictures, small ones first: an engine is compiled again for each size of tile.

    Raises
    ------
    ImageError
        One cannot be read.
    """
    sizes = {}
    for name, path in files.items():
        with open_slide(path) as slide:
            sizes[name] = (max(slide.height, slide.width), slide.height)
    return sorted(files, key=sizes.__getitem__)


def first_bytes(path: Path) -> bytes | None:
    """Return the first bytes of a file, ``None`` for a folder; refuse what is neither, or is empty."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            return None
        if not stat.S_ISREG(mode):  # opening a pipe would wait for ever
            raise ImageError(f"{path}: not a regular file; save the picture to disk first")
        with path.open("rb") as file:
            head = file.read(16)
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file; check the path") from None
    except ImageError:
        raise
    except (OSError, ValueError) as error:
        raise ImageError(f"{path}: cannot be read: {reason(error)}") from None
    if not head:
        raise ImageError(f"{path}: the file is empty (0 bytes); copy or save it again")
    return head
