"""Which formats are read, a row each.

Everything that asks "is this a picture?" asks here: folders and patterns of the commands, evaluation, tuning,
training, export. A reader is imported when a file of its format is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from ..common.spelling import option
from ..errors import ImageError, UsageError
from .base import SlideReader
from .headers import kind

#: Files that make a folder a Zarr group or array.
ZARR_FILES = ("zarr.json", ".zgroup", ".zattrs", ".zarray")
#: Formats that OpenSlide reads and that are not, or not only, TIFF.
_VENDOR = (".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".svslide", ".dcm")
_TIFF = (".tif", ".tiff", ".btf", ".tf2", ".tf8", ".ptif", ".ptiff", ".svs", ".qptiff", ".lsm", ".stk")
_PICTURES = {"PNG": (".png",), "JPEG": (".jpg", ".jpeg"), "WebP": (".webp",), "BMP": (".bmp",)}


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


@dataclass(frozen=True, slots=True)
class Format:
    """One format that is read."""

    #: As messages name it.
    name: str
    #: Endings that files of a folder are known by, lower case.
    suffixes: tuple[str, ...]
    #: Whether a file is of this format, by its path and its first 16 bytes (none for a folder).
    sniff: Callable[[Path, bytes | None], bool]
    #: Opens it.
    open: Callable[[Path, SlideOptions], SlideReader]


def _open_tiff(path: Path, options: SlideOptions) -> SlideReader:
    """Open a TIFF, with OpenSlide where its coding is known to that alone."""
    from .tiff import OpenSlideNeededError, TiffReader

    try:
        return TiffReader(path, **options)
    except OpenSlideNeededError as error:
        return _open_vendor(path, options, without=error)


def _open_picture(path: Path, options: SlideOptions) -> SlideReader:
    """Open a PNG, JPEG, WebP or BMP."""
    from .picture import open_picture

    _refuse(path, options, "series", "page", "z", "t")
    return open_picture(path, channels=options.get("channels"))


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


def open_zarr(path: Path | str, options: SlideOptions) -> SlideReader:
    """Open an OME-Zarr image: a folder or a URL."""
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
            raise UsageError(f"{path}: {option(name)} does not apply to this format; leave it out")


#: The first row that knows a file opens it.
FORMATS = (
    Format("OME-Zarr folders", (".zarr",), lambda path, head: head is None, open_zarr),
    Format("the OpenSlide formats", _VENDOR, lambda path, head: path.suffix.lower() in _VENDOR, _open_vendor),
    Format("TIFF, OME-TIFF, SVS", _TIFF, lambda path, head: kind(head or b"") == "TIFF", _open_tiff),
    *(
        Format(name, suffixes, lambda path, head, name=name: kind(head or b"") == name, _open_picture)  # type: ignore[misc]
        for name, suffixes in _PICTURES.items()
    ),
)
#: Endings of files that are taken from a folder; a folder of an OME-Zarr image is known by what is in it.
SUFFIXES = tuple(suffix for each in FORMATS if each.name != "OME-Zarr folders" for suffix in each.suffixes)
#: What can be read, for messages.
KNOWN = f"{', '.join(each.name for each in FORMATS[2:])}, {FORMATS[0].name} and {FORMATS[1].name}"


def is_zarr(path: Path) -> bool:
    """Return whether a path is a folder with a Zarr group or array in it."""
    return path.is_dir() and any((path / name).exists() for name in ZARR_FILES)


def is_picture(path: Path) -> bool:
    """Return whether a path in a folder is taken for a picture; hidden files are not."""
    if path.name.startswith("."):
        return False
    return is_zarr(path) if path.is_dir() else path.suffix.lower() in SUFFIXES
