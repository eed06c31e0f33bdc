"""Thousands of damaged files: every one is read, or refused with one line; no crash, no hang.

The files are damaged and read in a process of its own with little memory, so that a crash in a codec
or a huge allocation is seen as what it is. Run this file to try more: ``test_fuzz.py SEED COUNT``.
"""

import copy
import io
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import zarr

from cellseg.runtime.errors import CellsegError
from cellseg.runtime.geometry.tiling import Region
from cellseg.runtime.readers import open_slide
from cellseg.runtime.testing.readers import picture

#: Address space that reading may need beyond what the imports took, in bytes.
MEMORY = 3 << 30
#: Most memory that may really be used, in bytes.
RESIDENT = 1 << 30
#: Longest that one file may take, in seconds.
PATIENCE = 20


def originals():
    """Return the sound files to damage: name → bytes."""
    files = {}
    grey, rgb = picture((90, 110, 1), "uint16")[:, :, 0], picture((90, 110, 3), "uint8")
    layouts = {
        "strips": {},
        "tiles": {"tile": (32, 32), "compression": "zlib", "predictor": True},
        "lzw": {"rowsperstrip": 16, "compression": "lzw"},
        "zstd": {"tile": (32, 32), "compression": "zstd"},
        "packbits": {"compression": "packbits"},
        "big": {"bigtiff": True, "byteorder": ">", "tile": (64, 64)},
        "jpeg2000": {"tile": (32, 32), "compression": "jpeg2000"},
        "webp": {"tile": (32, 32), "compression": "webp"},
        "jpeg": {"tile": (32, 32), "compression": "jpeg"},
        "jpegxl": {"tile": (32, 32), "compression": "jpegxl"},
        "png": {"tile": (32, 32), "compression": "png"},
        "lzma": {"tile": (32, 32), "compression": "lzma"},
    }
    for name, options in layouts.items():
        colour = name in ("webp", "jpeg", "jpegxl", "strips")
        buffer = io.BytesIO()
        tifffile.imwrite(
            buffer,
            rgb if colour else grey,
            photometric="rgb" if colour else "minisblack",
            **copy.deepcopy(options),
        )
        files[f"{name}.tif"] = buffer.getvalue()
    for name, options in {
        "ome": {"ome": True, "metadata": {"axes": "ZCYX", "PhysicalSizeX": 0.5}, "compression": "zlib"},
        "imagej": {"imagej": True, "metadata": {"axes": "ZCYX"}},
    }.items():
        buffer = io.BytesIO()
        stack = np.stack([np.stack([grey, grey])] * 3)
        tifffile.imwrite(buffer, stack, photometric="minisblack", **options)
        files[f"{name}.tif"] = buffer.getvalue()
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as file:
        file.write(rgb, subifds=1, tile=(32, 32), photometric="rgb")
        file.write(rgb[::2, ::2].copy(), subfiletype=1, tile=(32, 32), photometric="rgb")
    files["pyramid.tif"] = buffer.getvalue()
    for suffix in ("png", "jpg", "webp", "bmp"):
        files[f"rgb.{suffix}"] = cv2.imencode(f".{suffix}", rgb)[1].tobytes()
    files["grey.png"] = cv2.imencode(".png", grey)[1].tobytes()
    return files


def damage(data, rng):
    """Return a damaged copy."""
    data = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        # Headers stand at either end.
        reach = len(data) if rng.random() < 0.4 else min(len(data), 600)
        at = int(rng.integers(reach))
        at = len(data) - 1 - at if rng.random() < 0.3 else at
        match int(rng.integers(6)):
            case 0:
                data[at] ^= 1 << int(rng.integers(8))
            case 1:
                data[at] = int(rng.choice([0, 1, 0x7F, 0x80, 0xFF]))
            case 2:
                size = int(rng.choice([2, 4, 8]))
                data[at : at + size] = int(rng.choice([0, 1, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFF0])).to_bytes(
                    8, "little"
                )[:size]
            case 3:
                del data[max(1, at) :]
            case 4:
                size = int(rng.integers(1, 64))
                data[at : at + size] = rng.bytes(size)
            case 5:
                size = int(rng.integers(1, 200))
                other = int(rng.integers(len(data)))
                data[at : at + size] = data[other : other + size]
        if not data:
            break
    return bytes(data)


def read(path):
    """Read everything that a run would read; damage must show as one of our errors."""
    try:
        with open_slide(path) as reader:
            assert reader.height * reader.width * reader.channels < 1 << 40
            for number, level in enumerate(reader.levels):
                rows, columns = min(level.height, 400), min(level.width, 400)
                reader.read(Region(0, 0, rows, columns), number)
                reader.read(Region(level.height - rows, level.width - columns, rows, columns), number)
            if reader.height * reader.width < 1 << 24:
                reader.overview(50)
        return True
    except CellsegError as error:
        message = str(error)
    assert "\n" not in message, message
    assert path.name in message, message
    return False


def peak_bytes():
    """Most memory that this program has had; getrusage would count what its parent had when it forked."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) << 10


def run(seed, count):
    """Damage and read a number of files; returns how many could still be read."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
    files = originals()
    names = sorted(files)
    sound = 0
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            rng = np.random.default_rng([seed, number])
            name = names[number % len(names)]
            path = Path(folder) / name
            path.write_bytes(damage(files[name], rng))
            print(number, name, flush=True)
            started = time.monotonic()
            sound += read(path)
            assert time.monotonic() - started < PATIENCE, f"{number} {name} took too long"
            peak = peak_bytes()
            assert peak < RESIDENT, f"{number} {name} took {peak / 1e9:.1f} GB"
        zarrs = max(1, count // 20)
        for number in range(zarrs):
            rng = np.random.default_rng([seed, 1 << 20, number])
            path = Path(folder) / "z.zarr"
            group = zarr.open_group(path, mode="w")
            group.create_array("0", data=picture((60, 70, 1), "uint8")[:, :, 0], chunks=(32, 32))
            transform = [{"type": "scale", "scale": [1, 1]}]
            group.attrs["ome"] = {
                "version": "0.5",
                "multiscales": [
                    {
                        "axes": [{"name": "y"}, {"name": "x"}],
                        "datasets": [{"path": "0", "coordinateTransformations": transform}],
                    }
                ],
            }
            parts = sorted(p for p in path.rglob("*") if p.is_file())
            part = parts[int(rng.integers(len(parts)))]
            part.write_bytes(damage(part.read_bytes(), rng))
            print(number, "zarr", part.name, flush=True)
            sound += read(path)
            shutil.rmtree(path)
    return sound


def attempt(seed, count, seconds):
    command = [sys.executable, "-W", "error", __file__, str(seed), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    last = done.stdout.splitlines()[-1:]
    assert done.returncode == 0, f"seed {seed}: exit {done.returncode} at {last}\n{done.stderr[-3000:]}"


def test_damaged_files():
    attempt(0, 260, 300)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_many_damaged_files(seed):
    attempt(seed, 1000, 900)


if __name__ == "__main__":
    print(run(int(sys.argv[1]), int(sys.argv[2])), "could still be read")
