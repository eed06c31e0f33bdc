"""Choose the reader for a path."""

from __future__ import annotations

import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

from ..errors import ImageError, UsageError
from .base import SlideReader
from .blocks import reason
from .headers import kind

#: Formats that OpenSlide reads and that are not, or not only, TIFF.
VENDOR_SUFFIXES = (".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".svslide", ".dcm")
#: What can be read, for messages.
KNOWN = "TIFF, OME-TIFF, SVS, PNG, JPEG, WebP, BMP, OME-Zarr folders and the OpenSlide formats"


class SlideOptions(TypedDict, total=False):
    """What :func:`open_slide` can be told; ``None`` is the default of each."""

    #: Number of the image in a file of several; by default the largest.
    series: int | None
    #: Plane along an unnamed axis, depth and time, from 0.
    page: int | None
    z: int | None
    t: int | None
    #: Names or numbers of the channels to read.
    channels: Sequence[int | str] | None
    #: Threads that decode.
    threads: int | None
    #: Read damaged tiles as zero and list them instead of raising.
    skip_bad_tiles: bool


def open_slide(path: str | Path, **options: Unpack[SlideOptions]) -> SlideReader:
    """Open a picture of any supported format.

    Parameters
    ----------
    path
        A file, an OME-Zarr folder, or the URL of one.
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
    if "://" in str(path):
        return _open_zarr(str(path), options)
    path = Path(path)
    head = _first_bytes(path)
    if head is None:
        return _open_zarr(path, options)
    found = kind(head)
    if path.suffix.lower() in VENDOR_SUFFIXES:
        return _open_vendor(path, options)
    if found == "TIFF":
        from .tiff import OpenSlideNeededError, TiffReader

        try:
            return TiffReader(path, **options)
        except OpenSlideNeededError as error:
            return _open_vendor(path, options, without=error)
    from .picture import KINDS, open_picture

    if found in KINDS:
        _refuse(path, options, "series", "page", "z", "t")
        return open_picture(path, channels=options.get("channels"))
    what = (
        f"a {found} file" if found else f"no picture format that is known here ({path.suffix or 'no suffix'})"
    )
    raise ImageError(f"{path}: {what}; readable are {KNOWN}. Bio-Formats converts others to OME-TIFF")


def by_size(files: Mapping[str, Path]) -> list[str]:
    """Return the names of pictures, small ones first: an engine gets ready anew for each size of tile.

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


def _first_bytes(path: Path) -> bytes | None:
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


def _open_vendor(path: Path, options: SlideOptions, without: ImageError | None = None) -> SlideReader:
    """Open a file with OpenSlide; ``without`` is what to say where OpenSlide is not installed."""
    from .vendor import VendorReader, installed

    if without is not None and not installed():
        raise without
    _refuse(path, options, "page", "z", "t")
    return VendorReader(
        path,
        series=options.get("series"),
        channels=options.get("channels"),
        threads=options.get("threads"),
        skip_bad_tiles=options.get("skip_bad_tiles", False),
    )


def _open_zarr(path: Path | str, options: SlideOptions) -> SlideReader:
    from .omezarr import OmeZarrReader

    _refuse(path, options, "page")
    return OmeZarrReader(
        path,
        series=options.get("series"),
        z=options.get("z"),
        t=options.get("t"),
        channels=options.get("channels"),
        skip_bad_tiles=options.get("skip_bad_tiles", False),
    )


def _refuse(path: Path | str, options: Any, *names: str) -> None:
    """Refuse options that choose among planes that the format does not have."""
    for name in names:
        if options.get(name):
            raise UsageError(f"{path}: --{name} does not apply to this format; leave it out")
