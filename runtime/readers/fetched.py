"""A picture at an address, copied to the disk first: most formats want a file that can be read anywhere."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from ..common.addresses import UNLISTED, Address, is_address
from ..errors import CellsegError
from ..geometry.tiling import Region
from .base import DirectReader, Pixels, SlideReader
from .formats import SUFFIXES
from .scale import Scale

#: Formats whose file comes with a folder of the same name that holds the pixels.
COMPANIONS = (".mrxs", ".vms", ".vmu")
#: Begins the names of folders for what is fetched or not sent yet.
SCRATCH = "cellseg-"


def is_fetched(name: object) -> bool:
    """Return whether this is the address of a file of a format that is fetched before it is opened.

    All but OME-Zarr, which is read in place.
    """
    text = str(name)
    return is_address(text) and Address(text).suffix in SUFFIXES and ".zarr/" not in text


class FetchedReader(DirectReader):
    """A picture that is read from a copy, and known by its address.

    Parameters
    ----------
    address
        Of its file.
    open_copy
        Opens the copy.

    Raises
    ------
    ImageError
        It cannot be fetched, or not be read.
    UsageError
        As from the reader of its format.
    """

    def __init__(self, address: str, open_copy: Callable[[Path], SlideReader]) -> None:
        self._address = Address(address)
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(
                tempfile.TemporaryDirectory(prefix=SCRATCH, ignore_cleanup_errors=True)
            )
            self._copy = Path(folder) / self._address.name
            self._address.fetch(self._copy)
            if self._copy.suffix.lower() in COMPANIONS and self._address.scheme not in UNLISTED:
                beside = self._address.parent / self._copy.stem
                beside.fetch_folder(self._copy.with_suffix(""))
            with self._known_by_address():
                self._reader = stack.enter_context(open_copy(self._copy))
            reader = self._reader
            super().__init__(
                Path(address),
                dtype=reader.dtype,
                channel_names=reader.channel_names,
                levels=reader.levels,
                scale=Scale(reader.pixel_size, reader.aspect),
                notes=tuple(map(self._said, reader.notes)),
            )
            self._stack = stack.pop_all()

    @property
    def location(self) -> str:
        """The address."""
        return str(self._address)

    @property
    def bad_blocks(self) -> tuple[str, ...]:
        """Damaged tiles that were read as zero."""
        return tuple(map(self._said, self._reader.bad_blocks))

    def _read(self, region: Region, level: int) -> Pixels:
        with self._known_by_address():
            return self._reader.read(region, level)

    def _read_into(self, region: Region, level: int, out: Pixels) -> None:
        with self._known_by_address():
            self._reader.read_into(region, out, level)

    def close(self) -> None:
        """Close the copy and remove it."""
        self._stack.close()

    @contextlib.contextmanager
    def _known_by_address(self) -> Iterator[None]:
        """Let errors speak of the address; nobody knows the copy."""
        try:
            yield
        except CellsegError as error:
            error.args = (self._said(str(error)),)
            raise

    def _said(self, text: str) -> str:
        return text.replace(str(self._copy), str(self._address)).replace(
            str(self._copy.parent), str(self._address.parent)
        )
