"""What results depend on, so that those of another image, model or option are never taken for these."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..backends import Backend
from ..common.addresses import Address, is_address
from ..common.names import readable
from ..model.spec import CellDiameter, Record, SplitSettings
from ..options import OPTIONS, SegmentOptions
from ..readers.array import is_array
from ..readers.fetched import COMPANIONS, is_fetched

#: Bytes of a file that are read at once.
CHUNK = 1 << 20


class Source(Record):
    """What tells one state of an image from the next, without decoding it."""

    #: Absolute; the URL, or what an array is called.
    path: str
    #: Size of the file, or of all files of a folder.
    bytes: int | None = None
    #: Time of the last change in nanoseconds since 1970: of the file, or the latest in a folder.
    changed: int | None = None
    #: Of an array's shape, type and values.
    sha256: str | None = None

    @classmethod
    def of(cls, image: Any) -> Source:
        """Look at an image as it is given to :func:`~cellseg.runtime.segment`.

        Parameters
        ----------
        image
            A path, a URL, an array, or a reader, of which the path counts.
        """
        if isinstance(image, np.ndarray):
            return cls(path="array", sha256=digest_of(image))
        if is_array(image):  # read as it is needed, or not to be known by its values: never the same twice
            return cls(path="array", sha256=secrets.token_hex(32))
        name = os.fspath(getattr(image, "location", image))
        if is_address(name):
            size, changed = Address(name).state() if is_fetched(name) else (None, None)
            return cls(path=readable(name), bytes=size, changed=changed)
        path = Path(name)
        try:
            states = [path.stat(), *_inside(path)]
        except (OSError, ValueError):
            return cls(path=readable(name))
        return cls(
            path=readable(str(path.resolve())),
            bytes=sum(state.st_size for state in states),
            changed=max(state.st_mtime_ns for state in states),
        )

    @property
    def state(self) -> str:
        """One phrase about size and time, for messages."""
        if self.changed is None and self.bytes is not None:
            return f"{self.bytes:,} bytes"
        if self.changed is None:
            return f"values {(self.sha256 or '')[:12]}" if self.sha256 else "of unknown age"
        when = datetime.datetime.fromtimestamp(self.changed / 1e9).astimezone()
        return f"{self.bytes:,} bytes of {when:%Y-%m-%d %H:%M:%S}"


def _inside(path: Path) -> Iterator[os.stat_result]:
    """Yield the state of every file of an image that is a folder, or has one."""
    folder = path.with_suffix("") if path.suffix.lower() in COMPANIONS else path
    for parent, _, files in os.walk(folder):
        for name in files:
            yield (Path(parent) / name).stat()


def digest_of(array: Any) -> str:
    """Return the SHA-256 of an array's shape, type and values."""
    values = np.asarray(array)
    made = hashlib.sha256(f"{values.shape} {values.dtype.str} ".encode())
    for rows in values if values.ndim > 1 else [values]:  # a part of an array need not be contiguous
        made.update(np.ascontiguousarray(rows).data)
    return made.hexdigest()


