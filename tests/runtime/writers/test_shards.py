from pathlib import Path

import numpy as np
import zarr
from zarr.codecs import ZstdCodec

from cellseg.runtime.writers.shards import LEVEL, encode_chunks, shard, write_shard


def test_zarr_reads_it_and_writes_the_same(tmp_path: Path) -> None:
    """Also chunks that are empty, cut at the border, or a whole shard of nothing."""
    labels = np.zeros((40, 150), np.int32)
    labels[3:20, 5:30], labels[30:, 100:150] = 7, 2_000_000_000
    ours, theirs = (
        zarr.create_array(
            tmp_path / name,
            shape=labels.shape,
            dtype=np.int32,
            chunks=(16, 16),
            shards=(32, 48),
            fill_value=0,
            compressors=ZstdCodec(level=LEVEL),
        )
        for name in ("ours", "theirs")
    )
    theirs[:] = labels
    for row in range(2):
        for number in range(4):
            chunks: list[bytes | None] = []
            for y in (32 * row, 32 * row + 16):
                part = labels[y : y + 16, 48 * number : 48 * number + 48]
                found = encode_chunks([part[:5], part[5:]], 16)
                chunks += found + [None] * (3 - len(found))
            path = tmp_path / "ours" / "c" / str(row) / str(number)
            size = write_shard(path, chunks)
            assert size == (path.stat().st_size if path.exists() else 0)
    assert (ours[:] == labels).all()
    files = [
        {
            path.relative_to(tmp_path / name): path.stat().st_size
            for path in (tmp_path / name / "c").rglob("*")
        }
        for name in ("ours", "theirs")
    ]
    assert files[0].keys() == files[1].keys()


def test_what_is_thinned_is_every_second_pixel() -> None:
    labels = np.arange(11 * 37, dtype=np.int32).reshape(11, 37)
    thinned = np.full((6, 19), -1, np.int32)
    encode_chunks([labels[:2], labels[2:]], 16, thinned)
    assert (thinned == labels[::2, ::2]).all()


def test_an_index_entry_says_where_a_chunk_lies() -> None:
    made = shard([b"abc", None, b"de"])
    assert made[:5] == b"abcde"
    index = np.frombuffer(made[5:-4], "<u8").tolist()
    assert index == [0, 3, 2**64 - 1, 2**64 - 1, 3, 2]
