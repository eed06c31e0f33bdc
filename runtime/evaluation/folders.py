"""Folders of label images on disk, paired with each other or with pictures by name.

It reads label images (one number per cell) and checks that nothing is missing on either side. It
does not read pictures, and knows nothing of models or figures.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ..common.bounded import read_table
from ..common.names import result_name
from ..errors import DataError, ImageError
from ..readers import formats
from ..readers import labels as labels_reader
from .contingency import Labels

#: Endings of label images, and of pictures; what a file really holds is up to the reader.
LABEL_SUFFIXES = (*labels_reader.SUFFIXES, ".zarr")
PICTURES = (*formats.SUFFIXES, ".zarr")
#: What ``cellseg-infer`` writes for the picture ``NAME.png``: the folder ``NAME`` with this in it.
LABELS_ZARR = "labels.ome.zarr"
#: How many missing names an error line spells out.
_SPELLED_OUT = 3


@dataclass(frozen=True, slots=True)
class LabelFolder:
    """The label images of a folder by stem: the name without its ending, as results are named."""

    folder: Path
    files: dict[str, Path]
    #: The images are masks of foreground and background, not numbered cells: :meth:`read` numbers
    #: their connected components (neighbours across corners included).
    semantic: bool

    @classmethod
    def open(cls, folder: Path) -> LabelFolder:
        """List a folder and find out whether its images number the cells.

        A folder counts as semantic when no image in it has two different numbers, though in some
        image the foreground falls into several pieces. One look at most images settles that.

        Parameters
        ----------
        folder
            Holds ``STEM.png`` (or .tif, .tiff, .bmp), or ``STEM/labels.ome.zarr`` as written by
            ``cellseg-infer``.

        Raises
        ------
        DataError
            The folder is missing or holds no label images; an image cannot be read.
        """
        files = list_files(folder, LABEL_SUFFIXES, "label images")
        pieces = 0
        for path in files.values():
            labels = read_labels(path)
            numbers = np.unique(labels[labels > 0])
            if len(numbers) > 1:
                return cls(folder, files, semantic=False)
            pieces = max(pieces, _components(labels).max(initial=0))
        return cls(folder, files, semantic=bool(pieces > 1))

    def read(self, stem: str) -> Labels:
        """Return the labels of one image, (H, W), 0 for background."""
        labels = read_labels(self.files[stem])
        return _components(labels) if self.semantic else labels


def list_files(folder: Path, suffixes: Iterable[str], what: str) -> dict[str, Path]:
    """Map stem to file for the pictures (or results of ``cellseg-infer``) in a folder.

    Parameters
    ----------
    folder
        Searched without its subfolders.
    suffixes
        Endings to accept, lower case; other files are ignored.
    what
        What the folder should hold, for messages.

    Raises
    ------
    DataError
        The folder is missing or holds none, or two files share a stem.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; wanted a folder of {what}")
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if (path / LABELS_ZARR).is_dir():
            stem, path = path.name, path / LABELS_ZARR
        elif path.suffix.lower() in suffixes and (formats.is_zarr(path) if path.is_dir() else True):
            stem = result_name(path)
        else:
            continue
        if stem in files:
            raise DataError(f"{path}: {files[stem].name} has the same name; keep one of the two")
        files[stem] = path
    if not files:
        raise DataError(f"{folder}: no {what} found; wanted files ending in {', '.join(suffixes)}")
    return files


def check_partners(files: dict[str, Path], partners: dict[str, Path], folder: Path) -> None:
    """Refuse a file that has no partner of the same stem in the other folder.

    Raises
    ------
    DataError
        Names the first few files without a partner and the folder where it was wanted.
    """
    lonely = [path for stem, path in files.items() if stem not in partners]
    if lonely:
        named = ", ".join(path.name for path in lonely[:_SPELLED_OUT])
        more = f" and {len(lonely) - _SPELLED_OUT} more" if len(lonely) > _SPELLED_OUT else ""
        raise DataError(
            f"{lonely[0].parent}: {named}{more} without a partner of the same name in {folder}; "
            "add the partner or move the file away"
        )


def read_labels(path: Path) -> Labels:
    """Read a label image.

    Parameters
    ----------
    path
        A picture with one integer channel, or an OME-Zarr of labels.

    Returns
    -------
    ndarray, shape (H, W), integer

    Raises
    ------
    DataError
        The file is damaged or empty, or holds something else than one number per pixel.
    """
    try:
        labels = labels_reader.read_labels(path)
    except labels_reader.NoLabelsError as error:
        raise DataError(str(error)) from None
    except ImageError as error:
        what = str(error).removeprefix(f"{path}: ")
        raise DataError(f"{path}: cannot be read as a label image ({what}); replace the file") from None
    except Exception as error:  # decoders raise whatever they like on damaged files
        raise DataError(f"{path}: cannot be read as a label image ({error}); replace the file") from error
    if not labels.size:  # OpenCV ends the process over these
        raise DataError(f"{path}: holds {labels.shape[0]}×{labels.shape[1]} pixels; replace the file")
    return labels


def _components(labels: Labels) -> Labels:
    mask = (labels > 0).astype(np.uint8)
    return np.asarray(cv2.connectedComponents(mask, connectivity=8)[1], np.int32)


def read_groups(path: Path, by: str) -> dict[str, str]:
    """Read which group each image belongs to.

    Parameters
    ----------
    path
        A CSV file with a header. Its first column names the images, with or without ending.
    by
        The column that names the group.

    Returns
    -------
    dict
        Stem of the image → group.

    Raises
    ------
    DataError
        The file cannot be read, or has no such column.
    """
    try:
        columns, lines = read_table(path)
        rows = [row for _, row in lines]
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as CSV ({error}); wanted a table with a header") from error
    if by not in columns:
        raise DataError(f"{path}: no column {by!r}; found {', '.join(map(str, columns)) or 'no rows'}")
    return {result_name(row[columns[0]]): row.get(by, "") for row in rows}
