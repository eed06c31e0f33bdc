"""What a worker must see to do any of the work: images, the model, where results go."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..common.addresses import Address
from ..errors import CellsegError


@dataclass(frozen=True, slots=True)
class Sight:
    """Files and stores that are seen where the run was started."""

    #: Absolute.
    paths: tuple[str, ...]
    #: Folders for results, each with a file in it that was just written.
    tokens: Mapping[str, str]
    #: Addresses of an image of each store, and of folders for results.
    images: tuple[str, ...]
    outputs: tuple[str, ...]

    def missing(self) -> tuple[str, str] | None:
        """Return what the process that calls this does not see, and what of it; ``None`` for all is well."""
        for output, token in self.tokens.items():
            if not Path(token).exists():
                return (
                    output,
                    "does not see it; results must go where all workers write, such as a shared file system",
                )
        for path in self.paths:
            if not Path(path).exists():
                return (path, "does not see it; images must lie where all workers read, under the same name")
        for image in self.images:
            if why := unreached(image):
                return (image, f"cannot read it: {why}")
        for output in self.outputs:
            if why := unlisted(output):
                return (output, f"cannot use it: {why}")
        return None


def unreached(image: str) -> str | None:
    """Return why an image at an address cannot be read here, ``None`` if it can."""
    return _refusal(image, Address.state)


def unlisted(folder: str) -> str | None:
    """Return why a folder at an address cannot be looked into from here, ``None`` if it can."""
    return _refusal(folder, Address.items)


def _refusal(place: str, ask: Callable[[Address], object]) -> str | None:
    """Return what a store says when it is asked for something, ``None`` if it gives it."""
    try:
        ask(Address(place))
    except CellsegError as error:
        return str(error).removeprefix(f"{place}: ")
    return None
