"""What a file is and how large its picture claims to be, from its first bytes, without decoding.

Decoders allocate what a header asks for, so the claim is checked before they are called.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ImageError

#: Most bytes of what must be decoded whole. Decoders hold up to three times as much for a moment.
BUDGET_BYTES = 1 << 30
#: The same for a picture that is decoded whole and kept.
PICTURE_BYTES = 3 << 30
#: A claim below this many decoded bytes is never refused.
HARMLESS_BYTES = 64 << 20
#: No codec packs real pixels more tightly than this many decoded bytes a stored byte.
MAX_RATIO = 20_000
#: No program writes a JPEG of more scans (some ten are usual), and each is a pass over all pixels.
MOST_PASSES = 100

_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"GIF8", "GIF"),
    (b"ZISRAWFILE", "Zeiss CZI"),
    (b"\xda\xce\xbe\x0a", "Nikon ND2"),
    (b"\x70\0\0\0", "Leica LIF"),
    (b"\x89HDF\r\n\x1a\n", "HDF5"),
    (b"%PDF", "PDF"),
    (b"PK\x03\x04", "ZIP archive"),
    (b"\x1f\x8b", "gzip archive"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"II\xbc\x01", "JPEG XR"),
    (b"Lerc2 ", "LERC"),
    (b"CntZImage ", "LERC"),
)
#: Width to height of a JPEG XL picture, by the number that stands for it.
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


@dataclass(frozen=True, slots=True)
class Claim:
    """What a picture's header says."""

    #: Rows and columns.
    height: int
    width: int
    #: Whether the end of the picture is there; formats that do not tell count as complete.
    complete: bool = True
    #: Bytes of a decoded pixel, at most.
    pixel_bytes: int = 3
    #: How often a decoder goes over all of it.
    passes: int = 1


