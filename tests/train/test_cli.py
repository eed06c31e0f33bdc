"""``cellseg-train``: every bad input is one line on stderr and an exit code."""

import logging
from collections.abc import Callable
from pathlib import Path

import click.testing
import cv2
import pytest
import yaml

from cellseg.train import checkpoint
from cellseg.train.cli import SHIPPED, main
from cellseg.train.config import TrainConfig
from cellseg.train.running import report

Configure = Callable[..., TrainConfig]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., click.testing.Result]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logging.getLogger("cellseg"), "handlers", [])
    monkeypatch.setattr(report, "curves", lambda *_: None)
    return lambda *arguments: click.testing.CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture
def config_file(configure: Configure, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yml"
    path.write_text(yaml.safe_dump(configure(iters=2, val_interval=2).model_dump(mode="json")))
    return path


def line(result: click.testing.Result, code: int) -> str:
    """The one line of a failure."""
    assert result.exit_code == code
    assert result.stderr.startswith("cellseg-train: error: ")
    assert result.stderr.count("\n") == 1
    return str(result.stderr)


def test_it_trains_into_a_folder_of_the_configurations_name(run: Callable, config_file: Path) -> None:
    result = run(config_file)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "work_dirs/tiny/best.pt\n"
    assert "step 2" in result.stderr
    assert result.stderr.endswith(
        "next: cellseg-export work_dirs/tiny/best.pt --heads mask,boundary,density\n"
    )
    assert Path("work_dirs/tiny/last.pt").is_file()
    assert "holds a run already" in line(run(config_file), 2)
    assert run(config_file, "--resume", "--set", "iters=3").exit_code == 0
    assert run(config_file, "--overwrite", "--set", "work_dir=work_dirs/tiny").exit_code == 0


def test_a_preview_is_drawn_before_any_training(run: Callable, config_file: Path) -> None:
    result = run(config_file, "--preview", 3)
    assert result.exit_code == 0, result.stderr
    picture = cv2.imread(result.stdout.strip())
    assert picture.shape[0] >= 3 * 32
    assert picture.shape[1] >= 4 * 32
    assert [path.name for path in Path("work_dirs/tiny").iterdir()] == ["preview.png"]


def test_shipped_configurations_go_by_name(run: Callable) -> None:
    for path in SHIPPED.glob("*.yml"):
        text = line(run(path.stem, "--set", "dataset_path=nowhere"), 1)
        assert "nowhere: no such folder" in text
    text = line(run("nucleus"), 2)
    assert "nucleus: no such file" in text
    assert "nuclei" in text


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["missing.yml"], 2, "missing.yml: no such configuration file"),
        (["tiny.yml", "--set", "lerning_rate=1"], 2, "did you mean 'learning_rate'"),
        (["tiny.yml", "--set", "batch_size=big"], 2, "batch_size: found 'big'"),
        (["tiny.yml", "--set", "dataset_path=none"], 1, "none: no such folder"),
        (["tiny.yml", "--set", "resume=none.pt"], 1, "none.pt: no such checkpoint"),
        (["tiny.yml", "--preview", "0"], 2, "--preview"),
        (["tiny.yml", "--devices", "x"], 2, "--devices"),
        ([], 2, "CONFIG"),
        (["tiny.yml", "--fast"], 2, "--fast"),
    ],
)
def test_bad_input_is_one_line(
    run: Callable, config_file: Path, arguments: list[str], code: int, words: str
) -> None:
    assert words in line(run(*arguments), code)
    assert not Path("work_dirs").exists()


def test_help_names_every_option(run: Callable) -> None:
    text = run("--help").stdout
    for option in ("--set", "--resume", "--overwrite", "--devices", "--preview", "--version"):
        assert option in text


def test_checkpoints_are_averaged(config_file: Path, run: Callable, tmp_path: Path) -> None:
    assert run(config_file).exit_code == 0
    best, last = "work_dirs/tiny/best.pt", "work_dirs/tiny/last.pt"
    result = run("mean", best, last, "--shares", "1,2", "-o", "mean.pt")
    assert (result.exit_code, result.stdout) == (0, "mean.pt\n")
    assert checkpoint.load(Path("mean.pt"))["mean_of"][1]["share"] == pytest.approx(2 / 3)
    assert run(config_file, "--set", "weights=mean.pt", "--set", "work_dir=next").exit_code == 0
    refused = run(config_file, "--set", "resume=mean.pt", "--set", "work_dir=other")
    assert "mean.pt: is a mean of checkpoints" in line(refused, 1)
    for arguments, code, words in (
        ((best, last, "--shares", "1", "-o", "m.pt"), 2, "--shares 1: wanted 2 positive numbers"),
        ((best, last, "--shares", "1,-1", "-o", "m.pt"), 2, "--shares 1,-1: wanted 2 positive numbers"),
        ((best, last, "--shares", "1,x", "-o", "m.pt"), 2, "--shares 1,x: wanted 2 positive numbers"),
        ((best, "-o", "m.onnx"), 2, "-o m.onnx: wanted a file that ends in .pt"),
        ((best, "-o", "none/m.pt"), 1, "none/m.pt: cannot be written (No such file or directory)"),
        ((best, "none.pt", "-o", "m.pt"), 1, "none.pt: no such checkpoint"),
        (("-o", "m.pt"), 2, "Missing argument"),
    ):
        result = run("mean", *arguments)
        assert (result.exit_code, result.stderr.count("\n")) == (code, 1)
        assert words in result.stderr
        assert not Path("m.pt").exists()
