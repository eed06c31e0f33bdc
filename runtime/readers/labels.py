"""Label images: one whole number a pixel, 0 for background, read as they are stored.

They come from the same programs as pictures do, and are found in a file by the same rules; but nothing is
converted on the way: no scale to grey levels, no colours of a palette. Whole numbers in floats (ImageJ has no
32-bit integers) and -1 for background (watersheds, napari, deep learning) are what other programs write.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..errors import ImageError
from ..geometry.tiling import Region
from .base import SlideReader
from .blocks import reason
from .decoder_log import listening
from .headers import PICTURE_BYTES, check_picture, check_piece, kind
from .open import first_bytes

#: Endings of label images. JPEG is missing on purpose: it blurs numbers.
SUFFIXES = (".png", ".tif", ".tiff", ".btf", ".tf2", ".tf8", ".bmp")
#: Beyond this, a float does not hold every whole number.
_LARGEST = {"float16": 2.0**11, "float32": 2.0**24, "float64": 2.0**53}


class NoLabelsError(ImageError):
    """The file is sound, but it holds something else than one whole number a pixel."""


def read_labels(path: Path) -> npt.NDArray[np.integer[Any]]:
    """Read a label image.

    Parameters
    ----------
    path
        A TIFF, PNG or BMP, or the folder of an OME-Zarr label image.

    Returns
    -------
    ndarray, shape (H, W), integer
        As stored; uint8 for bits, int64 for whole numbers in floats. -1 has become 0.

    Raises
    ------
    ImageError
        The file is damaged or empty, or holds something else than one whole number a pixel.
    """
    head = first_bytes(path)
    if head is None and (plain := _plain_array(path)) is not None:
        return _whole(path, plain)
    if head is None or kind(head) == "TIFF":
        with _open(path, head is None) as reader:
            if reader.channels != 1 or _is_stack(reader):
                what = f"{reader.channels} channels" if reader.channels > 1 else "a stack"
                raise _unlike(path, f"{reader.dtype} of {what}")
            pixels = reader.read(Region(0, 0, reader.height, reader.width))[:, :, 0]
    else:
        pixels = _decode(path, kind(head))
    return _whole(path, pixels)


def _plain_array(path: Path) -> npt.NDArray[Any] | None:
    """Return the array of a Zarr folder without an OME record; ``None`` where there is one, or no array."""
    import zarr

    from .chunks import bounded
    from .stores import store_of

    try:
        node: Any = zarr.open(store_of(path), mode="r")
        if isinstance(node, zarr.Group):
            record = node.attrs.asdict()
            if "multiscales" in record or "ome" in record or "0" not in node:
                return None
            node = node["0"]
        check_piece(
            path, "its array", node.shape, node.dtype, "give it an OME-Zarr record", budget=PICTURE_BYTES
        )
        values = np.asarray(bounded(node)[...])
    except (KeyError, ValueError, OSError, TypeError) as error:
        raise ImageError(f"{path}: not a readable Zarr array: {reason(error)}") from None
    flat = values.reshape([edge for edge in values.shape if edge != 1] if values.ndim > 2 else values.shape)
    if flat.ndim != 2:
        raise _unlike(path, f"{values.dtype} of shape {'×'.join(map(str, values.shape))}")
    return np.asarray(flat)


def _open(path: Path, folder: bool) -> SlideReader:
    if folder:
        from .omezarr import OmeZarrReader

        return OmeZarrReader(path, exact=True)
    from .tiff import TiffReader

    return TiffReader(path, exact=True)


def _is_stack(reader: SlideReader) -> bool:
    """Return whether a plane was chosen among several."""
    return any(note.startswith(("z ", "t ", "page ", "series ")) for note in reader.notes)


def _decode(path: Path, what: str) -> npt.NDArray[Any]:
    if what not in ("PNG", "BMP"):
        raise ImageError(
            f"{path}: {f'a {what}' if what else 'no known format'}; wanted a 16-bit PNG or a TIFF"
        )
    data = path.read_bytes()
    check_picture(path, what, data)
    try:
        with listening():
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except (cv2.error, MemoryError) as error:
        raise ImageError(f"{path}: the {what} cannot be decoded: {reason(error)}") from None
    if pixels is None:
        raise ImageError(f"{path}: the {what} is damaged and cannot be decoded; replace the file")
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.ndim != 2:
        raise _unlike(path, f"{pixels.dtype} of shape {'×'.join(map(str, pixels.shape))}")
    return np.asarray(pixels)


def _whole(path: Path, pixels: npt.NDArray[Any]) -> npt.NDArray[np.integer[Any]]:
    """Return numbers as integers, -1 as 0."""
    if pixels.dtype.kind == "b":
        return pixels.astype(np.uint8)
    if pixels.dtype.kind == "f":
        limit = _LARGEST.get(pixels.dtype.name, 2.0**53)
        with np.errstate(invalid="ignore"):
            sound = np.isfinite(pixels).all() and bool((pixels == np.trunc(pixels)).all())
        if not sound or bool((np.abs(pixels) > limit).any()):
            raise _unlike(path, f"{pixels.dtype} with values that are no whole numbers")
        pixels = pixels.astype(np.int64)
    if pixels.dtype.kind not in "iu":
        raise _unlike(path, str(pixels.dtype))
    if pixels.dtype.kind == "i" and pixels.size:
        lowest = int(pixels.min())
        if lowest < -1:
            raise _unlike(path, f"the label {lowest}")
        if lowest == -1:
            pixels = np.where(pixels < 0, pixels.dtype.type(0), pixels)
    return pixels


def _unlike(path: Path, found: str) -> NoLabelsError:
    return NoLabelsError(
        f"{path}: found {found}; wanted one integer channel with 0 for background and one number per cell, "
        "such as a 16-bit PNG"
    )
