"""What is asked before anything is handed out: is there a worker, our release, a sight of the files."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..common.spelling import option
from ..errors import BackendError, OutputError, UsageError
from .connect import Connected, version
from .worker import look, release

#: Seconds between two looks at whether a worker can still come.
LOOK = 2.0
#: What the messages between client, scheduler and workers are made with: all need the same of these.
PROTOCOL = ("dask", "distributed", "msgpack", "cloudpickle")


def check_workers(cluster: Connected, images: list[str], outputs: set[Path], model: str | None) -> None:
    """Ask every worker that is there whether it could do the work.

    Raises
    ------
    UsageError
        It has other releases, or does not see an image, the model or the output.
    OutputError
        The output cannot be written here.
    BackendError
        No worker came.
    """
    client = cluster.client
    wait_for_worker(cluster)
    check_protocol(client.get_versions())
    _check_release(client)
    paths = [str(Path(image).absolute()) if "://" not in image else image for image in images]
    if model is not None and Path(model).exists():
        paths.append(str(Path(model).absolute()))
    for output in outputs:
        with _token(output) as token:
            for worker, (unseen, seen) in client.run(look, paths, str(token)).items():
                if not seen:
                    raise UsageError(
                        f"{output}: worker {worker} does not see it; results must go where all workers "
                        "write, such as a shared file system"
                    )
                there = [path for path in unseen if Path(path).exists()]
                if there:
                    raise UsageError(
                        f"{there[0]}: worker {worker} does not see it; images must lie where all workers "
                        "read, under the same name"
                    )


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
        theirs = client.run(release)
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
    token = folder / f".cellseg-{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        token.touch()
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be written ({error.strerror}); choose another place with {option('output')}"
        ) from None
    try:
        yield token.absolute()
    finally:
        token.unlink(missing_ok=True)