def kind(head: bytes) -> str:
    """Return the name of the format that a file's first 16 bytes belong to, or an empty string."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    return next((name for magic, name in _MAGIC if head.startswith(magic)), "")


def claim(data: bytes) -> Claim | None:
    """Read the size of a PNG, JPEG, WebP, BMP, JPEG 2000, JPEG XL, JPEG XR or LERC picture.

    Returns
    -------
    Claim or None
        ``None`` where the header is not one of these or is damaged.
    """
    try:
        match kind(data[:16]):
            case "PNG":
                width, height, bits, colour = struct.unpack_from(">IIBB", data, 16)
                samples = {0: 1, 4: 2}.get(colour, 4 if colour == 6 else 3)
                return Claim(height, width, _reaches_end(data), samples * (2 if bits == 16 else 1))
            case "JPEG":
                return _jpeg(data)
            case "BMP":
                width, height = struct.unpack_from("<ii", data, 18)
                (size,) = struct.unpack_from("<I", data, 2)
                return Claim(abs(height), width, len(data) >= size)
            case "WebP":
                return _webp(data)
            case "JPEG 2000":
                return _jpeg2000(data)
            case "JPEG XL":
                return _jpegxl(data)
            case "JPEG XR":
                return _jpegxr(data)
            case "LERC":
                return _lerc(data)
    except (struct.error, IndexError):
        return None
    return None


def check_claim(path: Path, what: str, decoded: int, stored: int) -> None:
    """Refuse a header that asks for far more memory than the stored bytes can fill.

    Parameters
    ----------
    path
        For the message.
    what
        What makes the claim and how large it says to be, for the message.
    decoded, stored
        Bytes that decoding would allocate, and bytes that are there.

    Raises
    ------
    ImageError
        The claim cannot be true.
    """
    if decoded > HARMLESS_BYTES and decoded > MAX_RATIO * stored:
        raise ImageError(
            f"{path}: {what}, which would take {decoded / 1e9:,.1f} GB, but there are only {stored:,} bytes: "
            "the file is damaged or was not copied completely"
        )


def check_piece(
    path: Path | str, what: str, shape: Sequence[int], dtype: Any, fix: str, *, budget: int = 0
) -> None:
    """Refuse a strip, tile, chunk or picture that is decoded whole and would not fit the budget.

    Parameters
    ----------
    path, what
        For the message.
    shape, dtype
        Of the decoded piece.
    fix
        What can be done, for the message.
    budget
        Bytes that it may take; by default :data:`BUDGET_BYTES`.

    Raises
    ------
    ImageError
        It would take more.
    """
    size = math.prod(int(edge) for edge in shape) * int(np.dtype(dtype).itemsize)
    if size > (budget or BUDGET_BYTES):
        raise ImageError(f"{path}: {what} holds {size / 1e9:,.1f} GB and must be decoded whole; {fix}")


def check_picture(path: Path, name: str, data: bytes) -> Claim:
    """Return what the header of a PNG, JPEG, WebP or BMP claims, checked before anything is decoded.

    Raises
    ------
    ImageError
        The header is damaged, the file is cut short, or the picture is larger than its bytes can hold or
        the budget allows.
    """
    found = claim(data)
    if found is None or found.height < 1 or found.width < 1:
        raise ImageError(f"{path}: its {name} header is damaged; save the picture again")
    size = f"{found.height:,}×{found.width:,} pixels"
    check_claim(path, f"its header claims {size}", found.height * found.width * found.pixel_bytes, len(data))
    check_piece(
        path,
        f"a {name} of {size}",
        (found.height, found.width, max(3, found.pixel_bytes)),  # OpenCV counts pixels, too
        np.uint8,
        "save it as a tiled TIFF, which is read piece by piece",
        budget=PICTURE_BYTES,
    )
    if found.passes > MOST_PASSES:
        raise ImageError(
            f"{path}: a {name} of {found.passes:,} scans, as no program writes; save the picture again"
        )
    if not found.complete:
        raise ImageError(f"{path}: the {name} is cut short; copy or save the file again")
    return found


def _reaches_end(data: bytes) -> bool:
    """Walk the chunks of a PNG; a decoder makes room for as much as a chunk says that it holds."""
    at = 8
    while at + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, at)
        if at + 12 + size > len(data):
            return False
        if data[at + 4 : at + 8] == b"IEND":
            return True
        at += 12 + size
    return False


def _jpeg(data: bytes) -> Claim | None:
    """Walk the segments up to the start of scan; thumbnails inside them are stepped over."""
    at, size = 2, None
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if 0xD0 <= marker <= 0xD8 or marker == 0x01:  # no length
            at += 2
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # start of frame
            size = struct.unpack_from(">HH", data, at + 5)
        if marker == 0xDA:
            # Restart markers and stuffed zeros cannot be mistaken for the end of image, or another scan.
            if size is None:
                return None
            scans = data.count(b"\xff\xda", at, max(at + 2, data.find(b"\xff\xd9", at)))
            return Claim(size[0], size[1], data.rfind(b"\xff\xd9") > at, passes=scans)
        at += 2 + int(struct.unpack_from(">H", data, at + 2)[0])
    return None if size is None else Claim(size[0], size[1], complete=False)


def _webp(data: bytes) -> Claim | None:
    complete = len(data) >= struct.unpack_from("<I", data, 4)[0] + 8
    match data[12:16]:
        case b"VP8 ":
            width, height = struct.unpack_from("<HH", data, 26)
            return Claim(height & 0x3FFF, width & 0x3FFF, complete)
        case b"VP8L":
            (bits,) = struct.unpack_from("<I", data, 21)
            return Claim((bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1, complete)
        case b"VP8X":
            width = int.from_bytes(data[24:27], "little") + 1
            height = int.from_bytes(data[27:30], "little") + 1
            return Claim(height, width, complete)
    return None


def _jpeg2000(data: bytes) -> Claim | None:
    at = data.find(b"\xff\x4f\xff\x51")  # start of codestream, then image and tile size
    if at < 0:
        return None
    x1, y1, x0, y0 = struct.unpack_from(">IIII", data, at + 8)
    (components,) = struct.unpack_from(">H", data, at + 40)
    return Claim(max(0, y1 - y0), max(0, x1 - x0), pixel_bytes=max(3, components))


def _jpegxl(data: bytes) -> Claim | None:
    """Read the first numbers of the codestream, low bits first (ISO/IEC 18181-1, SizeHeader)."""
    at = 0
    if data[:2] != b"\xff\x0a":  # in boxes: whole, or in numbered parts
        at = next(
            (
                found + len(mark) + skip
                for mark, skip in ((b"jxlc", 0), (b"jxlp", 4))
                if (found := data.find(mark)) >= 0
            ),
            -1,
        )
        if at < 0 or data[at : at + 2] != b"\xff\x0a":
            return None
    bits = int.from_bytes(data[at + 2 : at + 14], "little")

    def take(count: int) -> int:
        nonlocal bits
        value = bits & ((1 << count) - 1)
        bits >>= count
        return value

    by_eight = take(1)

    def size() -> int:
        return 8 * (1 + take(5)) if by_eight else 1 + take((9, 13, 18, 30)[take(2)])

    height = size()
    ratio = take(3)
    wide, tall = _RATIOS[ratio - 1] if ratio else (0, 1)
    return Claim(height, height * wide // tall if ratio else size())


def _jpegxr(data: bytes) -> Claim | None:
    """Read the table of tags, which is that of a TIFF with tags of its own."""
    (at,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, at)
    found = {}
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, _, _, value = struct.unpack_from("<HHII", data, entry)
        found[tag] = value
    return Claim(found[0xBC81], found[0xBC80]) if {0xBC80, 0xBC81} <= set(found) else None


def _lerc(data: bytes) -> Claim | None:
    if data[:1] == b"C":
        height, width = struct.unpack_from("<II", data, 18)
        return Claim(height, width, pixel_bytes=4)
    (version,) = struct.unpack_from("<i", data, 6)
    at = 14 if version >= 3 else 10  # a checksum stands between
    height, width = struct.unpack_from("<II", data, at)
    depth = struct.unpack_from("<I", data, at + 8)[0] if version >= 4 else 1
    return Claim(height, width, pixel_bytes=8 * depth)
