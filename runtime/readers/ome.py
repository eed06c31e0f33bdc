"""The OME record of a TIFF: which images there are, and in which page of which file each plane lies.

A record may speak of many files: the positions of a stage, the wells of a plate, one file a channel or a
time. Each file carries the whole record, or names the one file that does. Nothing is opened here but that
one. The model: https://docs.openmicroscopy.org/ome-model/
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from xml.etree import ElementTree

import tifffile

#: A record in a file of its own is read up to this many bytes.
MAX_RECORD_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class OmeChannel:
    """One Channel element."""

    #: As the user called it, or its dye; may be empty.
    name: str
    #: Samples a pixel: 3 for colours.
    samples: int


@dataclass(frozen=True, slots=True)
class Block:
    """One TiffData element: consecutive planes of an image, in consecutive pages of a file."""

    #: Index of the first plane along each axis of :attr:`OmeImage.axes`.
    place: tuple[int, ...]
    #: Number of planes; ``None`` for as many as the file has pages.
    count: int | None
    #: Page of the first plane.
    page: int
    #: The file's name and identity; empty where the element names none.
    file: str
    uuid: str


@dataclass(frozen=True, slots=True)
class OmeImage:
    """One Image element."""

    #: Its place in the record, from 0, images without planes included.
    index: int
    name: str
    #: The order of planes, slowest first, of T, Z and C; sizes along them.
    axes: str
    sizes: tuple[int, ...]
    height: int
    width: int
    channels: tuple[OmeChannel, ...]
    blocks: tuple[Block, ...]
    #: Attributes of the Pixels element.
    attributes: Mapping[str, str]

    def shape(self, samples: int) -> tuple[int, ...]:
        """Return the number of planes along each axis, where a page holds ``samples`` samples a pixel."""
        every = dict(zip(self.axes, self.sizes, strict=True))
        if samples > 1:
            every["C"] = max(1, every["C"] // samples)
        return tuple(every[axis] for axis in self.axes)

    def locate(
        self, place: Sequence[int], shape: Sequence[int], pages: Callable[[Block], int | None]
    ) -> tuple[Block, int] | None:
        """Return in which block, and in which page of its file, a plane lies; ``None`` where in none.

        Parameters
        ----------
        place, shape
            Index along each axis, and the number of planes along it.
        pages
            How many pages the file of a block has; ``None`` for a file that is not there.
        """
        index = flat(place, shape)
        for block in reversed(self.blocks):  # where two speak of one plane, the later one counts
            if not all(0 <= at < edge for at, edge in zip(block.place, shape, strict=True)):
                continue  # some programs keep such blocks when they crop
            ahead = index - flat(block.place, shape)
            count = block.count if block.count is not None else pages(block)
            if ahead >= 0 and (count is None or ahead < count):
                return block, block.page + ahead
        return None


@dataclass(frozen=True, slots=True)
class Record:
    """An OME record and the file that it was found in."""

    images: tuple[OmeImage, ...]
    owner: Path
    #: The record has a file of its own, without pixels.
    apart: bool = False


class Members:
    """Which file each block of a record lies in, seen from one file of the set.

    Files are renamed and records are copied, so neither names nor identities can be trusted alone:

    * a block that names this file lies in it;
    * so does one with this file's identity, unless the file that it names is there as well;
    * a record that speaks of one file only, which is not there, speaks of this one.

    Parameters
    ----------
    record
        The record.
    path
        The file that the user named.
    uuid
        That file's own identity, where it has one.
    """

    def __init__(self, record: Record, path: Path, uuid: str) -> None:
        self._record, self._path = record, path
        keys = {(b.file, b.uuid) for image in record.images for b in image.blocks if b.file or b.uuid}
        named = {key for key in keys if key[0] and self._written(key[0]) == path}
        if not named:
            alike = {key for key in keys if _base(key[0]).casefold() == path.name.casefold()}
            named = alike if len({file for file, _ in alike}) == 1 else set()
        known = {key for key in keys if uuid and key[1] == uuid} - named
        gone = {key for key in known if not key[0] or not self._written(key[0]).exists()}
        own = gone or named  # renamed, perhaps to the name that another file of the set had
        if not own and len(keys) == 1 and not any(self._written(file).exists() for file, _ in keys):
            own = keys
        self._own = frozenset(own)

    def path(self, block: Block) -> Path:
        """Return the file that a block lies in, whether it is there or not."""
        key = block.file, block.uuid
        if key in self._own:
            return self._path
        if block.file or block.uuid:
            path = self._written(block.file or block.uuid)
            # A name that was given to another file of the set: what had it is not there any more.
            return path if path != self._path else path.with_name(f"{path.name} as it was")
        return self._path if self._record.apart else self._record.owner

    def holds(self, image: OmeImage) -> bool:
        """Return whether any plane of an image lies in the named file."""
        return any(self.path(block) == self._path for block in image.blocks)

    def _written(self, name: str) -> Path:
        return self._record.owner.parent / plain(name)


def read_record(path: Path, description: str) -> tuple[Record | None, str, str]:
    """Read the record that a TIFF carries, or the one that it points to.

    Parameters
    ----------
    path
        The TIFF.
    description
        Its first page's description.

    Returns
    -------
    record, uuid, note
        The record, ``None`` where there is no sound one; the file's own identity; and what the user
        should know, or an empty string.
    """
    root = _parse(description)
    if root is None:
        return None, "", ""
    uuid = root.get("UUID") or ""
    pointer = next((e for e in root if local(e) == "BinaryOnly"), None)
    if pointer is None:
        return Record(tuple(_images(root)), path), uuid, ""
    name = pointer.get("MetadataFile") or ""
    other = path.parent / plain(name)
    text = _text_of(other) if name and inside(other, path.parent) else None
    root = _parse(text) if text else None
    if root is None:
        return None, uuid, f"its record {name!r} is missing: only this file's own tags count"
    return Record(tuple(_images(root)), other, apart=not is_tiff(other)), uuid, ""


def flat(place: Sequence[int], shape: Sequence[int]) -> int:
    """Return the number of a plane, the last axis fastest."""
    index = 0
    for at, edge in zip(place, shape, strict=True):
        index = index * edge + at
    return index


def inside(path: Path, folder: Path) -> bool:
    """Return whether a path, by its words alone, stays inside a folder."""
    try:
        parts = path.relative_to(folder).parts
    except ValueError:
        return False
    return ".." not in parts


def local(element: ElementTree.Element) -> str:
    """Return an element's name without its namespace."""
    return str(element.tag).rpartition("}")[2]


