"""What the user names becomes a list of images.

Files, folders, patterns, URLs and manifests; nothing is opened here but manifests.
"""

from __future__ import annotations

import difflib
import glob
import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ..common.addresses import UNLISTED, Address, is_address
from ..common.bounded import brief, read_table
from ..common.names import result_name
from ..common.spelling import option
from ..errors import UsageError
from ..options import OPTIONS, flag
from ..readers.formats import SUFFIXES, ZARR_FILES, is_picture, is_zarr
from ..readers.refused import refusal

#: The file that makes a folder one of results.
RECORD = "run.json"
#: Files that are looked at for what to advise.
MOST_LOOKED_AT = 5000
#: Endings of manifests, with the character between columns.
MANIFESTS = {".csv": ",", ".tsv": "\t"}
#: Endings that images at addresses are known by.
_NAMED = (*SUFFIXES, ".zarr")
#: Characters of one place in a manifest: no path is longer.
LONGEST = 4096


#: Options that may be columns of a manifest, by the column's name.
COLUMNS = {flag(name, option): (name, option.kind) for name, option in OPTIONS.items() if option.column}


@dataclass(frozen=True, slots=True)
class Input:
    """One image to segment."""

    #: A path or URL.
    image: str
    #: What a manifest says of it, by the names of :class:`~cellseg.runtime.options.SegmentOptions`.
    options: dict[str, Any] = field(default_factory=dict)
    #: What a manifest calls its folder of results.
    name: str = ""


def expand(arguments: Sequence[str | Path]) -> list[Input]:
    """Return the images that the arguments stand for, each once, in order.

    Parameters
    ----------
    arguments
        * a file or an OME-Zarr folder: itself, whether it can be read or not;
        * another folder: the images directly in it, by name; hidden files are left out;
        * a pattern with ``*``, ``?``, ``[`` or ``**`` that is no existing path: what it matches;
        * a ``.csv`` or ``.tsv`` file: a manifest with a column ``image``, and optionally ``name`` and
          those of :data:`COLUMNS`, which stand for the options of the same names; paths are relative to the
          manifest, and an empty place leaves the option as it is;
        * an address such as ``s3://bucket/slides``: the same of what is there; of ``https://`` itself.

    Raises
    ------
    UsageError
        A folder or pattern holds no image, or a manifest is not understood.
    """
    found: dict[str, Input] = {}
    for argument in arguments:
        for item in _expand_one(str(argument)):
            # The same image twice, as by a folder and a file of it, is segmented once.
            key = item.image if is_address(item.image) else os.path.realpath(item.image)
            also = f"\0{item.name}\0{sorted(item.options.items())}" if item.name or item.options else ""
            found.setdefault(key + also, item)
    return list(found.values())


def _expand_one(argument: str) -> list[Input]:
    if is_address(argument):
        return _expand_address(Address(argument))
    path = Path(argument)
    if os.path.isdir(argument):  # noqa: PTH112  (Path.is_dir raises where a name is too long)
        if is_zarr(path):
            return [Input(argument)]
        if (path / RECORD).is_file():
            raise UsageError(f"{path}: holds results (it has a {RECORD}); name the image they were made from")
        images = [p for p in sorted(path.iterdir()) if is_picture(p)]
        if not images:
            raise UsageError(f"{path}: this folder holds no image; {_below(path)}")
        return [Input(str(p)) for p in images]
    if not os.path.lexists(argument) and glob.has_magic(argument):
        # Path.glob would need the pattern cut into a fixed and a moving part.
        every = sorted(glob.glob(argument, recursive=True))  # noqa: PTH207
        matches = [match for match in every if is_picture(Path(match))]
        taken = {Path(match) for match in matches}
        found = [
            match
            for match in matches
            # Not what lies inside of another image, such as the levels of OME-Zarr, or of results.
            if taken.isdisjoint(Path(match).parents) and not _is_result(Path(match))
        ]
        if not found:
            what = "only files of results" if matches else "no image"
            raise UsageError(f"{argument}: this pattern matches {what}")
        return [Input(match) for match in found]
    if path.suffix.lower() in MANIFESTS and os.path.isfile(argument):  # noqa: PTH113
        return _manifest(path)
    return [Input(argument)]


def _expand_address(address: Address) -> list[Input]:
    """Return the images at an address: one, those that a pattern matches, or those directly in a folder."""
    ending = address.suffix
    if ending in MANIFESTS:
        raise UsageError(
            f"{address}: a table is read from the disk: download it; its images may be addresses"
        )
    if address.scheme in UNLISTED:
        return [Input(str(address))]
    if glob.has_magic(address.text):
        found = [text for text in address.matches() if _is_named(Address(text).name)]
        folders = {Address(text).parent for text in found}
        taken = {*found, *(str(folder) for folder in folders if (folder / RECORD).is_file())}
        inside = [text for text in found if not any(text.startswith(f"{other}/") for other in taken)]
        if not inside:
            what = "only files of results" if found else "no image"
            raise UsageError(f"{address}: this pattern matches {what}")
        return [Input(text) for text in inside]
    if ending in _NAMED or ".zarr/" in address.text:
        return [Input(str(address))]
    items = address.items()
    names = {name for name, _ in items}
    if RECORD in names:
        raise UsageError(f"{address}: holds results (it has a {RECORD}); name the image they were made from")
    if not names.isdisjoint(ZARR_FILES) or address.is_file():
        return [Input(str(address))]
    images = [name for name, _ in items if _is_named(name)]
    if not images:
        raise UsageError(
            f"{address}: {'this folder holds no image' if items else 'there is nothing of this name'}; for "
            f"those in folders below one give '{address}/**/*.svs'"
        )
    return [Input(str(address / name)) for name in images]


