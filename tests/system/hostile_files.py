"""Hostile areas, tables, configurations, records, labels and graphs: read, or refused in one short line.

    python tests/system/hostile_files.py SEED COUNT [KIND...]

Sound files are changed where it hurts: a number by a huge one, a list by a string, a tag by one that claims
the world, a part by a thousand copies of itself; some bytes at random, too. The process may take little
memory and little time for each; it prints what it reads before it does, so that a crash or a hang has a name.
"""

from __future__ import annotations

import contextlib
import copy
import gzip
import io
import json
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile

from cellseg.runtime.batch.inputs import expand, result_names
from cellseg.runtime.errors import CellsegError
from cellseg.runtime.evaluation.folders import read_groups, read_labels
from cellseg.runtime.geometry.regions import Polygons
from cellseg.runtime.geometry.tiling import Region
from cellseg.runtime.results.record import RunRecord
from cellseg.runtime.writers.contents import listed
from cellseg.train.config import load

#: Most memory that may be used for a file beyond what there was, in bytes; most processor seconds.
RESIDENT, PATIENCE = 600 << 20, 10
#: Longest message, file name apart; most characters that we write of copies of one thing.
LONGEST, LARGEST = 700, 4_000_000

Rng = np.random.Generator

#: What nobody expects, as JSON knows it.
VALUES: tuple[Any, ...] = (
    None, True, "", "a" * 100_000, "=cmd()",
    "\0", "../../etc/passwd", "\ud800", [], {}, [[]], [[[]]], {"type": "Polygon"},
    0, -1, 1 << 31, 1 << 63, 10**400, 1e308, -1e308, float("nan"), float("inf"), 1e-320, "NaN", "1e999",
)  # fmt: skip
#: The same as text that stands in YAML or CSV.
WORDS = (
    "", "~", "null", "[]", "{}", "[" * 3000, "{a: " * 300, "9" * 6000, "0x" + "f" * 3000, "1:" * 2000 + "1",
    ".nan", ".inf", "-.inf", "1e999", "!!python/object/apply:os.system [ls]", "!!int ''", "!!bool 17",
    "!!binary '*'", "!!timestamp 1", "!!omap 5", "2001-99-99", "&a [*a, *a]", "*none", "<<: 1", "'", '"',
    "\t", "\u2028", "a" * 5000, "\0", "-1", "1e308", "yes", "1_000", "0o777", "? a", "- - - -", "%YAML 9.9",
    "--- a\n--- b",
)  # fmt: skip


def pick(rng: Rng, items: Any) -> Any:
    return items[int(rng.integers(len(items)))]


def flip(data: bytes, rng: Rng) -> bytes:
    """Change some bytes."""
    made = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        if made:
            made[int(rng.integers(len(made)))] = int(rng.integers(256))
    return bytes(made[: int(rng.integers(len(made) + 1))]) if rng.random() < 0.1 else bytes(made)


def mutate(value: Any, rng: Rng) -> Any:
    """Return a copy of a JSON value with something else somewhere in it."""
    root: list[Any] = [copy.deepcopy(value)]
    copies = [int(rng.choice([2, 100, 3000])), 2, 1]  # of copies: for the reader to survive, not for us
    for _ in range(int(rng.integers(1, 4))):
        place: Any = root
        key: Any = 0
        while rng.random() < 0.85:
            inside = place[key]
            if isinstance(inside, list) and inside:
                place, key = inside, int(rng.integers(len(inside)))
            elif isinstance(inside, dict) and inside:
                place, key = inside, pick(rng, list(inside))
            else:
                break
        match int(rng.integers(4)):
            case 0 | 1:
                place[key] = copy.deepcopy(pick(rng, VALUES))
            case 2:
                size = len(json.dumps(place[key]))
                count = min(copies.pop(0), 1 + LARGEST // size)
                place[key] = [copy.deepcopy(place[key]) for _ in range(count)]  # else all change with one
            case 3 if isinstance(place, dict):
                place[str(pick(rng, WORDS))] = place.pop(key)
            case _ if place is not root:
                del place[key]
    return root[0]


SQUARE, SMALL = [[5, 5], [80, 5], [80, 60], [5, 5]], [[2, 2], [3, 2], [3, 3]]
AREAS = {
    "type": "FeatureCollection",
    "features": [
        {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [SQUARE]}},
        {"type": "Feature", "geometry": {"type": "MultiPolygon", "coordinates": [[SQUARE, SMALL], [SMALL]]}},
        {"type": "GeometryCollection", "geometries": [{"type": "Point", "coordinates": [1, 2]}]},
    ],
}


def areas(path: Path, rng: Rng) -> None:
    """Regions of interest."""
    data = json.dumps(mutate(AREAS, rng)).encode()
    if rng.random() < 0.3:
        data = flip(data, rng)
    if rng.random() < 0.2:
        data = data.replace(b"[5, 5]", b"[5, 5], " * 100_000 + b"[5, 5]", 1)
    if rng.random() < 0.3:
        data = gzip.compress(data, 1)
        data = flip(data, rng) if rng.random() < 0.3 else data
    path.write_bytes(data)
    found = Polygons.read(path, 100, 120)
    for size in (1, 7, 100):
        found.inside(Region(3, 5, size, size))
    found.scaled(0.5, 2.0).touches(Region(0, 0, 5, 5))


