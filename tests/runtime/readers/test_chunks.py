"""Chunks of Zarr arrays take no more memory than their array says, and run nothing."""

import bz2
import gzip
import json
import lzma
import os
import pickle
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import imagecodecs
import numcodecs
import numpy as np
import pytest
import zarr
import zarr.codecs.numcodecs as named

from cellseg.runtime.errors import ImageError
from cellseg.runtime.geometry.tiling import Region
from cellseg.runtime.readers import open_slide
from cellseg.runtime.readers.chunks import ChunkError, bounded, unpacked

#: Of a chunk that claims 64×64 bytes.
BOMB = 32 << 20

PIXELS = np.random.default_rng(0).integers(0, 200, (100, 90), np.uint16)
TWO = {
    "none": None,
    **{n: numcodecs.get_codec({"id": n}) for n in ("blosc", "zlib", "gzip", "bz2", "lzma", "zstd", "lz4")},
}
THREE = {
    "none": None,
    "blosc": zarr.codecs.BloscCodec(),
    "gzip": zarr.codecs.GzipCodec(),
    "zstd": zarr.codecs.ZstdCodec(),
    "named zlib": named.Zlib,
    "named lz4": named.LZ4,
    "named bz2": named.BZ2,
    "named lzma": named.LZMA,
    "named shuffle": named.Shuffle,
}


def coding(version, name):
    found = {2: TWO, 3: THREE}[version][name]
    return found() if isinstance(found, type) else found


def image(path, compressor=None, version=3, dtype="uint16", **options):
    group = zarr.open_group(path, mode="w", zarr_format=version)
    array = group.create_array(
        "0", shape=(100, 90), dtype=dtype, chunks=(64, 64), compressors=compressor, fill_value=0, **options
    )
    array[:] = PIXELS.astype(dtype)
    record = [
        {
            "version": "0.4",
            "axes": [{"name": "y", "type": "space"}, {"name": "x", "type": "space"}],
            "datasets": [
                {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1, 1]}]},
            ],
        }
    ]
    if version == 3:
        group.attrs["ome"] = {"version": "0.5", "multiscales": record}
    else:
        group.attrs["multiscales"] = record
    return path


def pixels(path):
    with open_slide(path) as slide:
        return slide.read(Region(0, 0, slide.height, slide.width))[:, :, 0]


def chunks_of(path):
    return [
        each
        for each in (path / "0").rglob("*")
        if each.is_file() and not each.name.startswith(".z") and each.name != "zarr.json"
    ]


@pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr version 3")
@pytest.mark.parametrize(("version", "name"), [*((2, name) for name in TWO), *((3, name) for name in THREE)])
def test_sound_chunks_are_what_they_were(tmp_path, version, name):
    path = image(tmp_path / "a.zarr", coding(version, name), version)
    assert np.array_equal(pixels(path), PIXELS)


def test_shards_and_filters(tmp_path):
    shards = image(tmp_path / "a.zarr", zarr.codecs.ZstdCodec(), shards=(128, 128))
    assert np.array_equal(pixels(shards), PIXELS)
    filters = [numcodecs.Delta(dtype="<u2"), numcodecs.Shuffle(2)]
    filtered = image(tmp_path / "b.zarr", numcodecs.Zstd(), 2, filters=filters)
    assert np.array_equal(pixels(filtered), PIXELS)


def bombs():
    """Yield version, codec and a chunk of it that holds :data:`BOMB` zeros."""
    zeros = bytes(BOMB)
    streamed = imagecodecs.zstd_encode(zeros)
    for version in (2, 3):
        yield version, "zstd", streamed
        yield version, "gzip", gzip.compress(zeros, 1) * 2
        yield version, "blosc", bytes(numcodecs.Blosc().encode(zeros))
    yield 2, "zlib", zlib.compress(zeros)
    yield 2, "bz2", bz2.compress(zeros)
    yield 2, "lzma", lzma.compress(zeros)
    yield 2, "lz4", bytes(numcodecs.LZ4().encode(zeros))
    yield 3, "named zlib", zlib.compress(zeros)
    yield 3, "named lz4", bytes(numcodecs.LZ4().encode(zeros))
    yield 3, "named lzma", lzma.compress(zeros)


