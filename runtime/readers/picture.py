"""Plain pictures: PNG, JPEG, WebP and BMP. They are decoded whole; they cannot be read in part.

PNG holds checksums, so any damage to its pixels is found. JPEG holds none: of 200 bytes that are
overwritten its decoder notices four times in five that codes make no sense, of a single byte one time
in four; what it notices is told here. Damage to the pixels of a WebP or BMP that leaves its structure
intact cannot be told from a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from ..errors import ImageError
from .array import ArrayReader
from .blocks import reason
from .decoder_log import listening
from .headers import check_picture, kind

#: The formats this module decodes.
KINDS = ("PNG", "JPEG", "WebP", "BMP")
#: What libjpeg also says of sound pictures: some cameras write more bytes than they need before the end.
HARMLESS = ("extraneous bytes before marker 0xd9", "Unknown Adobe color", "unknown JFIF")


def open_picture(path: Path, *, channels: Sequence[int | str] | None = None) -> ArrayReader:
    """Decode a PNG, JPEG, WebP or BMP file.

    Colours come in the order red, green, blue; the orientation in the EXIF record is applied; alpha
    is dropped; 16 bits stay 16 bits.

    Parameters
    ----------
    path
        The file.
    channels
        Names or numbers of the channels to keep.

    Raises
    ------
    ImageError
        The file is damaged, cut short, or larger than memory allows.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {reason(error)}") from None
    name = kind(data[:16])
    check_picture(path, name, data)
    try:
        flags = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR
        with listening() as complaints:
            decoded = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except (cv2.error, MemoryError) as error:
        raise ImageError(f"{path}: the {name} cannot be decoded: {reason(error)}") from None
    if decoded is None:
        raise ImageError(f"{path}: the {name} is damaged and cannot be decoded; save the picture again")
    said = "; ".join(complaints)
    if name == "JPEG" and complaints and not any(text in said for text in HARMLESS):
        raise ImageError(f"{path}: the JPEG is damaged ({said}); copy or save the picture again")
    array = np.asarray(decoded)
    if array.ndim == 3:
        array = np.ascontiguousarray(array[:, :, 2::-1])
    notes = [f"the {name} decoder said '{said}': see whether the whole picture is sound"] if said else []
    return ArrayReader(array, path, channels=channels, notes=notes)