def config(path: Path, rng: Rng) -> None:
    """A training configuration."""
    lines = [
        f"{key}: {value}" for key, value in (("model", "MCUNET"), ("iters", 9), ("heads", "[mask, boundary]"))
    ]
    lines += ["use_corner: 0.15", "resample_by_manual: [a, b]", "learning_rate: 1e-3", "resume: null"]
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(len(lines)))
        key = lines[at].partition(":")[0]
        lines[at] = f"{key}: {pick(rng, WORDS)}" if rng.random() < 0.8 else f"{pick(rng, WORDS)}: 1"
    if rng.random() < 0.15:
        depth, wide = int(rng.integers(2, 12)), int(rng.integers(2, 10))
        lines += [f"z0: &z0 [{','.join('x' * wide)}]"]
        lines += [f"z{n}: &z{n} [{','.join([f'*z{n - 1}'] * wide)}]" for n in range(1, depth)]
        lines += [f"{key}: *z{depth - 1}"]
    data = "\n".join(lines).encode("utf-8", "surrogatepass")
    path.write_bytes(flip(data, rng) if rng.random() < 0.3 else data)
    load(path)


def manifest(path: Path, rng: Rng) -> None:
    """A table of images."""
    rows = [["image", "mpp", "levels", "roi", "name", "z"], ["a.tif", "0.5", "1 9", "r.json", "a", "1"]]
    rows += [["../b.tif", "", "", "", "", ""] for _ in range(int(rng.choice([1, 3, 3000])))]
    for _ in range(int(rng.integers(1, 5))):
        row = pick(rng, rows[:4])
        row[int(rng.integers(len(row)))] = pick(rng, WORDS)
        if rng.random() < 0.2:
            row.extend([""] * int(rng.choice([1, 5000])))
    data = "\r\n".join(",".join(row) for row in rows).encode("utf-8", "surrogatepass")
    path.write_bytes(flip(data, rng) if rng.random() < 0.3 else data)
    result_names(expand([path]))


def groups(path: Path, rng: Rng) -> None:
    """A table of groups."""
    text = "\n".join(f"{pick(rng, WORDS)},{pick(rng, WORDS)}" for _ in range(int(rng.integers(1, 5))))
    data = f"id,kind\na,b\n{text}".encode("utf-8", "surrogatepass")
    path.write_bytes(flip(data, rng) if rng.random() < 0.5 else data)
    read_groups(path, "kind")


RECORD = {
    "format": 1,
    "image": {"path": "a.tif", "height": 5, "width": 5, "channels": ["a"], "dtype": "uint8"},
    "files": [{"path": "cells.csv", "bytes": 5, "sha256": "00"}, {"path": "l/0", "bytes": 1, "sha256": "00"}],
}


def record(path: Path, rng: Rng) -> None:
    """What says which files are ours."""
    data = json.dumps(mutate(RECORD, rng)).encode()
    path.write_bytes(flip(data, rng) if rng.random() < 0.3 else data)
    for file in listed(path.parent):
        assert (path.parent / file.path).resolve().is_relative_to(path.parent.resolve()), file
    with contextlib.suppress(CellsegError):
        RunRecord.from_json(path.read_text(encoding="utf-8", errors="replace"), path)


def tiff(rng: Rng) -> bytes:
    """Return a label image with tags that are not so."""
    labels = cv2.resize(
        np.arange(48, dtype=np.uint16).reshape(6, 8), (96, 64), interpolation=cv2.INTER_NEAREST
    )
    options: dict[str, Any] = pick(
        rng, [{}, {"tile": (32, 32)}, {"compression": "zlib"}, {"tile": (32, 32), "compression": "zlib"},
              {"compression": "lzw"}, {"rowsperstrip": 4}, {"bigtiff": True}]
    )  # fmt: skip
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, labels, **options)
    data = bytearray(buffer.getvalue())
    if options.get("bigtiff"):
        return flip(bytes(data), rng)
    start = struct.unpack_from("<I", data, 4)[0]
    count = struct.unpack_from("<H", data, start)[0]
    for _ in range(int(rng.integers(1, 4))):
        entry = start + 2 + 12 * int(rng.integers(count))
        match int(rng.integers(4)):
            case 0:  # the value
                struct.pack_into(
                    "<I", data, entry + 8, int(rng.choice([0, 1, 2, 3, 255, 65535, 1 << 20, 0xFFFFFFFF]))
                )
            case 1:  # how many
                struct.pack_into("<I", data, entry + 4, int(rng.choice([0, 2, 3, 1 << 16, 0x7FFFFFFF])))
            case 2:  # its type
                struct.pack_into("<H", data, entry + 2, int(rng.integers(0, 19)))
            case 3:  # which it is
                struct.pack_into(
                    "<H", data, entry, int(rng.choice([256, 257, 258, 259, 262, 277, 278, 322, 338, 317]))
                )
    return bytes(data)