MEASURED = """
import sys
from pathlib import Path
from cellseg.runtime.errors import ImageError
from cellseg.runtime.geometry.tiling import Region
from cellseg.runtime.readers import open_slide

def memory(name):
    line = next(line for line in open("/proc/self/status") if line.startswith(name))
    return int(line.split()[1]) >> 10

for path in sys.argv[1:]:
    with open_slide(path) as slide:
        Path("/proc/self/clear_refs").write_text("5")
        before = memory("VmRSS")
        try:
            slide.read(Region(0, 0, 64, 64))
        except ImageError as error:
            print(memory("VmHWM") - before, error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read as Linux shows it")
@pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr version 3")
def test_what_a_chunk_holds_is_bounded_before_it_is_unpacked(tmp_path):
    paths = []
    for version, name, data in bombs():
        path = image(tmp_path / f"{version} {name}.zarr", coding(version, name), version)
        for chunk in chunks_of(path):
            chunk.write_bytes(data)
        paths.append(path)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MEASURED, *paths],
        capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert len(lines) == len(paths), done.stdout
    for line, path in zip(lines, paths, strict=True):
        assert path.name in line, line
        assert "holds" in line, line
        assert int(line.split()[0]) < BOMB >> 21, line


def test_sizes_that_are_not_told():
    """A frame of zstd may say nothing of its size, and one may follow another."""
    frame = imagecodecs.zstd_encode(bytes(1000))
    assert unpacked("zstd", frame, 1000) is None
    silent = b"\x28\xb5\x2f\xfd\x00\x58" + (1 | 1 << 1 | 5000 << 3).to_bytes(3, "little") + b"\0"  # zeros
    assert unpacked("zstd", silent + bytes(9)[:0], 5000) == bytes(5000)
    with pytest.raises(ChunkError, match="holds over 4,999 bytes"):
        unpacked("zstd", silent, 4999)
    assert unpacked("gzip", gzip.compress(b"a") + gzip.compress(b"b") + b"\0\0", 2) == b"ab"
    with pytest.raises(ChunkError, match="cut short"):
        unpacked("gzip", gzip.compress(b"a" * 100)[:-9], 1000)


class Harm:
    """Unpickled, it leaves a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self):
        return Path.touch, (self._path,)


@pytest.mark.parametrize("where", ["compressor", "filters"])
@pytest.mark.parametrize("kind", ["|u1", "|O"])
def test_pickles_are_not_run(tmp_path, where, kind):
    path = image(tmp_path / "a.zarr", None, 2, "uint8")
    record = json.loads((path / "0/.zarray").read_text())
    record |= {"compressor": None, "filters": None, "dtype": kind}
    record[where] = {"id": "pickle"} if where == "compressor" else [{"id": "pickle"}]
    (path / "0/.zarray").write_text(json.dumps(record))
    for chunk in chunks_of(path):
        chunk.write_bytes(pickle.dumps(Harm(tmp_path / "ran")))
    with pytest.raises(ImageError, match=r"a\.zarr: "):
        pixels(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["json2", "pickle", "base64", "vlen-utf8"])
def test_codecs_of_objects_are_refused_by_name(name):
    array = zarr.create_array(store={}, shape=(4,), dtype="uint8", zarr_format=2, compressors=None)
    object.__setattr__(array.async_array.metadata, "filters", (numcodecs.get_codec({"id": name}),))
    with pytest.raises(ChunkError, match=f"coded by '{name}', which is not read; write it with blosc"):
        bounded(array)


def shard(path, change):
    image(path, zarr.codecs.ZstdCodec(), shards=(128, 128))
    record = json.loads((path / "0/zarr.json").read_text())
    change(record, record["codecs"][0]["configuration"])
    (path / "0/zarr.json").write_text(json.dumps(record))
    return path


