"""Names of files: as people read them, and as folders of results are called after them."""

from __future__ import annotations

import os
import re
from pathlib import Path

_SUFFIXES = re.compile(r"(\.ome)?\.(tiff?|zarr|btf|tf[28])$|\.[^. ]{1,12}$", re.IGNORECASE)


def readable(name: str) -> str:
    r"""Return a file's name as text that every encoding of Unicode can write.

    A name is bytes to the system. Python reads those that are no UTF-8, as from old shares, as lone
    surrogates, which no file or console takes. They were most likely written under Windows-1252.

    Examples
    --------
    >>> import os
    >>> readable(os.fsdecode(b"10\xb5m.tif")), readable("größe.tif")
    ('10µm.tif', 'größe.tif')
    """
    if name.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in name):
        return name
    try:
        return os.fsencode(name).decode("cp1252", "replace")
    except UnicodeEncodeError:  # a surrogate that no byte stands behind
        return name.encode("utf-8", "replace").decode()


def original(path: str) -> Path | None:
    """Return the file whose name reads like this one, ``None`` where there is none.

    Parameters
    ----------
    path
        As :func:`readable` returned it, so that names which are no UTF-8 differ from those on the disk.
    """
    if os.path.lexists(path):
        return Path(path)
    at = Path(Path(path).anchor)
    for part in Path(path).relative_to(at).parts:
        there = at / part
        if not os.path.lexists(there):
            try:
                alike = [each for each in at.iterdir() if readable(each.name) == part]
            except OSError:
                alike = []
            if len(alike) != 1:  # of two nobody knows which was meant
                return None
            there = alike[0]
        at = there
    return at


def result_name(path: Path | str) -> str:
    """Return the name of the folder for an image's results: its file name without the suffix.

    The name is always one plain folder name, whatever the image is called; ``...tif`` does not become
    the parent folder.
    """
    name = readable(Path(path).name)
    stem = _SUFFIXES.sub("", name).strip(". ") or name.strip(". ")
    stem = re.sub(r'[\x00-\x1f\x7f-\x9f/\\:*?"<>|]', "_", stem)
    return stem or "image"
