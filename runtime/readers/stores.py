"""Where the parts of a Zarr folder come from: files, and nothing else.

A folder from elsewhere may hold a pipe or a link to a device by the name of a chunk or a record; reading it
would never end.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from zarr.storage import LocalStore

from ..common.addresses import is_address
from ..common.bounded import check_file

#: Names of records, and how long one may be in bytes.
_RECORDS = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")
LONGEST_RECORD = 64 << 20


class Files(LocalStore):  # type: ignore[misc]
    """A folder of which only regular files are read."""

    async def get(self, key: str, prototype: Any = None, byte_range: Any = None) -> Any:
        """Return what a file holds, or ``None`` without one; parameters are those of ``LocalStore``."""
        await asyncio.to_thread(self._check, key)
        return await super().get(key, prototype, byte_range)

    def _check(self, key: str) -> None:
        path = self.root / key
        try:
            size = 0 if path.is_dir() else check_file(path)
        except (FileNotFoundError, NotADirectoryError):
            return
        if path.name in _RECORDS and size > LONGEST_RECORD:
            raise ValueError(f"its record {key} has {size:,} bytes; at most {LONGEST_RECORD:,} are read")


def store_of(path: Path | str) -> Any:
    """Return what Zarr is to open for a folder or an address."""
    name = str(path)
    return Files(name, read_only=True) if not is_address(name) and Path(name).is_dir() else name
