"""Bad input, as users meet it: one line that names the file and the way out, and nothing left behind.

Everything runs through ``cellseg-infer`` with a stand-in model. ``capfd`` listens below Python: what
a decoder prints by itself is noise too.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import tifffile
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from onnx import helper

from cellseg.runtime.cli.infer import main
from cellseg.runtime.model.spec import METADATA_KEY

Capture = pytest.CaptureFixture[str]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="cellseg-infer")


def refused(result: Result, out: Path, *parts: str, capfd: Capture, code: int = 1) -> None:
    assert result.exit_code == code, result.output
    assert result.stderr.startswith("cellseg-infer: error: ")
    assert result.stderr.count("\n") == 1, result.stderr
    assert result.stdout == ""
    for part in parts:
        assert part in result.stderr
    assert not out.exists() or list(out.iterdir()) == [], "a partial result was left"
    noise = capfd.readouterr()
    assert (noise.out, noise.err) == ("", "")


def picture(channels: int = 3) -> NDArray[np.uint8]:
    """Smooth noise, 120 × 160: every format compresses it, none to almost nothing."""
    noise = np.random.default_rng(0).integers(0, 255, (120, 160, channels)).astype(np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 3).reshape(120, 160, channels)


def half(path: Path) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return path


def damaged(path: Path) -> Path:
    """Overwrite the middle of a file, where the pixels are."""
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 200] = np.random.default_rng(1).bytes(200)
    path.write_bytes(data)
    return path


def holding(content: bytes) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        path.write_bytes(content)
        return path

    return make


def folder(path: Path) -> Path:
    path.mkdir()
    return path


def cut_picture(path: Path) -> Path:
    assert cv2.imwrite(str(path), picture())
    return half(path)


def damaged_picture(path: Path) -> Path:
    assert cv2.imwrite(str(path), picture())
    return damaged(path)


def tiff(path: Path, array: NDArray[np.generic], **options: object) -> Path:
    tifffile.imwrite(path, array, **options)
    return path


def planes(count: int) -> NDArray[np.uint8]:
    return np.moveaxis(picture(count), 2, 0)


CUT = "cut short"
IMAGES: dict[str, tuple[Callable[[Path], Path], tuple[str, ...]]] = {
    "empty.tif": (holding(b""), ("the file is empty (0 bytes)", "save it again")),
    "empty.png": (holding(b""), ("the file is empty (0 bytes)",)),
    "text.tif": (holding(b"hello"), ("no picture format", "readable are TIFF")),
    "text.svs": (holding(b"hello"), ("no picture format", "readable are TIFF")),
    "cut.png": (cut_picture, ("the PNG is", CUT, "again")),
    "cut.jpg": (cut_picture, ("the JPEG is", CUT, "again")),
    "cut.bmp": (cut_picture, ("the BMP is", CUT, "again")),
    "cut.webp": (cut_picture, ("the WebP is", CUT, "again")),
    "damaged.png": (damaged_picture, ("the PNG is damaged", "again")),
    "damaged.jpg": (damaged_picture, ("the JPEG is damaged (Corrupt JPEG data: ", "again")),
    "cut strips.tif": (lambda p: half(tiff(p, picture(), rowsperstrip=8)), ("ends at byte", CUT, "again")),
    "cut tiles.tif": (lambda p: half(tiff(p, picture(), tile=(32, 32))), ("strips or tiles", CUT, "again")),
    "cut big.tif": (lambda p: half(tiff(p, picture(), bigtiff=True)), ("ends at byte", CUT, "again")),
    "damaged.tif": (
        lambda p: damaged(tiff(p, picture(), tile=(32, 32), compression="deflate")),
        ("tile", "cannot be decoded", "--skip-bad-tiles"),
    ),
    "header.tif": (holding(b"II*\0\x08\0\0\0"), ("no image is found", CUT, "again")),
    "no page.tif": (holding(b"II*\0\0\0\0\0"), ("no image is found", CUT, "again")),
    "two.tif": (
        lambda p: tiff(p, planes(2), photometric="minisblack", planarconfig="separate"),
        ("has 2 channels", "three of a colour picture", "--channels 0"),
    ),
    "five.tif": (
        lambda p: tiff(p, planes(5), photometric="minisblack", planarconfig="separate"),
        ("has 5 channels", "three of a colour picture", "--channels 0"),
    ),
    "complex.tif": (lambda p: tiff(p, picture()[..., 0].astype(np.complex64)), ("complex64", "give 8-bit")),
    "other.gif": (holding(b"GIF89a" + bytes(50)), ("a GIF", "save it as PNG")),
    "absent.tif": (lambda p: p, ("no such file", "check the path")),
}


def test_a_folder_without_images(tmp_path: Path, bright_model: Path, capfd: Capture) -> None:
    out = tmp_path / "out"
    result = run(folder(tmp_path / "folder.tif"), "--engine", bright_model, "-o", out)
    refused(result, out, "folder.tif: this folder holds no image", "none lies below it", capfd=capfd, code=2)


@pytest.mark.parametrize("name", IMAGES)
def test_images(name: str, tmp_path: Path, bright_model: Path, capfd: Capture) -> None:
    make, parts = IMAGES[name]
    path = make(tmp_path / name)
    out = tmp_path / "out"
    result = run(path, "--engine", bright_model, "-o", out, "--device", "cpu")
    refused(result, out, f"error: {path}: ", *parts, capfd=capfd)


def test_cut_slide(tmp_path: Path, shared_data: Path, bright_model: Path, capfd: Capture) -> None:
    path = half(
        Path(shutil.copyfile(shared_data / "slides" / "CMU-1-Small-Region.svs", tmp_path / "cut.svs"))
    )
    result = run(path, "--engine", bright_model, "-o", tmp_path / "out", "--device", "cpu")
    refused(result, tmp_path / "out", f"error: {path}: ", CUT, "again", capfd=capfd)


@pytest.fixture
def good_picture(tmp_path: Path) -> Path:
    path = tmp_path / "good.png"
    assert cv2.imwrite(str(path), picture())
    return path


def rewritten(source: Path, target: Path, text: str | None) -> Path:
    """Copy a model with another specification in its metadata, or with none."""
    model = onnx.load(source)
    helper.set_model_props(model, {} if text is None else {METADATA_KEY: text})
    onnx.save(model, target)
    return target


EXPECTED = "expected a file written by cellseg-export"
MODELS: dict[str, tuple[Callable[[Path, Path], object], tuple[str, ...]]] = {
    "absent.onnx": (lambda good, p: None, ("no such file", "written by cellseg-export")),
    "folder.onnx": (lambda good, p: p.mkdir(), ("is a folder", "written by cellseg-export")),
    "empty.onnx": (lambda good, p: p.write_bytes(b""), ("not an ONNX model", EXPECTED)),
    "text.onnx": (lambda good, p: p.write_text("not a model" * 50), ("not an ONNX model", EXPECTED)),
    "checkpoint.onnx": (
        lambda good, p: p.write_bytes(b"PK\x03\x04" + bytes(99)),
        ("not an ONNX model", EXPECTED),
    ),
    "cut.onnx": (lambda good, p: half(Path(shutil.copyfile(good, p))), ("truncated", EXPECTED)),
    "foreign.onnx": (lambda good, p: rewritten(good, p, None), ("not one of ours", EXPECTED)),
    "broken.onnx": (
        lambda good, p: rewritten(good, p, '{"format": 1'),
        ("Invalid JSON", "export the model again"),
    ),
    "bare.onnx": (lambda good, p: rewritten(good, p, "{}"), ("Field required", "export the model again")),
}


@pytest.mark.parametrize("name", MODELS)
def test_models(name: str, tmp_path: Path, good_picture: Path, bright_model: Path, capfd: Capture) -> None:
    make, parts = MODELS[name]
    path = tmp_path / name
    make(bright_model, path)
    result = run(good_picture, "--engine", path, "-o", tmp_path / "out", "--device", "cpu")
    refused(result, tmp_path / "out", f"error: {path}: ", *parts, capfd=capfd)


def test_models_of_another_kind(
    tmp_path: Path, good_picture: Path, bright_model: Path, capfd: Capture
) -> None:
    path = tmp_path / "model.pt"
    shutil.copyfile(bright_model, path)
    result = run(good_picture, "--engine", path, "-o", tmp_path / "out")
    refused(
        result,
        tmp_path / "out",
        f"{path}: is a checkpoint of training",
        "cellseg-export",
        capfd=capfd,
        code=2,
    )


def test_output_that_is_not_ours_survives(
    tmp_path: Path, good_picture: Path, bright_model: Path, capfd: Capture
) -> None:
    mine = tmp_path / "out" / "good" / "thesis.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("do not delete")
    for extra in ((), ("--overwrite",)):
        result = run(good_picture, "--engine", bright_model, "-o", tmp_path / "out", *extra)
        refused(
            result, tmp_path / "none", f"{mine.parent}: exists and holds something else", "-o", capfd=capfd
        )
    assert mine.read_text() == "do not delete"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good"]


@pytest.mark.parametrize("below", ["", "deeper"])
def test_output_below_a_file(
    below: str, tmp_path: Path, good_picture: Path, bright_model: Path, capfd: Capture
) -> None:
    (tmp_path / "file").write_text("x")
    out = tmp_path / "file" / below
    result = run(good_picture, "--engine", bright_model, "-o", out)
    said = f"{out / 'good'}: cannot be written: a file is in the way"
    refused(result, tmp_path / "none", said, "another folder with -o", capfd=capfd)
    assert (tmp_path / "file").read_text() == "x"