def labels(path: Path, rng: Rng) -> None:
    """A label image."""
    if rng.random() < 0.7:
        path = path.with_suffix(".tif")
        path.write_bytes(tiff(rng))
    else:
        path = path.with_suffix(".png")
        data = bytearray(cv2.imencode(".png", np.zeros((40, 50), np.uint16))[1].tobytes())
        for at in (16, 20):  # width and height, whose checksum libpng need not mind
            if rng.random() < 0.5:
                struct.pack_into(">I", data, at, int(rng.choice([0, 1, 40_000, 1 << 20, 0x7FFFFFFF])))
        path.write_bytes(flip(bytes(data), rng))
    read_labels(path)


def graph(path: Path, rng: Rng) -> None:
    """A network that none of us made."""
    from onnx import TensorProto, helper, numpy_helper

    from cellseg.runtime.backends import open_backend
    from cellseg.runtime.model.spec import INPUT_NAME, METADATA_KEY, OUTPUT_NAME, Head, ModelSpec

    spec = ModelSpec(
        name="g", architecture="G", channels=3, heads=(Head(name="mask"),), multiple=8, halo=8,
        receptive_field=0, tile=32, batch=1,
    )  # fmt: skip
    nodes = [
        helper.make_node("Cast", [INPUT_NAME], ["f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["f", "axes"], ["m"], keepdims=0),
        helper.make_node("Unsqueeze", ["m", "first"], ["p"]),
        helper.make_node("Cast", ["p"], [OUTPUT_NAME], to=TensorProto.UINT8),
    ]
    node = pick(rng, nodes)
    match int(rng.integers(6)):
        case 0:
            node.op_type = pick(
                rng, ["Loop", "If", "Scan", "Exp", "Tile", "Expand", "Einsum", "", "a" * 9999, "Resize"]
            )
        case 1:
            node.input[0] = pick(rng, ["", "none", OUTPUT_NAME, "m", "a" * 9999])
        case 2:
            node.output[0] = pick(rng, ["", INPUT_NAME, "m", "f"])
        case 3:
            node.domain = pick(rng, ["com.microsoft", "x", "ai.onnx.ml"])
        case 4:
            nodes.insert(int(rng.integers(5)), helper.make_node("Identity", ["p"], ["f"]))
    constants = [
        numpy_helper.from_array(np.array([3]), "axes"),
        numpy_helper.from_array(np.array([1]), "first"),
    ]
    if rng.random() < 0.3:
        pick(rng, constants).dims[:] = [int(value) for value in rng.choice([0, -1, 1 << 31, 1 << 40], 2)]
    made = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, ["n", "h", "w", 3])],
        [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.UINT8, ["n", 1, "h", "w"])],
        constants,
    )  # fmt: skip
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    text = spec.to_json()
    if rng.random() < 0.3:
        changed = mutate(json.loads(text), rng)
        text = json.dumps(changed)
    helper.set_model_props(model, {METADATA_KEY: text.encode("utf-8", "replace").decode()})
    path = path.with_suffix(".onnx")
    data = model.SerializeToString()
    path.write_bytes(flip(data, rng) if rng.random() < 0.5 else data)
    with open_backend(path, "cpu") as backend:
        if backend.spec.tile <= 64 and backend.spec.batch <= 4:
            backend.prepare(backend.spec.tile, 1)


KINDS: dict[str, tuple[Callable[[Path, Rng], None], str]] = {
    "areas": (areas, "a.geojson"),
    "config": (config, "c.yml"),
    "manifest": (manifest, "m.csv"),
    "groups": (groups, "g.csv"),
    "record": (record, "run.json"),
    "labels": (labels, "l.tif"),
    "graph": (graph, "g.onnx"),
}


def memory(line: str) -> int:
    """Return what Linux says of this program's memory, in bytes."""
    status = Path("/proc/self/status").read_text()
    return int(next(each for each in status.splitlines() if each.startswith(line)).split()[1]) << 10


def run(seed: int, count: int, kinds: list[str]) -> dict[str, int]:
    """Try a number of files of each kind; return how many of each could be read."""
    sound = dict.fromkeys(kinds, 0)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            for kind in kinds:
                work, name = KINDS[kind]
                print(number, kind, flush=True)
                # The peak is counted from here on.
                Path("/proc/self/clear_refs").write_text("5")
                used, started = memory("VmRSS"), time.process_time()
                try:
                    work(Path(folder) / name, np.random.default_rng([seed, number, *kind.encode()]))
                except CellsegError as error:
                    text = str(error)
                    assert "\n" not in text, text
                    assert len(text) < len(folder) + LONGEST, text
                else:
                    sound[kind] += 1
                took = memory("VmHWM") - used
                assert time.process_time() - started < PATIENCE, f"{number} {kind} took too long"
                assert took < RESIDENT, f"{number} {kind} took {took / 1e9:.1f} GB"
    return sound


if __name__ == "__main__":
    print(run(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:] or list(KINDS)), "could be read")
