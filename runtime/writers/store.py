"""A zarr store on the disk that can be thrown away, whatever zarr is still writing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Condition
from typing import Any

from zarr.storage import LocalStore


class DiscardableStore(LocalStore):  # type: ignore[misc]  # zarr's types are not followed
    """A folder as a zarr store, with :meth:`discard`.

    zarr writes several files at once on threads of its own. When one of them fails, it raises at once
    and leaves the others running; each makes its folders again, so one that comes after the folder was
    removed brings it back.

    Parameters
    ----------
    root
        The folder.
    read_only
        As zarr has it.
    """

    def __init__(self, root: Path, *, read_only: bool = False) -> None:
        super().__init__(root, read_only=read_only)
        self._change = Condition()
        self._running = 0
        self._discarded = False
        self._sizes: dict[str, int] = {}

    async def set(self, key: str, value: Any) -> None:
        """Write a file, as zarr has it; refused after :meth:`discard`."""
        with self._writing():
            await super().set(key, value)
            self._sizes[key] = len(value)

    async def set_if_not_exists(self, key: str, value: Any) -> None:
        """Write a file unless it is there, as zarr has it; refused after :meth:`discard`."""
        with self._writing():
            await super().set_if_not_exists(key, value)
            self._sizes.setdefault(key, len(value))

    def set_sync(self, key: str, value: Any) -> None:
        """Write a file at once, as zarr has it; refused after :meth:`discard`."""
        with self._writing():
            super().set_sync(key, value)
            self._sizes[key] = len(value)

    async def delete(self, key: str) -> None:
        """Remove a file or folder, as zarr has it."""
        await super().delete(key)
        self._sizes = {
            name: size for name, size in self._sizes.items() if not f"{name}/".startswith(f"{key}/")
        }

    def written(self) -> dict[Path, int]:
        """Return the files that were written and their sizes in bytes."""
        return {self.root / key: size for key, size in self._sizes.items()}

    def discard(self) -> None:
        """Wait for the files being written, refuse all others, and remove the folder."""
        with self._change:
            self._discarded = True
            self._change.wait_for(lambda: not self._running)
        shutil.rmtree(self.root, ignore_errors=True)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._change:
            if self._discarded:
                raise FileNotFoundError(f"{self.root} was discarded")
            self._running += 1
        try:
            yield
        finally:
            with self._change:
                self._running -= 1
                self._change.notify_all()
