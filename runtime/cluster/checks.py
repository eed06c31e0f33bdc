"""What is asked before anything is handed out: is there a worker, our release, a sight of the files."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..common.addresses import Address, is_address
from ..common.disk import lock
from ..common.spelling import option
from ..errors import BackendError, CellsegError, OutputError, UsageError
from ..readers.fetched import is_fetched
from .connect import Connected, version
from .sight import Sight, unreached
from .worker import release

#: Seconds between two looks at whether a worker can still come.
LOOK = 2.0
#: How files begin by which workers know a folder.
TOKEN = ".cellseg-seen-"
#: Times that all workers are asked at most, where one of them is lost while they are.
TRIES = 5
#: What the messages between client, scheduler and workers are made with: all need the same of these.
PROTOCOL = ("dask", "distributed", "msgpack", "cloudpickle")


@contextlib.contextmanager
def checked_workers(
    cluster: Connected, images: list[str], outputs: set[Path | Address], model: str | None
) -> Iterator[Sight]:
    """Ask every worker that is there whether it could do the work; give what later ones are to be asked.

    Raises
    ------
    UsageError
        It has other releases, or does not see an image, the model or the output.
    ImageError, OutputError
        A store cannot be reached from here or from a worker, or the output not be written.
    BackendError
        No worker came.
    """
    client = cluster.client
    wait_for_worker(cluster)
    check_protocol(client.get_versions())
    _check_release(client)
    with watching(images, outputs, model) as sight:
        for worker, missing in patiently(lambda: client.run(sight.missing)).items():
            if missing is not None:
                raise UsageError(f"{missing[0]}: worker {worker} {missing[1]}")
        yield sight


@contextlib.contextmanager
def watching(
    images: Sequence[str], outputs: Collection[Path | Address], model: str | None
) -> Iterator[Sight]:
    """Give what workers must see, as far as it is seen here: a file is written for them in each output.

    Raises
    ------
    OutputError
        An output cannot be written, or its store not be used.
    """
    paths = [str(Path(image).absolute()) for image in images if not is_address(image)]
    if model is not None:
        paths.append(str(Path(model).absolute()))
    # One image of each store stands for all.
    stores = {urlsplit(image)[:2]: image for image in reversed(images) if is_fetched(image)}
    with contextlib.ExitStack() as stack:
        tokens = {}
        for output in outputs:
            if isinstance(output, Address):
                output.items(OutputError)
            else:
                tokens[str(output)] = str(stack.enter_context(_token(output)))
        yield Sight(
            tuple(path for path in paths if Path(path).exists()),
            tokens,
            tuple(image for image in stores.values() if unreached(image) is None),
            tuple(str(output) for output in outputs if isinstance(output, Address)),
        )


def patiently(ask: Callable[[], Any]) -> Any:
    """Return what is asked of all workers; again, without it, where one dies meanwhile."""
    for left in reversed(range(TRIES)):
        try:
            return ask()
        except OSError as error:  # Dask's errors of connections are such
            if not left or isinstance(error, CellsegError):
                raise
            time.sleep(1.0)
    return None


def wait_for_worker(cluster: Connected) -> None:
    """Wait for the first worker, as long as one may come."""
    deadline = time.monotonic() + cluster.patience
    while True:
        try:
            cluster.client.wait_for_workers(1, timeout=min(LOOK, cluster.patience))
            return
        except TimeoutError:
            if complaint := cluster.complaint():
                raise BackendError(f"{cluster.description}: no worker came; {complaint}") from None
            if time.monotonic() > deadline:
                raise BackendError(
                    f"{cluster.description}: no worker came within {cluster.patience:g} s; look at the "
                    "jobs' queue and logs, or raise 'patience'"
                ) from None


def check_protocol(found: dict[str, Any]) -> None:
    """Compare what speaks here with what speaks there.

    Dask itself warns of this, by a table of many lines, and goes on; what then fails is hard to read.

    Parameters
    ----------
    found
        As ``Client.get_versions()`` returns it.

    Raises
    ------
    UsageError
        They differ.
    """
    here = _spoken(found["client"])
    others = {"the scheduler": found["scheduler"]}
    others |= {f"worker {address}": each for address, each in found["workers"].items()}
    for where, each in others.items():
        there = _spoken(each)
        differing = [f"{name} {there[name]} for {here[name]}" for name in here if there[name] != here[name]]
        if differing:
            raise UsageError(f"{where} has {', '.join(differing)} here; install the same on both")


def _spoken(versions: dict[str, Any]) -> dict[str, str]:
    """Return the releases that must agree, of one process; of Python the first two numbers."""
    packages = versions["packages"]
    python = ".".join(str(packages["python"]).split(".")[:2])
    return {"Python": python} | {name: str(packages.get(name)) for name in PROTOCOL}


def _check_release(client: Any) -> None:
    mine = version()
    advice = f"install cellseg {mine} with them"
    try:
        theirs = patiently(lambda: client.run(release))
    except Exception as error:
        raise UsageError(
            f"the workers cannot run cellseg ({type(error).__name__}: {error}); {advice}"
        ) from None
    for worker, found in theirs.items():
        if found != mine:
            raise UsageError(f"worker {worker} has cellseg {found}, here is {mine}; install the same on both")


@contextlib.contextmanager
def _token(folder: Path) -> Iterator[Path]:
    """Give a file in a folder that is gone afterwards; make the folder."""
    token = folder / f"{TOKEN}{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        handle = os.open(token, os.O_CREAT | os.O_RDWR)
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be written ({error.strerror}); choose another place with {option('output')}"
        ) from None
    try:
        with contextlib.suppress(OSError):  # without locks, nobody sweeps it away either
            lock(handle)
        yield token.absolute()
    finally:
        os.close(handle)
        token.unlink(missing_ok=True)


def _sweep(folder: Path) -> None:
    """Remove what runs have left that were killed: nobody holds it any more."""
    for left in folder.glob(f"{TOKEN}*"):
        with contextlib.suppress(OSError):
            handle = os.open(left, os.O_RDWR)
            try:
                if lock(handle):
                    left.unlink()
            finally:
                os.close(handle)