@dataclass(frozen=True, slots=True)
class Identity:
    """All that results depend on."""

    source: Source
    #: Name, and SHA-256 of the weights.
    model: str
    weights: str
    #: In which the engine computed.
    precision: str
    #: Pixels a side that a tile saw beyond its core.
    halo: int
    #: Edge of a tile in pixels; matters only where overlapping tiles are averaged. ``None``: as it comes.
    tile: int | None
    #: How planes became cells, the smallest score included.
    split: SplitSettings
    #: Of the cells that the model knows; matters unless the scale is left alone.
    diameter: CellDiameter | None
    #: As :meth:`~cellseg.runtime.options.SegmentOptions.plain` has them.
    options: Mapping[str, Any]
    #: Whether damaged tiles were read as zero.
    damaged: bool = False

    @classmethod
    def of(cls, image: Any, backend: Backend, options: SegmentOptions) -> Identity:
        """Say what results of an image would depend on, before anything is read."""
        return cls(
            source=Source.of(image),
            model=backend.spec.name,
            weights=backend.spec.weights_sha256,
            precision=backend.precision,
            halo=backend.spec.halo,
            tile=options.tile,
            split=backend.spec.split_at(options.min_score),
            diameter=backend.spec.diameter,
            options=described(options),
        )

    def difference(self, wanted: Identity, wanted_options: SegmentOptions) -> str | None:
        """Return what differs from what is wanted now, in words; ``None`` for nothing."""
        if self.source.path != wanted.source.path:
            return f"they are of {self.source.path}, not of {wanted.source.path}"
        if self.source != wanted.source:
            return f"the image has changed: it was {self.source.state}, now {wanted.source.state}"
        if (self.model, self.weights) != (wanted.model, wanted.weights):
            return f"model was {_model(self)}, now {_model(wanted)}"
        if self.precision != wanted.precision:
            return f"the engine's precision was {self.precision}, now {wanted.precision}"
        if self.halo != wanted.halo:
            return f"the model's halo was {self.halo}, now {wanted.halo}"
        for name, option in OPTIONS.items():
            if not option.matters or name == "min_score":  # that one is in the splitter's settings
                continue
            before, now = (each.get(name, _DEFAULTS[name]) for each in (self.options, wanted.options))
            if _key(before) != _key(now):
                return f"{option.flag or name} was {_say(before)}, now {_say(now)}"
        if wanted_options.blend != "none" and wanted.tile not in (None, self.tile):
            return f"tile was {self.tile}, now {wanted.tile} (averaged tiles depend on it)"
        if self.damaged and not wanted_options.skip_bad_tiles:
            return "damaged tiles were read as black, now skip_bad_tiles is off"
        if wanted_options.diameter != "none" and wanted_options.rescale and self.diameter != wanted.diameter:
            before, now = (each and each.median for each in (self.diameter, wanted.diameter))
            return f"the model's cells had a diameter of {_say(before)}, now {_say(now)}"
        before, now = flat(self.split.model_dump()), flat(wanted.split.model_dump())
        for name in dict.fromkeys([*before, *now]):
            if before.get(name) != now.get(name):
                what = "min_score" if name == "score.minimum" else f"the splitter's {name}"
                return f"{what} was {_say(before.get(name))}, now {_say(now.get(name))}"
        return None


def described(options: SegmentOptions) -> dict[str, Any]:
    """Return options as plain values; of a file of stains, and of regions, also a digest of what is in it."""
    plain = options.plain()
    if options.stains.lower().endswith(".json"):
        plain["stains"] = {"source": plain["stains"], "sha256": _file_digest(options.stains)}
    if options.roi is not None:
        plain["roi"] = {"source": plain["roi"], "sha256": _regions(options.roi)}
    return plain


def _regions(roi: Any) -> str | None:
    if isinstance(roi, str | os.PathLike):
        return _file_digest(roi)
    return hashlib.sha256(json.dumps(roi, default=_listed).encode()).hexdigest()


def _file_digest(path: str | os.PathLike[str]) -> str | None:
    made = hashlib.sha256()
    try:
        if not Path(path).is_file():  # a pipe would be waited for
            return None  # what reads it says so
        with Path(path).open("rb") as file:
            while data := file.read(CHUNK):
                made.update(data)
    except (OSError, ValueError):
        return None
    return made.hexdigest()


def _listed(value: Any) -> Any:
    return np.asarray(value).tolist()


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested tables as one, names joined by dots; without what is ``None``."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        elif value is not None:
            found[prefix + name] = value
    return found


def _model(identity: Identity) -> str:
    return f"{identity.model} ({identity.weights[:12] or 'no hash'})"


def _key(value: Any) -> Any:
    """Return what counts of an option: of regions what they hold, not what the file is called."""
    return value.get("sha256") if isinstance(value, Mapping) else value


def _say(value: Any) -> str:
    if value is None:
        return "not given"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, Mapping):
        return f"{value.get('source')} ({(value.get('sha256') or '')[:12]})"
    if isinstance(value, list | tuple):
        return " ".join(map(_say, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


_DEFAULTS = SegmentOptions().plain()
