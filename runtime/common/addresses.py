"""Files at addresses such as ``s3://bucket/slides/a.tif``: whatever fsspec reads and writes.

Only the store that the user named is asked, with the rights that fsspec's package for it finds by itself: of
S3 those of AWS's own tools. Knows nothing of pictures or results.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CellsegError, ImageError, OutputError
from .bounded import LONGEST_TEXT
from .pulse import beat

#: What pip must install before addresses of a scheme can be used.
PACKAGES = {
    "http": "'cellseg[remote]'", "https": "'cellseg[remote]'", "s3": "'cellseg[s3]'", "s3a": "'cellseg[s3]'",
    "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs",
}  # fmt: skip
#: Schemes whose folders must be made before there can be files in them; buckets have none.
FOLDERS = {"file", "local", "sftp", "ssh", "smb", "ftp", "hdfs", "webhdfs"}
#: Schemes that list no folders.
UNLISTED = {"http", "https"}
#: Names of errors, in whichever package, that say that no rights were found.
_NO_RIGHTS = re.compile(r"NoCredentials|PartialCredentials|CredentialRetrieval|DefaultCredentials|NoAuth")


def is_address(name: object) -> bool:
    """Return whether this is an address, and no path."""
    return "://" in str(name)


def place_of(name: str | os.PathLike[str] | Address) -> Path | Address:
    """Return a path or an address, as the name is one or the other."""
    if isinstance(name, Address):
        return name
    return Address(os.fspath(name)) if is_address(name) else Path(name)


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """A file or folder in a store; no path, because that would make one slash of the two.

    Examples
    --------
    >>> folder = Address("s3://lab/results/")
    >>> str(folder / "a" / "run.json"), folder.name, (folder / "a").parent == folder
    ('s3://lab/results/a/run.json', 'results', True)
    """

    text: str

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "text", self.text.rstrip("/") if not self.text.endswith("://") else self.text
        )

    def __str__(self) -> str:
        return self.text

    def __truediv__(self, name: str) -> Address:
        return Address(f"{self.text}/{name}")

    @property
    def scheme(self) -> str:
        """What is before ``://``; of several, the last, where the files are."""
        return re.split(r"::", self.text.partition("://")[0])[-1].lower()

    @property
    def name(self) -> str:
        """Its last part, without what a web address has behind it."""
        bare = re.split(r"[?#]", self.text)[0] if self.scheme in UNLISTED else self.text
        return bare.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """The ending of its name, lower case."""
        return Path(self.name).suffix.lower()

    @property
    def parent(self) -> Address:
        """The folder that it is in."""
        return Address(self.text.rpartition("/")[0])

    def is_file(self) -> bool:
        """Return whether there is a file."""
        with self._store(ImageError) as (store, path):
            return bool(store.isfile(path))

    def state(self) -> tuple[int | None, int | None]:
        """Return the size of a file in bytes and when it changed, in nanoseconds since 1970, where known."""
        with self._store(ImageError) as (store, path):
            info = store.info(path)
            changed: Any = None
            with contextlib.suppress(NotImplementedError, KeyError, TypeError):
                changed = store.modified(path)
            when = int(changed.timestamp() * 1e9) if isinstance(changed, datetime.datetime) else None
            size = info.get("size")
            return (None if size is None else int(size)), when

    def items(self, kind: type[CellsegError] = ImageError) -> list[tuple[str, bool]]:
        """Return the names directly in a folder, each with whether it is one; none where there is none.

        ``kind`` is what is raised where the store cannot be used.
        """
        with self._store(kind) as (store, path):
            try:
                found = store.ls(path, detail=True)
            except FileNotFoundError as error:
                if "bucket" in str(error):
                    raise
                return []
            inside = [(each["name"].rstrip("/"), each["type"] == "directory") for each in found]
            own = path.strip("/")  # of a file, itself is listed; of some stores, the folder, too
            names = [(name.rpartition("/")[2], folder) for name, folder in inside if name.strip("/") != own]
            return sorted((name, folder) for name, folder in names if name)

    def matches(self) -> list[str]:
        """Return the addresses that this one, a pattern, matches."""
        with self._store(ImageError) as (store, path):
            prefix = self.text.removesuffix(path.lstrip("/"))
            return sorted(prefix + str(name).strip("/") for name in store.glob(path))

    def files(self) -> dict[str, int]:
        """Return the bytes of every file below a folder, by its name from there."""
        with self._store(OutputError) as (store, path):
            found = store.find(path, detail=True)
            root = path.strip("/")
            return {
                name.strip("/").removeprefix(root).lstrip("/"): int(info.get("size") or 0)
                for name, info in found.items()
                if name.strip("/") != root
            }

    def read(self, limit: int = LONGEST_TEXT) -> bytes:
        """Return what is in a file of at most so many bytes."""
        with self._store(OutputError) as (store, path):
            size = int(store.info(path).get("size") or 0)
            if size > limit:
                raise OutputError(f"{self}: has {size:,} bytes, wanted {limit:,} at most")
            return bytes(store.cat_file(path))

    def write(self, data: bytes) -> None:
        """Write a file."""
        with self._store(OutputError) as (store, path):
            if self.scheme in FOLDERS:
                store.makedirs(path.rpartition("/")[0], exist_ok=True)
            store.pipe_file(path, data)

    def fetch(self, target: Path) -> None:
        """Copy a file to the disk.

        Raises
        ------
        ImageError
            It is not there, cannot be reached, or does not fit the disk.
        """
        with self._store(ImageError) as (store, path):
            size = int(store.info(path).get("size") or 0)
            free = shutil.disk_usage(target.parent).free
            if size > free:
                raise ImageError(
                    f"{self}: has {size / 1e9:,.1f} GB, and {free / 1e9:,.1f} are free in "
                    f"{target.parent.parent}, where it is fetched to; name a larger place in TMPDIR"
                )
            store.get_file(path, str(target), callback=_beating())
            if size and target.stat().st_size != size:
                raise ImageError(f"{self}: {target.stat().st_size:,} of {size:,} bytes came; try again")

    def fetch_folder(self, target: Path) -> None:
        """Copy all files of a folder to the disk; of one that is not there, none."""
        for name in self.files():
            if ".." in name.split("/"):
                continue
            place = target / name
            place.parent.mkdir(parents=True, exist_ok=True)
            (self / name).fetch(place)

    def send(self, root: Path, names: Sequence[str]) -> None:
        """Copy files of a folder on the disk into this one, and see that they arrived.

        Parameters
        ----------
        root
            The folder.
        names
            Of the files, from there, with ``/`` between parts.
        """
        with self._store(OutputError) as (store, path):
            if self.scheme in FOLDERS:
                for parent in sorted({name.rpartition("/")[0] for name in names}):
                    store.makedirs(f"{path}/{parent}".rstrip("/"), exist_ok=True)
            sources = [str(root / name) for name in names]
            store.put(sources, [f"{path}/{name}" for name in names], callback=_beating())
        there = self.files()
        for name in names:
            size = (root / name).stat().st_size
            if there.get(name) != size:
                found = f"has {there[name]:,} bytes" if name in there else "is not there"
                raise OutputError(f"{self / name}: {found} of the {size:,} that were sent; run it again")

    def remove(self, names: Sequence[str]) -> None:
        """Remove files below a folder, as far as they are there."""
        there = self.files()
        with self._store(OutputError) as (store, path):
            if found := [f"{path}/{name}" for name in names if name in there]:
                store.rm(found)

    @contextlib.contextmanager
    def _store(self, kind: type[CellsegError]) -> Iterator[tuple[Any, str]]:
        """Give the store and what it calls this place; whatever it raises becomes one line."""
        try:
            import fsspec

            store, path = fsspec.core.url_to_fs(self.text)
            store.invalidate_cache()  # others write there, too
            yield store, str(path).rstrip("/")
        except CellsegError:
            raise
        except Exception as error:
            raise kind(f"{self}: {explain(self.text, error)}") from None


