"""Whether a folder holds the finished results of just this: what ``resume`` may skip."""

from __future__ import annotations

import os
from pathlib import Path

from ..backends import Backend
from ..common.addresses import Address, place_of
from ..common.spelling import option
from ..errors import CellsegError, OutputError, UsageError
from ..options import SegmentOptions
from ..writers.contents import RECORD, File, difference
from ..writers.folder import recover
from .identity import Identity
from .result import Result
from .store import harm


def finished(
    image: object, folder: str | os.PathLike[str] | Address, backend: Backend, options: SegmentOptions
) -> Result | None:
    """Return the results that a folder holds of this image, by this model and with these options.

    Parameters
    ----------
    image
        As :func:`~cellseg.runtime.segment` takes it.
    folder
        Where its results go, a path or an address.
    backend
        The open model.
    options
        What is wanted.

    Returns
    -------
    Result or None
        ``None`` where nothing is finished there.

    Raises
    ------
    UsageError
        The folder holds other results; the message names what differs.
    OutputError
        They are not whole: a file is missing, or not what the record says.
    """
    path = place_of(folder)
    if isinstance(path, Path):
        recover(path)
    if not (path / RECORD).is_file():
        return None
    otherwise = f"with {option('overwrite', True)} or choose another folder with {option('output')}"
    try:
        found = Result.open(str(path))
    except CellsegError as error:
        raise UsageError(f"{error}; replace it {otherwise}") from None
    if other := found.record.identity().difference(Identity.of(image, backend, options), options):
        raise UsageError(f"{path}: holds other results: {other}; replace them {otherwise}")
    files = [File(file.path, file.bytes, file.sha256) for file in found.record.files]
    # From a store all would have to be fetched to compare their digests.
    if found_harm := harm(path, files) if isinstance(path, Address) else difference(path, files):
        raise OutputError(f"{path}: its results are not whole: {found_harm}; replace them {otherwise}")
    if isinstance(path, Path):
        recover(path, discard=True)
    return found


def has_results(folder: Path) -> bool:
    """Whether a folder is there that has to be compared with what is wanted, or refused."""
    return folder.is_symlink() or (folder.is_dir() and any(folder.iterdir())) or folder.is_file()