def _parse(text: str) -> ElementTree.Element | None:
    try:
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError, RecursionError):
        return None


def is_tiff(path: Path) -> bool:
    """Return whether a file begins as a TIFF does."""
    with path.open("rb") as file:
        return file.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def _text_of(path: Path) -> str | None:
    """Return a record in a file of its own, or in the description of another TIFF."""
    try:
        if is_tiff(path):
            with tifffile.TiffFile(path) as tiff:
                return str(tiff.pages.first.description or "")
        with path.open("rb") as file:
            return file.read(MAX_RECORD_BYTES).decode("utf-8", errors="replace")
    except Exception:  # a file that cannot be read is no record, whatever is wrong with it
        return None


def _images(root: ElementTree.Element) -> Iterator[OmeImage]:
    found = [e for e in root if local(e) == "Image"]
    for index, element in enumerate(found):
        pixels = next((e for e in element if local(e) == "Pixels"), None)
        image = None if pixels is None else _image(index, element.get("Name") or "", pixels)
        if image is not None:
            yield image


def _image(index: int, name: str, pixels: ElementTree.Element) -> OmeImage | None:
    """Read a Pixels element; ``None`` where its sizes make no sense."""
    order = pixels.get("DimensionOrder") or "XYZCT"
    axes = "".join(axis for axis in reversed(order.upper()) if axis in "ZCT")
    if sorted(axes) != ["C", "T", "Z"]:
        return None
    sizes = {axis: _whole(pixels.get(f"Size{axis}"), 1) for axis in "ZCTYX"}
    if min(sizes.values()) < 1:
        return None
    channels = tuple(
        OmeChannel(
            (e.get("Name") or e.get("Fluor") or "").strip(), max(1, _whole(e.get("SamplesPerPixel"), 1))
        )
        for e in pixels
        if local(e) == "Channel"
    )
    blocks = tuple(_block(e, axes) for e in pixels if local(e) == "TiffData")
    shape = tuple(sizes[axis] for axis in axes)
    return OmeImage(index, name, axes, shape, sizes["Y"], sizes["X"], channels, blocks, dict(pixels.attrib))


def _block(element: ElementTree.Element, axes: str) -> Block:
    uuid = next((e for e in element if local(e) == "UUID"), None)
    count = _whole(element.get("PlaneCount") or element.get("NumPlanes"), 1 if "IFD" in element.attrib else 0)
    return Block(
        tuple(_whole(element.get(f"First{axis}"), 0) for axis in axes),
        count if count > 0 else None,
        _whole(element.get("IFD"), 0),
        "" if uuid is None else (uuid.get("FileName") or ""),
        "" if uuid is None else (uuid.text or "").strip(),
    )


def _whole(text: str | None, default: int) -> int:
    """Return a whole number; the default where there is none, -1 for what is no number."""
    if text is None or not text.strip():
        return default
    try:
        value = float(text)
    except ValueError:
        return -1
    return int(value) if math.isfinite(value) else -1


def plain(name: str) -> str:
    """Return a file's name as written in a record, without the drive and folders of another computer."""
    windows = PureWindowsPath(name)
    return windows.name if windows.drive or windows.root else name.replace("\\", "/")


def _base(name: str) -> str:
    return PureWindowsPath(name).name