def explain(address: str, error: Exception) -> str:
    """Return in one line why an address cannot be used, and what can be done.

    Parameters
    ----------
    address
        As it was given.
    error
        What fsspec or a package behind it raised.
    """
    scheme = Address(address).scheme
    text = " ".join(str(getattr(error, "strerror", None) or error).split())[:200] or type(error).__name__
    if isinstance(error, ImportError):
        package = PACKAGES.get(scheme)
        advice = f"pip install {package}" if package else "install what fsspec asks for"
        return f"{scheme}:// needs another package ({text}): {advice}"
    if "protocol not known" in text.lower():
        return f"{scheme}:// is no address that can be read or written; use https://, s3:// or a path"
    if _NO_RIGHTS.search(type(error).__name__):
        return f"no credentials were found ({text}); set them as for other tools of {scheme}://"
    if isinstance(error, PermissionError):
        return f"access is refused ({text}); check credentials and their rights"
    if isinstance(error, FileNotFoundError):
        return "there is no such bucket" if "bucket" in text.lower() else "there is no such file"
    if isinstance(error, OSError) and error.errno == 28:
        return f"{text.lower()} in {os.environ.get('TMPDIR', 'the temporary folder')}; set TMPDIR to another"
    return f"cannot be reached: {text}; check address and connection"


def is_of_store(error: Exception) -> bool:
    """Return whether an error speaks of a store that cannot be used, and not of what is in a file."""
    package = type(error).__module__.partition(".")[0]
    return (
        isinstance(error, OSError | ImportError)
        or "protocol not known" in str(error).lower()
        or package in ("botocore", "aiobotocore", "aiohttp", "gcsfs", "google", "azure", "adlfs")
    )


def _beating() -> Any:
    """Return what fsspec is to call for each piece."""
    from fsspec.callbacks import Callback

    class Beating(Callback):  # type: ignore[misc]  # fsspec is not typed
        def relative_update(self, inc: int = 1) -> None:
            beat()

        def branched(self, path_1: str, path_2: str, **kwargs: Any) -> Any:
            return self

    return Beating()
