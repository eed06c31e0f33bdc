"""The command as users meet it, with a stand-in model for which cells are what is bright."""

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet
import pytest
import tifffile
import zarr
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from cellseg.runtime import Result as Results
from cellseg.runtime import pipeline
from cellseg.runtime.cli import infer
from cellseg.runtime.model.onnx_metadata import load_spec, respecify
from cellseg.runtime.model.spec import CellDiameter, ScoreRule
from cellseg.runtime.writers.folder import MARK

from .conftest import refused

FILES = [
    "cells.geojson.gz",
    "cells.parquet",
    "density.png",
    "labels.ome.zarr",
    "overview.png",
    "report.html",
    "run.json",
]


REGION = {
    "type": "Polygon",
    "coordinates": [[[0, 0], [0, 150], [150, 150], [150, 0], [0, 0]]],
}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(infer.main, [str(a) for a in arguments], prog_name="cellseg-infer")


def picture(count: int = 12, size: int = 200) -> NDArray[np.uint8]:
    """Discs on a lattice, none touching the border."""
    image = np.full((size, size), 10, np.uint8)
    for i in range(count):
        centre = (25 + 45 * (i % 4), 25 + 45 * (i // 4))
        cv2.circle(image, centre, 10, 220, -1)
    return image


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    path = tmp_path / "slide one.tif"
    tifffile.imwrite(path, picture(), tile=(64, 64))
    return path


def test_a_slide_becomes_a_folder(slide: Path, bright_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run(slide, "--engine", bright_model, "-o", out, "--csv", "--mpp", 0.5, "--device", "cpu")
    assert result.exit_code == 0, result.output
    folder = out / "slide one"
    assert re.fullmatch(
        rf"{re.escape(str(slide))}: 12 cells, 1,200 per mm², in {re.escape(str(folder))}, [\d.]+ s\n",
        result.stdout,
    )
    assert result.stderr == f"next: cellseg-view '{folder}'\n"
    assert sorted(path.name for path in folder.iterdir()) == sorted([*FILES, "cells.csv"])
    labels = zarr.open_array(folder / "labels.ome.zarr" / "0", mode="r")[:]
    table = pyarrow.parquet.read_table(folder / "cells.parquet")
    assert sorted(np.unique(labels)) == [0, *table["label"].to_pylist()] == list(range(13))
    assert table["area_um2"][0].as_py() == table["area"][0].as_py() / 4
    features = json.loads(gzip.decompress((folder / "cells.geojson.gz").read_bytes()))["features"]
    assert len(features) == 12
    record = json.loads((folder / "run.json").read_text())
    assert record["counts"]["cells"] == 12
    assert record["image"]["pixel_size_um"] == 0.5
    assert record["model"]["name"] == "bright"
    assert record["versions"]["cellseg"]
    writers = {"labels", "table", "geojson", "overview", "density", "summary", "csv"}
    assert set(record["stages"]) == {"read", "gather", "infer", "stitch", "split"} | writers
    assert cv2.imread(str(folder / "overview.png")).shape[2] == 3
    assert [path.name for path in out.iterdir()] == ["slide one"]


def test_a_part_of_a_slide(slide: Path, bright_model: Path, tmp_path: Path) -> None:
    """Twelve discs at x, y = 25 + 45·i: the area holds the second column and cuts nothing."""
    area = {"type": "Polygon", "coordinates": [[[50, 0], [90, 0], [90, 200], [50, 200], [50, 0]]]}
    roi = tmp_path / "roi.geojson"
    roi.write_text(json.dumps({"type": "Feature", "geometry": area, "properties": {}}))
    out = tmp_path / "out"
    common = (slide, "--engine", bright_model, "--tile", 32, "--mpp", 0.5, "--device", "cpu")
    result = run(*common, "-o", out, "--roi", roi, "--probabilities")
    assert result.exit_code == 0, result.output
    assert "20.0% of the image was looked at" in result.stdout
    folder = out / "slide one"
    record = json.loads((folder / "run.json").read_text())
    assert record["counts"]["cells"] == 3
    assert record["focus"]["roi"] == str(roi)
    assert record["focus"]["looked_at_part"] == pytest.approx(0.2)
    assert record["focus"]["skipped_part"] == pytest.approx(record["focus"]["tiles_skipped"] / 169)
    assert record["focus"]["tiles_skipped"] > 100
    assert "cells per mm² of the regions" in (folder / "report.html").read_text()
    planes = zarr.open_array(folder / "planes.ome.zarr" / "0", mode="r")[:]
    inside = np.zeros((200, 200), bool)
    inside[:, 50:90] = True
    assert planes.shape == (1, 200, 200)
    assert not planes[:, ~inside].any()
    assert planes[0, 25, 70] > 200
    table = tmp_path / "t.csv"
    table.write_text(f"image,roi\n{slide.name},roi.geojson\n")
    assert run(table, *common[1:], "-o", tmp_path / "again").exit_code == 0
    again = Results.open(tmp_path / "again" / "slide one").labels
    assert (again == Results.open(folder).labels).all()
    outlined = cv2.imread(str(folder / "overview.png"))
    assert outlined[400, 198:203].min(axis=1).max() > 200  # the area's left edge, enlarged four times


def test_verbose_says_where_the_time_went(slide: Path, bright_model: Path, tmp_path: Path) -> None:
    result = run(slide, "--engine", bright_model, "-o", tmp_path / "out", "--mpp", 0.5, "-v")
    for word in ("cells.parquet", "read", "infer", "split", "sets the pace", "engine ", "model bright"):
        assert word in result.stdout


def test_what_was_said_of_one_image_is_counted_for_the_next(
    slide: Path, bright_model: Path, tmp_path: Path
) -> None:
    tifffile.imwrite(tmp_path / "two.tif", np.zeros((200, 200), np.uint8))
    out = tmp_path / "out"
    result = run(slide, tmp_path / "two.tif", "--engine", bright_model, "-o", out)
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"{slide}: 12 cells in ")
    assert lines[1].startswith("  note     the image does not say how large a pixel is")
    assert lines[2].startswith(f"{tmp_path / 'two.tif'}: 0 cells in ")
    assert lines[2].endswith("(1 note as above)")
    assert lines[3].startswith("  doubt    no cell was found")
    assert lines[4].startswith("all of them: ")
    assert len(lines) == 5
    assert result.stderr == f"next: cellseg-view {out}\n"
    again = run(slide, "--engine", bright_model, "-o", out, "--resume", "-q")
    assert again.output == ""


def test_missing_scale_is_said_once(slide: Path, bright_model: Path, tmp_path: Path) -> None:
    result = run(slide, "--engine", bright_model, "-o", tmp_path / "out")
    assert result.stdout.count("--mpp") == 1


def test_quiet(slide: Path, bright_model: Path, tmp_path: Path) -> None:
    result = run(slide, "--engine", bright_model, "-o", tmp_path / "out", "-q")
    assert (result.exit_code, result.output) == (0, "")


def test_results_are_not_replaced_unasked(slide: Path, bright_model: Path, tmp_path: Path) -> None:
    arguments = (slide, "--engine", bright_model, "-o", tmp_path / "out")
    assert run(*arguments).exit_code == 0
    before = (tmp_path / "out" / "slide one" / "run.json").read_text()
    again = run(*arguments)
    assert again.exit_code == 1
    assert again.stderr.count("\n") == 1
    assert "--overwrite" in again.stderr
    assert (tmp_path / "out" / "slide one" / "run.json").read_text() == before
    assert run(*arguments, "--overwrite").exit_code == 0


def test_a_bad_image_does_not_stop_the_others(slide: Path, bright_model: Path, tmp_path: Path) -> None:
    bad, odd = tmp_path / "bad.tif", tmp_path / "odd.tif"
    bad.write_bytes(slide.read_bytes()[:300])
    tifffile.imwrite(odd, np.zeros((2, 40, 50), np.uint8), photometric="minisblack", planarconfig="separate")
    out = tmp_path / "out"
    result = run(bad, slide, odd, "--engine", bright_model, "-o", out)
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert lines[0].startswith(f"cellseg-infer: error: {bad}: ")
    assert "choose, for example, --channels 0" in lines[1]
    assert lines[2] == "cellseg-infer: error: 2 of 3 images failed; the others are done"
    assert sorted(path.name for path in out.iterdir()) == ["index.html", "slide one", "summary.csv"]
    assert run(odd, "--engine", bright_model, "-o", out, "--channels", "1").exit_code == 0


def test_whatever_is_raised_in_an_image_is_that_images_error(
    slide: Path, bright_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other.tif"
    other.write_bytes(slide.read_bytes())
    opened = pipeline.open_slide

    def fail(path: str, **options: object) -> object:
        if Path(path) == other:
            raise KeyError("a bug\nof ours")
        return opened(path, **options)

    monkeypatch.setattr(pipeline, "open_slide", fail)
    out = tmp_path / "out"
    result = run(other, slide, "--engine", bright_model, "-o", out)
    assert result.exit_code == 1
    first, last = result.stderr.splitlines()
    assert first == (
        f"cellseg-infer: error: {other}: failed with KeyError: 'a bug\\nof ours' (--verbose shows where)"
    )
    assert last == "cellseg-infer: error: 1 of 2 images failed; the others are done"
    assert [path.name for path in out.iterdir() if path.is_dir()] == ["slide one"]
    refused("cellseg-infer", run(other, "--engine", bright_model, "-o", out), "failed with KeyError", code=1)
    result = run(other, "--engine", bright_model, "-o", out, "-v")
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert "in fail\n" in result.stderr
    assert result.stderr.splitlines()[-1].endswith("failed with KeyError: 'a bug\\nof ours'")


def test_if_all_fail_none_is_done(bright_model: Path, tmp_path: Path) -> None:
    for name in ("a.tif", "b.tif"):
        (tmp_path / name).write_text("no picture")
    result = run(tmp_path, "--engine", bright_model, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == "cellseg-infer: error: 2 of 2 images failed; none is done"


@pytest.mark.skipif(os.name != "posix" or sys.platform == "darwin", reason="names are bytes on Linux")
@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "ascii"])
def test_names_of_bytes_and_consoles_of_few_letters(
    bright_model: Path, tmp_path: Path, encoding: str
) -> None:
    folder = os.fsencode(tmp_path / "bilder")
    Path(os.fsdecode(folder)).mkdir()
    names = {
        b"10\xb5m.tif": "10µm",
        "größe Ω.tif".encode(): "größe Ω",
        b"\xff\xfe\x81.tif": "ÿþ\ufffd",
        b"a.tif": "a",
    }
    for name in names:
        tifffile.imwrite(os.fsdecode(folder + b"/" + name), picture())
    command = [sys.executable, "-c", "from cellseg.runtime.cli.infer import main; main()"]
    command += [
        os.fsdecode(folder),
        "--engine",
        bright_model,
        "-o",
        tmp_path / "out",
        "--csv",
        "--mpp",
        "0.5",
    ]
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith(b"next: cellseg-view ")
    assert done.stderr.count(b"\n") == 1
    assert done.stdout.count(b": 12 cells, 1,200 per mm") == 4
    folders = [path for path in (tmp_path / "out").iterdir() if path.is_dir()]
    assert {path.name for path in folders} == set(names.values())
    for path in folders:
        found = Results.open(path)
        assert found.count == len(found.cells) == 12
        assert found.image.stem == path.name
    again = subprocess.run([*command, "--resume"], capture_output=True, env=environment, check=False)
    assert again.stdout.count(b"done already") == 4


@pytest.mark.skipif(os.name != "posix" or sys.platform == "darwin", reason="names are bytes on Linux")
def test_folders_and_regions_named_by_bytes(bright_model: Path, tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/10\xb5m"))
    folder.mkdir()
    tifffile.imwrite(folder / "a.tif", picture())
    (folder / "roi.geojson").write_text(json.dumps(REGION))
    (folder / "t.csv").write_text("image,roi\na.tif,roi.geojson\n")
    for labels in ("zarr", "tiff", "png"):
        options = ("--engine", bright_model, "--csv", "--probabilities", "--labels", labels)
        result = run(folder / "t.csv", "-o", folder / labels, *options)
        assert result.exit_code == 0, result.output
        found = Results.open(folder / labels / "a")
        assert found.count == len(found.cells) == len(found.table["area"]) == found.labels.max() > 0
        assert found.record.focus.roi == str(tmp_path / "10µm" / "roi.geojson")
        again = run(folder / "t.csv", "-o", folder / labels, *options, "--resume")
        assert "done already" in again.stdout


def test_names_alike_once_cleaned_get_folders_of_their_own(bright_model: Path, tmp_path: Path) -> None:
    for name in ("a:1.tif", "a?1.tif", "b.tif"):
        tifffile.imwrite(tmp_path / name, picture())
    out = tmp_path / "out"
    assert run(tmp_path, "--engine", bright_model, "-o", out).exit_code == 0
    names = sorted(path.name for path in out.iterdir() if path.is_dir())
    assert len(names) == 3
    assert "b" in names
    assert {Path(Results.open(out / name).image).name for name in names} == {"a:1.tif", "a?1.tif", "b.tif"}


def test_results_are_not_segmented(slide: Path, bright_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(slide, "--engine", bright_model, "-o", out).exit_code == 0
    result = run(out / "slide one", "--engine", bright_model, "-o", tmp_path / "again")
    refused("cellseg-infer", result, "holds results (it has a run.json); name the image", code=2)
    result = run(out, "--engine", bright_model, "-o", tmp_path / "again")
    refused("cellseg-infer", result, "out: this folder holds no image", code=2)
    result = run(f"{out}/**/*.png", "--engine", bright_model, "-o", tmp_path / "again")
    refused("cellseg-infer", result, "matches only files of results", code=2)
    result = run(f"{tmp_path}/**/*", "--engine", bright_model, "-o", tmp_path / "again")
    assert result.exit_code == 0
    assert [path.name for path in (tmp_path / "again").iterdir()] == ["slide one"]


def test_a_folder_called_like_a_packaged_model_hides_nothing(
    slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "phase").mkdir()
    assert run(slide, "--model", "phase", "-o", "out").exit_code == 0
    assert Results.open("out/slide one").record.model.name == "phase"
    refused("cellseg-infer", run(slide, "--engine", "phase/", "-o", "o"), "phase: is a folder", code=1)
    (tmp_path / "phase").rmdir()
    (tmp_path / "phase").write_text("a file")
    assert run(slide, "--model", "phase", "-o", "again").exit_code == 0
    refused("cellseg-infer", run(slide, "--engine", "phase", "-o", "o"), "unknown kind of model", code=2)


def test_a_checkpoint_is_to_be_exported(slide: Path, tmp_path: Path) -> None:
    (tmp_path / "best.pt").write_bytes(b"")
    result = run(slide, "--engine", tmp_path / "best.pt", "-o", tmp_path / "out")
    refused("cellseg-infer", result, "export it first: cellseg-export ", "best.pt", code=2)


def test_folders_and_tables_of_images(slide: Path, bright_model: Path, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text(f"image,mpp,name\n{slide.name},0.25,first\n{slide.name},,second\n")
    common = ("--engine", bright_model, "--mpp", 0.5)
    assert run(table, *common, "-o", tmp_path / "a").exit_code == 0
    records = [json.loads((tmp_path / "a" / name / "run.json").read_text()) for name in ("first", "second")]
    assert [record["image"]["pixel_size_um"] for record in records] == [0.25, 0.5]
    assert run(tmp_path, *common, "-o", tmp_path / "b").exit_code == 0
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["slide one"]


@pytest.mark.parametrize(("kind", "name"), [("tiff", "labels.ome.tif"), ("png", "labels.png")])
def test_labels_in_other_formats(
    kind: str, name: str, slide: Path, bright_model: Path, tmp_path: Path
) -> None:
    result = run(slide, "--engine", bright_model, "-o", tmp_path / "out", "--labels", kind)
    assert result.exit_code == 0, result.output
    folder = tmp_path / "out" / "slide one"
    assert sorted(path.name for path in folder.glob("labels*")) == [name]
    assert Results.open(folder).labels.max() == 12


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "no image was given"),
        (["none.tif"], 1, "none.tif: no such file"),
        (["SLIDE", "--engine", "none.onnx"], 1, "none.onnx: no such"),
        (["SLIDE", "--model", "unknown"], 2, "no packaged model is called 'unknown'"),
        (["SLIDE", "--engine", "ENGINE", "--model", "nuclei"], 2, "exclude each other"),
        (["SLIDE", "--engine", "ENGINE", "--device", "tpu"], 2, "unknown device 'tpu'"),
        (["SLIDE", "--engine", "ENGINE", "--backend", "torch"], 2, "engine 'torch'"),
        (["SLIDE", "--engine", "ENGINE", "--tile", "70"], 2, "tile 70 is not a multiple of 8"),
        (["SLIDE", "--engine", "ENGINE", "--tile", "16"], 2, "smallest tile is 24"),
        (["SLIDE", "--engine", "ENGINE", "--batch", "0"], 2, "--batch"),
        (["SLIDE", "--engine", "ENGINE", "--mpp", "0"], 2, "--mpp"),
        (["SLIDE", "--engine", "ENGINE", "--levels", "9", "3"], 2, "low < high"),
        (["SLIDE", "--engine", "ENGINE", "--channels", "7"], 2, "no channel '7'"),
        (["SLIDE", "EMPTY", "--engine", "ENGINE"], 2, "holds no image"),
        (["TABLE", "--engine", "ENGINE"], 2, "a.geojson: cannot be read as GeoJSON: No such file"),
        (["SLIDE", "--engine", "ENGINE", "--roi", "none.json"], 2, "none.json: cannot be read as GeoJSON"),
        (["SLIDE", "--engine", "ENGINE", "--tissue", "yes"], 2, "--tissue"),
        (["SLIDE", "--engine", "ENGINE", "--min-score", "2"], 2, "--min-score"),
        (["SLIDE", "--engine", "ENGINE", "--min-score", "0.5"], 2, "has not learned to score cells"),
        (["SLIDE", "--engine", "SLIDE"], 2, "unknown kind of model '.tif'"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], code: int, message: str, slide: Path, bright_model: Path, tmp_path: Path
) -> None:
    names = {"SLIDE": slide, "ENGINE": bright_model, "EMPTY": tmp_path / "e", "TABLE": tmp_path / "t.csv"}
    names["EMPTY"].mkdir()
    names["TABLE"].write_text(f"image,roi\n{slide.name},a.geojson\n")
    result = run(*[names.get(a, a) for a in arguments], "-o", tmp_path / "out")
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert result.stderr.startswith("cellseg-infer: error: ")
    assert result.stderr.count("\n") == 1
    assert not list((tmp_path / "out").glob("*"))


def test_devices_are_listed() -> None:
    result = run("--devices")
    assert result.exit_code == 0
    assert "openvino" in result.stdout
    assert "ready" in result.stdout
    assert "auto: a .onnx file runs on " in result.stdout
    assert "auto: a .plan file " in result.stdout


def test_what_is_missing_is_named_by_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """In brackets, which a console may take for markup."""
    from cellseg.runtime import backends
    from cellseg.runtime.backends.engines import Device

    line = Device("cuda:0", "A [red]GPU[/red]", "onnxruntime", ".onnx", "pip install 'cellseg[gpu]'")
    monkeypatch.setattr(backends, "list_devices", lambda: [line])
    result = run("--devices")
    shown = " ".join(result.stdout.split())
    assert "A [red]GPU[/red]" in shown
    assert "'cellseg[gpu]'" in shown
    assert "auto: a .onnx file cannot run" in shown


def test_devices_are_measured(bright_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cellseg.runtime.cli import devices

    monkeypatch.setattr(devices, "MEASURED", 0.01)
    result = run("--devices", "--measure", "--engine", bright_model)
    assert result.exit_code == 0, result.output
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("bright on openvino on cpu"))
    assert "Mpx/s computed" in line
    assert "(tiles of 64 × 2)" in line
    assert run("--measure").exit_code == 2


SCRIPT = """
import time
from cellseg.runtime.streaming.stitch import Cores
from cellseg.runtime.cli.infer import main
stitch = Cores.add
def slow(*arguments):
    print("running", flush=True)
    time.sleep(0.2)
    stitch(*arguments)
Cores.add = slow
main()
"""


@pytest.mark.skipif(os.name != "posix", reason="signals are sent as POSIX does")
@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_interrupted(bright_model: Path, tmp_path: Path, number: int, code: int, word: str) -> None:
    slide = tmp_path / "slide.tif"
    tifffile.imwrite(slide, np.tile(picture(), (4, 4)))
    out = tmp_path / "out"
    command = [sys.executable, "-c", SCRIPT, slide, "--engine", bright_model, "-o", out]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        process.send_signal(number)
        started = time.monotonic()
        _, error = process.communicate(timeout=60)
    assert process.returncode == code, error
    assert error == f"cellseg-infer: error: {word}\n"
    assert not list(out.iterdir())
    assert time.monotonic() - started < 30


def everything(folder: Path) -> dict[str, bytes]:
    """Every file but those that say when and how fast."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("run.json", "report.html", "index.html", "summary.csv")
    }


#: The command, keeping every band, and slow enough to be killed somewhere in the middle.
SLOW = """
import sys, time
from cellseg.runtime.streaming import journal
from cellseg.runtime.cli import infer
from cellseg.runtime.backends import base
journal.WORTH = journal.AFTER = 0.0
submit = base.Backend.submit
def slow(self, *arguments):
    time.sleep(0.02)
    return submit(self, *arguments)
base.Backend.submit = slow
print("running", flush=True)
infer.main(prog_name="cellseg-infer")
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals are sent as POSIX does")
def test_killed_at_any_moment_and_resumed_is_the_same(bright_model: Path, tmp_path: Path) -> None:
    slides = tmp_path / "slides"
    slides.mkdir()
    for number in range(2):
        tifffile.imwrite(slides / f"s{number}.tif", np.tile(picture(12 - number), (6, 2)))
    options = ["--engine", bright_model, "--tile", 64, "--batch", 2, "--csv", "--device", "cpu"]
    assert run(slides, *options, "-o", tmp_path / "whole").exit_code == 0
    whole = everything(tmp_path / "whole")

    out = tmp_path / "out"
    command = [sys.executable, "-c", SLOW, slides, *map(str, options), "-o", out, "--resume"]
    rng = np.random.default_rng(int(time.time()))
    kills = 0
    for _ in range(50):
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "running\n"
            try:
                _, error = process.communicate(timeout=rng.uniform(0.3, 1 + kills))
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                kills += 1
                continue
        assert process.returncode == 0, error
        break
    assert kills
    assert everything(out) == whole
    again = run(slides, *options, "-o", out, "--resume")
    assert again.exit_code == 0
    assert [line.partition(": ")[2] for line in again.stdout.splitlines()[:2]] == [
        f"done already, in {out / name}" for name in ("s0", "s1")
    ]


def test_resume_takes_no_other_results_for_its_own(slide: Path, bright_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(slide, "--engine", bright_model, "-o", out).exit_code == 0
    other = tmp_path / "elsewhere" / "slide one.png"
    other.parent.mkdir()
    cv2.imwrite(str(other), picture())
    result = run(other, "--engine", bright_model, "-o", out, "--resume")
    folder = out / slide.stem
    refused("cellseg-infer", result, f"{folder}: holds other results: they are of {slide}, not of", code=2)
    record = folder / "run.json"
    kept = json.loads(record.read_text())
    for text, message in (
        ("[]", "is no record of a run"),
        ("{", "is no record of a run"),
        (json.dumps({k: v for k, v in kept.items() if k != "format"}), "written by a release before 0.2"),
        (json.dumps(kept | {"format": 99}), "has format 99, and this release reads 1 to 1"),
        (json.dumps(kept | {"counts": {"cells": "many"}}), "is damaged: counts.cells"),
    ):
        record.write_text(text)
        result = run(slide, "--engine", bright_model, "-o", out, "--resume")
        refused("cellseg-infer", result, str(record), message, "--overwrite or choose", code=2)
    assert run(slide, "--engine", bright_model, "-o", out, "--resume", "--overwrite").exit_code == 0


def test_resume_takes_no_broken_results_for_whole_ones(
    slide: Path, bright_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    folder = out / slide.stem
    command = [slide, "--engine", bright_model, "-o", out, "--resume"]
    assert run(*command, "--csv").exit_code == 0
    for name, harm, message in (
        ("cells.csv", lambda path: path.write_bytes(b""), "cells.csv has 0 bytes, and"),
        ("cells.csv", lambda path: path.write_bytes(path.read_bytes()[::-1]), "cells.csv has changed since"),
        ("labels.ome.zarr/zarr.json", lambda path: path.unlink(), "labels.ome.zarr/zarr.json is missing"),
    ):
        harm(folder / name)
        result = run(*command, "--csv")
        refused(
            "cellseg-infer", result, f"{folder}: its results are not whole: {message}", "--overwrite", code=1
        )
        assert run(*command, "--csv", "--overwrite").exit_code == 0
    # What a killed run left next to finished results goes; what is not ours stays.
    left = out / f".{slide.stem}.partial"
    (left / "journal").mkdir(parents=True)
    (left / "journal" / "run.json").write_text("{}")
    (left / MARK).touch()
    result = run(*command, "--csv")
    assert result.stdout == f"{slide}: done already, in {folder}\n"
    assert [path.name for path in out.iterdir()] == [slide.stem]


@pytest.mark.parametrize(
    ("before", "now", "difference"),
    [
        ([], ["--mpp", 0.4], "mpp was not given, now 0.4"),
        (["--mpp", 0.4], ["--mpp", 0.5], "mpp was 0.4, now 0.5"),
        (["--levels", 0, 200], ["--levels", 0, 250], "levels was 0 200, now 0 250"),
        ([], ["--tissue", "auto"], "tissue was none, now auto"),
        ([], ["--channels", "0"], "channels was not given, now 0"),
        ([], ["--page", 0], "page was not given, now 0"),
        ([], ["--no-rescale"], "rescale was on, now off"),
        (["--labels", "tiff"], ["--labels", "png"], "labels was tiff, now png"),
        (["--csv"], [], "csv was on, now off"),
        ([], ["--probabilities"], "probabilities was off, now on"),
        ([], ["--blend", "hann"], "blend was none, now hann"),
        (["--blend", "hann", "--tile", 40], ["--blend", "hann", "--tile", 48], "tile was 40, now 48"),
        (["--roi", "ROI"], [], "roi was .*roi.geojson .*, now not given"),
        # Nothing of this changes what is found.
        (["--tile", 40], ["--tile", 64, "--batch", 1, "--workers", 1, "--device", "cpu"], None),
        (["--channels", "0"], ["--channels", " 0"], None),
        ([], ["--skip-bad-tiles"], None),
    ],
)
def test_resume_names_the_option_that_differs(
    slide: Path, bright_model: Path, tmp_path: Path, before: list[object], now: list[object], difference: str
) -> None:
    roi = tmp_path / "roi.geojson"
    roi.write_text(json.dumps(REGION))
    out = tmp_path / "out"
    before, now = ([roi if item == "ROI" else item for item in each] for each in (before, now))
    assert run(slide, "--engine", bright_model, "-o", out, *before).exit_code == 0
    done = everything(out)
    assert "done already" in run(slide, "--engine", bright_model, "-o", out, "--resume", *before).stdout
    result = run(slide, "--engine", bright_model, "-o", out, "--resume", *now)
    if difference is None:
        assert "done already" in result.stdout, result.output
    else:
        refused("cellseg-infer", result, "holds other results", "--overwrite", code=2)
        assert re.search(difference, result.stderr), result.stderr
    assert everything(out) == done


def test_resume_sees_that_an_image_was_replaced(slide: Path, bright_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = (slide, "--engine", bright_model, "-o", out, "--resume")
    assert run(*command).exit_code == 0
    state = slide.stat()
    tifffile.imwrite(slide, picture(7), tile=(64, 64))  # of the same size
    assert slide.stat().st_size == state.st_size
    refused("cellseg-infer", run(*command), "the image has changed: it was", "bytes of 2", code=2)
    assert "7 cells" in run(*command, "--overwrite").stdout
    os.utime(slide, ns=(state.st_atime_ns, slide.stat().st_mtime_ns + 1))
    refused("cellseg-infer", run(*command), "the image has changed", code=2)


def test_resume_sees_that_regions_were_drawn_again(slide: Path, bright_model: Path, tmp_path: Path) -> None:
    roi = tmp_path / "roi.geojson"
    roi.write_text(json.dumps(REGION))
    command = (slide, "--engine", bright_model, "-o", tmp_path / "out", "--resume", "--roi")
    assert run(*command, roi).exit_code == 0
    copy = tmp_path / "copy.geojson"
    copy.write_bytes(roi.read_bytes())
    assert "done already" in run(*command, copy).stdout
    roi.write_text(json.dumps(REGION).replace("150", "120"))
    refused("cellseg-infer", run(*command, roi), "roi was", code=2)


def test_resume_sees_that_a_model_was_tuned(slide: Path, bright_model: Path, tmp_path: Path) -> None:
    spec = load_spec(bright_model)
    score = ScoreRule(constant=3.0, inside={"mask": 0.0}, area=0.0, minimum=0.3)
    model = tmp_path / "tuned.onnx"

    def tune(**settings: object) -> None:
        split = spec.split.model_copy(update={"score": score, **settings})
        respecify(bright_model, model, spec.model_copy(update={"split": split}))

    tune()
    command = (slide, "--engine", model, "-o", tmp_path / "out", "--resume")
    assert run(*command).exit_code == 0
    assert "done already" in run(*command, "--min-score", 0.3).stdout  # the same, said aloud
    refused("cellseg-infer", run(*command, "--min-score", 0.5), "min_score was 0.3, now 0.5", code=2)
    tune(min_area=21)
    refused("cellseg-infer", run(*command), "the splitter's min_area was 20, now 21", code=2)
    tune(score=score.model_copy(update={"constant": 2.5}))
    refused("cellseg-infer", run(*command), "the splitter's score.constant was 3, now 2.5", code=2)
    tune(score=None)
    refused("cellseg-infer", run(*command), "score.constant was 3, now not given", code=2)


def test_a_batch_of_results_that_differ_is_a_wrong_command(bright_model: Path, tmp_path: Path) -> None:
    for number in range(2):
        tifffile.imwrite(tmp_path / f"s{number}.tif", picture())
    command = (tmp_path, "--engine", bright_model, "-o", tmp_path / "out", "--resume")
    assert run(*command).exit_code == 0
    result = run(*command, "--csv")
    assert result.exit_code == 2
    assert result.stderr.count("csv was off, now on") == 2
    assert "2 of 2 images failed; none is done" in result.stderr
    (tmp_path / "out" / "s1" / "run.json").unlink()
    (tmp_path / "out" / "s1").rename(tmp_path / "gone")
    result = run(*command, "--csv")
    assert result.exit_code == 2
    assert "1 of 2 images failed; the others are done" in result.stderr


def test_the_diameter_is_an_option(slide: Path, bright_model: Path, tmp_path: Path) -> None:
    for value in ("", "0", "-2", "nan", "big"):
        result = run(slide, "--engine", bright_model, "-o", tmp_path / "out", "--diameter", value)
        assert result.exit_code == 2
        wanted = f"--diameter is '{value}'; wanted a number of pixels above 0, auto or none"
        assert result.stderr == f"cellseg-infer: error: {wanted}\n"
    result = run(slide, "--engine", bright_model, "-o", tmp_path / "out", "--diameter", "auto")
    assert result.exit_code == 2
    assert "model 'bright' does not say how large" in result.stderr
    sized = tmp_path / "sized.onnx"
    known = CellDiameter(median=8, low=4, high=16)
    respecify(bright_model, sized, load_spec(bright_model).model_copy(update={"diameter": known}))
    result = run(slide, "--engine", sized, "-o", tmp_path / "out", "--diameter", "12")
    assert result.exit_code == 0, result.output
    assert "note     for cells of 12 pixels the image was read at 0.667 times its size" in result.stdout


@pytest.mark.parametrize(("name", "code"), [("slide.tif", 0), ("nothing.tif", 1)])
def test_as_the_whole_of_a_process(name: str, code: int, bright_model: Path, tmp_path: Path) -> None:
    """It ends at once, but not before all that was said is out and what was registered has been done."""
    tifffile.imwrite(tmp_path / "slide.tif", picture())
    script = (
        "import atexit\n"
        "from cellseg.runtime.cli.infer import main\n"
        "class Held:\n"
        "    def __del__(self): print('taken down', flush=True)\n"
        "held = Held()\n"
        "atexit.register(print, 'registered')\n"
        "main.run()\n"
    )
    command = [
        sys.executable,
        "-c",
        script,
        tmp_path / name,
        "--engine",
        bright_model,
        "-o",
        tmp_path / "out",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "registered"
    assert "taken down" not in lines
    assert ("cells" in lines[0]) == (code == 0)
    assert ("cellseg-infer: error:" in done.stderr) == (code == 1)
    assert (tmp_path / "out" / "slide" / "run.json").is_file() == (code == 0)