def test_shards_of_absurdly_many_chunks(tmp_path):
    def many(record, shards):
        record["shape"] = record["chunk_grid"]["configuration"]["chunk_shape"] = [1 << 14, 1 << 14]
        shards["chunk_shape"] = [1, 1]

    with pytest.raises(ImageError, match="a shard holds 268,435,456 chunks"):
        pixels(shard(tmp_path / "a.zarr", many))

    def deep(record, shards):
        for _ in range(4):
            inner = dict(shards, codecs=shards["codecs"])
            shards["codecs"] = [{"name": "sharding_indexed", "configuration": inner}]

    with pytest.raises(ImageError, match="shards within shards"):
        pixels(shard(tmp_path / "b.zarr", deep))


def test_a_shard_whose_index_lies(tmp_path):
    path = shard(tmp_path / "a.zarr", lambda record, shards: None)
    for chunk in chunks_of(path):
        chunk.write_bytes(b"abcd" * 10 + struct.pack("<QQ", 0, 1 << 60) * 4 + b"1234")
    with pytest.raises(ImageError, match=r"chunk 0/0 of level 0 .* cannot be read"):
        pixels(path)


def changed(path, change, part="0/zarr.json", version=3):
    """Return a sound image of which one record is not."""
    image(path, None, version)
    record = json.loads((path / part).read_text())
    change(record)
    (path / part).write_text(json.dumps(record))
    return path


def grid(shape, chunk):
    def change(record):
        record["shape"] = shape
        record["chunk_grid"]["configuration"]["chunk_shape"] = chunk

    return change


@pytest.mark.parametrize(
    ("shape", "chunk", "words"),
    [
        ([1 << 40, 300], [64, 64], r"claims 1,099,511,627,776×300 pixels; edges of up to 67,108,864"),
        ([60_000, 60_000], [1, 1], r"in 3,600,000,000 chunks of 1×1 would take hours; rechunk"),
        ([200, 300], [0, 0], r"chunks of 0×0 pixels hold nothing"),
    ],
)
def test_grids_that_never_end(tmp_path, shape, chunk, words):
    with pytest.raises(ImageError, match=words):
        pixels(changed(tmp_path / "a.zarr", grid(shape, chunk)))


def test_records_that_never_end(tmp_path):
    def ome(key, value):
        return lambda record: record["attributes"]["ome"]["multiscales"][0].__setitem__(key, value)

    for number, (change, words) in enumerate(
        (
            (ome("datasets", [{"path": "0"}] * 100_000), "names 100,000 levels; at most 64"),
            (ome("axes", [{"name": f"axis{n}"} for n in range(1000)]), "axes .* do not fit its arrays"),
            (ome("datasets", [{"path": ""}]), "it is a group, wanted an array"),
            (ome("datasets", [{"path": "a" * 9999}]), "not a readable OME-Zarr image"),
        )
    ):
        with pytest.raises(ImageError, match=words) as caught:
            pixels(changed(tmp_path / f"{number}.zarr", change, "zarr.json"))
        assert len(str(caught.value)) < 500


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names are those of POSIX")
@pytest.mark.parametrize("part", ["0/zarr.json", "0/c/0/0"])
@pytest.mark.parametrize("kind", ["a pipe", "a device"])
def test_parts_that_are_no_files(tmp_path, part, kind):
    """They would be read for ever."""
    path = image(tmp_path / "a.zarr")
    (path / part).unlink()
    if kind == "a pipe":
        os.mkfifo(path / part)
    else:
        (path / part).symlink_to("/dev/zero")
    with pytest.raises(ImageError, match=f"it is {kind}, wanted a file"):
        pixels(path)


def test_a_record_of_gigabytes_is_not_read(tmp_path):
    path = image(tmp_path / "a.zarr")
    with (path / "0/zarr.json").open("ab") as file:
        file.truncate(3 << 30)
    with pytest.raises(ImageError, match=r"its record 0/zarr\.json has 3,221,225,472 bytes"):
        pixels(path)