def _is_named(name: str) -> bool:
    """Whether a name in a store is one of an image; hidden ones are not."""
    return Path(name).suffix.lower() in _NAMED and not name.startswith(".")


def _is_result(path: Path) -> bool:
    """Whether a file was made by us, such as the overview next to its record."""
    return (path.parent / RECORD).is_file()


def _below(folder: Path) -> str:
    """Return how to name the images in the folders below one that holds none itself."""
    for looked, path in enumerate(folder.rglob("*")):
        if looked == MOST_LOOKED_AT:
            break
        if is_picture(path) and not _is_result(path):
            ending = f"{path.suffix}/" if path.is_dir() else path.suffix
            return f"for those in folders below it give '{folder}/**/*{ending}'"
    for path in sorted(folder.iterdir()):
        if path.is_file() and (refused := refusal(path)):
            return refused.removeprefix(f"{folder}{os.sep}")
    endings = sorted({path.suffix.lower() for path in folder.iterdir() if path.suffix and path.is_file()})
    held = f", only files ending in {', '.join(endings[:5])}" if endings else " and none lies below it"
    return f"it has none of the known formats{held}"


def _manifest(path: Path) -> list[Input]:
    try:
        header, lines = read_table(path, MANIFESTS[path.suffix.lower()])
        rows = list(lines)
    except (OSError, EOFError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read as a manifest: {error}") from None
    if "image" not in header or not rows:
        found = ", ".join(brief(name) for name in header[:20]) or "nothing"
        raise UsageError(
            f"{path}: a manifest needs a first line that names its columns, one of them 'image', and at "
            f"least one row; found {'no row' if 'image' in header else found}"
        )
    known = ["image", *COLUMNS, "name"]
    for name in header:
        if name not in known:
            near = difflib.get_close_matches(name[:80].strip().lower(), known, 1, 0.6)
            advice = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(known)}"
            raise UsageError(f"{path}: column {brief(name)} is not known; {advice}")
    return [_row(path, number, row) for number, row in rows]


def _row(path: Path, number: int, row: dict[str, str]) -> Input:
    """Turn one line of a manifest into an input."""
    for column, text in row.items():
        if len(text) > LONGEST:
            raise UsageError(
                f"{path}, line {number}: {column} has {len(text):,} characters, wanted {LONGEST:,} at most"
            )
    image = row.get("image", "").strip()
    if not image:
        raise UsageError(f"{path}, line {number}: names no image")
    options: dict[str, Any] = {}
    for column, (name, kind) in COLUMNS.items():
        text = (row.get(column) or "").strip()
        if not text:
            continue
        try:
            options[name] = kind.read(text)
        except ValueError:
            raise UsageError(
                f"{path}, line {number}: {column} is {brief(text)}, wanted {kind.wanted}"
            ) from None
    if options.get("stains", "").lower().endswith(".json"):
        options["stains"] = str(path.parent / options["stains"])
    if "roi" in options:
        options["roi"] = str(path.parent / options["roi"])
    place = image if is_address(image) else str(path.parent / image)
    return Input(place, options, (row.get("name") or "").strip())


def result_names(inputs: Sequence[Input]) -> list[str]:
    """Return a folder name for the results of each image, no two alike (nor but for case).

    An image whose plain name is taken gets its folder's name before it, then its ending behind it, then the
    names of more folders (fields of a plate are all called 0), then a digest of its name.

    Raises
    ------
    UsageError
        The names cannot be told apart.
    """
    names = [result_name(item.name or _bare(item.image)) for item in inputs]
    deepest = max((len(Path(item.image).parts) for item in inputs), default=0)
    more = [partial(_with_folder, depth=depth) for depth in range(2, deepest)]
    steps: list[Callable[[str, Path], str]] = [_with_folder, _with_suffix, *more, _with_digest]
    for refine in steps:
        counts = Counter(_key(name) for name in names)
        names = [
            refine(name, Path(item.image)) if counts[_key(name)] > 1 else name
            for name, item in zip(names, inputs, strict=True)
        ]
    first: dict[str, Input] = {}
    for name, item in zip(names, inputs, strict=True):
        other = first.setdefault(_key(name), item)
        if other is not item:
            raise UsageError(
                f"{other.image} and {item.image} would both be written to '{name}'; run them apart, each "
                f"with its own {option('output')}, or name them in a manifest"
            )
    return names


def _bare(image: str) -> str:
    """Return an image's name, without what a web address has behind it."""
    return Address(image).name if is_address(image) else image


def _key(name: str) -> str:
    """Return what a name is on a disk that tells neither capitals nor composed letters apart."""
    return unicodedata.normalize("NFC", name).casefold()


def _with_digest(name: str, image: Path) -> str:
    """Tell names apart that are the same once what no disk takes is replaced, as of ``a:1`` and ``a?1``."""
    return f"{name}_{hashlib.sha256(os.fsencode(image.name)).hexdigest()[:6]}"


def _with_folder(name: str, image: Path, depth: int = 1) -> str:
    """Put the name of one more folder before a name, the ``depth``-th above the image."""
    folder = image.parents[depth - 1].name if depth <= len(image.parents) else ""
    return f"{result_name(f'{folder}.')}_{name}" if folder else name


def _with_suffix(name: str, image: Path) -> str:
    return f"{name}_{image.suffix.lower().strip('.')}" if image.suffix.strip(".") else name
