"""Short trainings from end to end, on one CPU process."""

import csv
import logging
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from cellseg.runtime.errors import CellsegError, ConfigError, ModelError, OutputError, UsageError
from cellseg.train import checkpoint
from cellseg.train.config import TrainConfig, parse
from cellseg.train.config import load as load_config
from cellseg.train.running import loop, report, run

from ..conftest import TINY, write_data_set

Configure = Callable[..., TrainConfig]

#: Columns that tell of time, not of the curve.
TIMES = {"images_s", "data_wait"}


@pytest.fixture(autouse=True)
def _no_curves(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than the tiny trainings; one test does it."""
    if "leaves_everything_behind" not in request.node.name:
        monkeypatch.setattr(report, "curves", lambda *_: None)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k not in TIMES} for row in csv.DictReader(file)]


def same(a: Any, b: Any) -> bool:
    """Equal bit for bit, at any depth."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def assert_same_run(first: Path, second: Path) -> None:
    assert rows(first) == rows(second)
    for name in ("last.pt", "best.pt"):
        a, b = (checkpoint.load(folder / name) for folder in (first, second))
        for state in (a, b):
            del state["config"]
        assert same(a, b), name


def test_a_training_learns_and_leaves_everything_behind(configure: Configure, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    config = configure(
        iters=60,
        val_interval=20,
        init_channel_number=4,
        ema=0.9,
        overlay_interval=3,
        workers=1,
        pred_result=str(tmp_path / "predictions"),
    )
    best = loop.train(config, folder)
    assert best == folder / "best.pt"
    assert {path.name for path in folder.iterdir()} == set(run.KEPT) - {"metrics_before.csv"}
    assert (folder / "overlays" / "step_0000060.png").is_file()
    assert list((folder / "tensorboard").glob("events.out.tfevents.*"))
    assert cv2.imread(str(folder / "curves.png")).shape[2] == 3
    assert load_config(folder / "config.yml") == config
    assert "step 60" in (folder / "train.log").read_text()
    table = rows(folder)
    assert [row["step"] for row in table] == ["20", "40", "60"]
    losses = [float(row["train_loss"]) for row in table]
    assert losses[2] < losses[1] < losses[0]
    assert float(table[2]["val_dice"]) > 0.8
    state = checkpoint.load(best)
    assert {"config", "model", "ema", "optimizer", "schedule", "step", "best"} <= state.keys()
    assert state["best"] == pytest.approx(max(float(row["val_ap_mean_50_90"]) for row in table), rel=1e-6)
    for name in ("val0", "val1"):
        labels = cv2.imread(str(tmp_path / "predictions" / f"{name}.png"), cv2.IMREAD_UNCHANGED)
        assert labels.dtype == np.uint16
        assert labels.shape == (64, 64)


class KilledError(Exception):
    """Stands for a killed process."""


def stop_at(monkeypatch: pytest.MonkeyPatch, place: str, count: int, act: Callable[[], None]) -> None:
    """Act just before the `count`-th call of ``loop.<place>``."""
    target: Any = loop
    *parents, name = place.split(".")
    for parent in parents:
        target = getattr(target, parent)
    original, calls = getattr(target, name), iter(range(count))

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if next(calls, None) is None:
            act()
        return original(*args, **kwargs)

    monkeypatch.setattr(target, name, wrapped)


def kill() -> None:
    raise KilledError


CURVE = {"iters": 11, "ema": 0.9, "patience": 2, "optimizer": "adamw"}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    write_data_set(folder / "cells")
    loop.train(parse({**TINY, **CURVE, "dataset_path": str(folder / "cells")}, "test"), folder / "run")
    return folder / "run"


@pytest.mark.parametrize(
    ("place", "count"),
    [
        ("photometric", 1),  # before anything was saved
        ("photometric", 6),  # within the second interval
        ("evaluate", 1),  # at the second validation
        ("checkpoint.save", 3),  # the second validation is recorded, `best` perhaps saved, `last` not
        ("Report.record", 1),
    ],
)
def test_killed_and_resumed_is_as_if_nothing_had_happened(
    configure: Configure,
    tmp_path: Path,
    uninterrupted: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    count: int,
) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, place, count, kill)
        with pytest.raises(KilledError):
            loop.train(configure(**CURVE), tmp_path / "cut")
    loop.train(configure(**CURVE, resume=True), tmp_path / "cut")
    assert_same_run(uninterrupted, tmp_path / "cut")


@pytest.mark.parametrize(
    ("number", "steps"),
    [(signal.SIGINT, 1), (signal.SIGINT, 4), (signal.SIGINT, 10), (signal.SIGTERM, 6)],
)
def test_signals_save_the_step_and_resume_exactly(
    configure: Configure,
    tmp_path: Path,
    uninterrupted: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    steps: int,
) -> None:
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with monkeypatch.context() as patch:
        stop_at(patch, "photometric", steps - 1, lambda: signal.raise_signal(number))
        with pytest.raises((KeyboardInterrupt, SystemExit)) as stopped:
            loop.train(configure(**CURVE), tmp_path / "cut")
    assert isinstance(stopped.value, KeyboardInterrupt) == (number == signal.SIGINT)
    assert checkpoint.load(tmp_path / "cut" / "last.pt")["step"] == steps
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    loop.train(configure(**CURVE, resume=True), tmp_path / "cut")
    assert_same_run(uninterrupted, tmp_path / "cut")


def test_a_checkpoint_without_the_later_additions_can_be_resumed(
    configure: Configure, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    loop.train(configure(iters=4), folder)
    state = checkpoint.load(folder / "last.pt")
    for key in ("meter", "precision", "cellseg_checkpoint"):
        del state[key]
    checkpoint.save(folder / "last.pt", state)
    (folder / "metrics.csv").write_text("step,train_loss\n4,1.5\n")
    loop.train(configure(iters=8, resume=str(folder / "last.pt")), folder)
    assert checkpoint.load(folder / "last.pt")["step"] == 8
    assert [row["step"] for row in rows(folder)] == ["8"]  # the old columns are kept in a file of their own
    assert (folder / "metrics_before.csv").read_text().startswith("step,train_loss")


def test_a_training_can_start_from_another_ones_weights(configure: Configure, tmp_path: Path) -> None:
    first = tmp_path / "first"
    loop.train(configure(iters=4, ema=0.9, use_density=0.0), first)
    before = checkpoint.load(first / "last.pt")["ema"]
    weights = str(first / "last.pt")
    config = configure(iters=1, weights=weights, learning_rate=1e-12, use_density=0.5)
    loop.train(config, tmp_path / "second")
    saved = checkpoint.load(tmp_path / "second" / "last.pt")
    assert saved["step"] == 1
    assert torch.allclose(
        saved["model"]["encoders.0.branches.0.0.0.weight"], before["encoders.0.branches.0.0.0.weight"]
    )
    assert "heads.heads.density.weight" in saved["model"].keys() - before.keys()
    assert "new heads: density" in (tmp_path / "second" / "train.log").read_text()
    with pytest.raises(ModelError, match=r"last\.pt: its network is not the one.*differs\); set model"):
        loop.train(configure(weights=weights, model_deep=2), tmp_path / "third")
    with pytest.raises(ModelError, match="no such checkpoint"):
        loop.train(configure(weights="none.pt"), tmp_path / "third")
    assert not (tmp_path / "third").exists()
    with pytest.raises(ModelError, match="no such checkpoint"):
        loop.train(configure(weights="none.pt"), first, overwrite=True)
    assert (first / "last.pt").is_file()


def test_a_run_is_neither_overwritten_nor_mixed_up(configure: Configure, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    loop.train(configure(iters=4), folder)
    with pytest.raises(UsageError, match=r"holds a run already.*--resume.*--overwrite"):
        loop.train(configure(iters=4), folder)
    with pytest.raises(UsageError, match="holds a run already"):
        loop.train(configure(iters=4, resume=str(tmp_path / "other.pt")), folder)
    loop.train(configure(iters=4), folder, overwrite=True)
    assert len(rows(folder)) == 1
    with pytest.raises(UsageError, match=r"is at step 4 already, beyond the 3 that iters and epochs allow"):
        loop.train(configure(iters=3, resume=True), folder)
    with pytest.raises(ModelError, match="its network is not the one that the configuration names"):
        loop.train(configure(iters=8, resume=True, init_channel_number=3), folder)
    with pytest.raises(ModelError, match="no such checkpoint"):
        loop.train(configure(resume=str(tmp_path / "other.pt")), tmp_path / "new")


def test_nothing_is_left_behind_by_a_data_set_that_cannot_be_read(
    configure: Configure, tmp_path: Path
) -> None:
    with pytest.raises(CellsegError, match="no such folder"):
        loop.train(configure(dataset_path=str(tmp_path / "none")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_no_number_stops_and_names_step_and_images(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    original, calls = loop.photometric, iter(range(100))

    def spoil(image: torch.Tensor, look: torch.Tensor) -> torch.Tensor:
        x = original(image, look)
        return x * float("nan") if next(calls) == 5 else x

    monkeypatch.setattr(loop, "photometric", spoil)
    with pytest.raises(CellsegError) as error:
        loop.train(configure(iters=12), folder)
    text = str(error.value)
    assert "the loss of step 5 is nan; its batch shows train" in text
    assert f"{folder / 'last.pt'} keeps the last good step" in text
    assert "learning_rate" in text
    assert "\n" not in text
    state = checkpoint.load(folder / "last.pt")
    assert state["step"] == 4
    assert all(torch.isfinite(v).all() for v in state["model"].values())


def test_a_gradient_that_is_no_number_stops_too(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = loop.photometric, iter(range(100))

    def spoil(image: torch.Tensor, look: torch.Tensor) -> torch.Tensor:
        x = original(image, look)
        if next(calls) == 3:
            x.requires_grad_().register_hook(lambda grad: grad)
            weight.register_hook(lambda grad: grad * float("inf"))
        return x

    build = loop.build_model

    def remember(config: TrainConfig) -> Any:
        nonlocal weight
        model = build(config)
        weight = model.heads.heads["mask"].weight
        return model

    weight: Any = None
    monkeypatch.setattr(loop, "photometric", spoil)
    monkeypatch.setattr(loop, "build_model", remember)
    with pytest.raises(
        CellsegError, match=r"norm of the gradients of step 3 is .*no checkpoint was saved yet"
    ):
        loop.train(configure(iters=12), tmp_path / "run")
    assert not (tmp_path / "run" / "last.pt").exists()


def test_a_full_disk_is_one_clear_error(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.os, "fsync", full)
    with pytest.raises(OutputError, match=r"best\.pt: cannot be written \(No space left on device\)"):
        loop.train(configure(iters=4), tmp_path / "run")


def test_a_folder_that_cannot_be_made_is_named(configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        loop.train(configure(iters=4), tmp_path / "file" / "run")


def test_one_image_is_enough(cells: Path, configure: Configure, tmp_path: Path) -> None:
    for split, kept in (("train", "train0"), ("val", "val0")):
        for path in (cells / split).rglob("*.png"):
            if path.stem != kept:
                path.unlink()
    loop.train(configure(iters=3, val_interval=0, batch_size=4), tmp_path / "run")
    assert [row["epoch"] for row in rows(tmp_path / "run")] == ["1", "2", "3"]


def test_patience_ends_a_run(configure: Configure, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = configure(iters=400, val_interval=1, patience=3, learning_rate=1e-12, best_by="dice")
    with caplog.at_level(logging.INFO):
        loop.train(config, tmp_path / "run")
    assert 4 <= len(rows(tmp_path / "run")) < 20
    assert "no better validation" in caplog.text
    table = rows(tmp_path / "run")
    loop.train(config.model_copy(update={"resume": True}), tmp_path / "run")
    assert rows(tmp_path / "run") == table  # it stays ended


@pytest.mark.parametrize("best_by", ["ap", "dice", "loss"])
def test_the_best_is_the_best_by_what_was_asked(configure: Configure, tmp_path: Path, best_by: str) -> None:
    folder = tmp_path / "run"
    loop.train(configure(iters=20, best_by=best_by), folder)
    column = {"ap": "val_ap_mean_50_90", "dice": "val_dice", "loss": "val_loss"}[best_by]
    values = [float(row[column]) for row in rows(folder)]
    wanted = values.index(min(values) if best_by == "loss" else max(values))
    assert checkpoint.load(folder / "best.pt")["step"] == int(rows(folder)[wanted]["step"])


@pytest.mark.parametrize(
    "changes",
    [
        {"norm": "group", "optimizer": "sgd", "channels_last": False},
        {"precision": "bf16", "optimizer": "adam", "schedule": "cosine", "warmup": 2},
        {"use_corner": 0, "use_density": 0, "out_channels": 1, "augment": 0},
        {"in_channels": 3, "model": "LinkNet", "final_sigmoid": True},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())),
)
def test_options_train(configure: Configure, tmp_path: Path, changes: dict[str, Any]) -> None:
    loop.train(configure(iters=2, val_interval=2, **changes), tmp_path / "run")
    assert np.isfinite(float(rows(tmp_path / "run")[0]["train_loss"]))


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"accelerator": "cuda"}, "finds no GPU"), ({"precision": "fp16"}, "fp16 needs a GPU")],
)
def test_what_this_machine_cannot_do_is_said(
    configure: Configure, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    if torch.cuda.is_available() and "accelerator" in changes:
        pytest.skip("this machine has a GPU")
    with pytest.raises(CellsegError, match=words):
        loop.train(configure(**changes), tmp_path / "run")


def test_a_wrong_configuration_never_starts(configure: Configure) -> None:
    with pytest.raises(ConfigError):
        configure(crop=33)


def test_a_training_keeps_of_its_start_what_does_no_harm(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tmp_path / "first"
    loop.train(configure(iters=8, ema=0.9), first)
    before = checkpoint.weights(checkpoint.load(first / "last.pt"))
    changes = {"weights": str(first / "last.pt"), "keep": 0.5, "ema": 0.5, "iters": 8}
    for harm, wanted in ((False, 0.5), (True, 0.0)):
        # Keeping anything is as good as nothing, or does harm, whatever so short a training comes to.
        scores = iter([0.2, 0.5, 1.0, 1.0] * 2 if harm else [1.0] * 8)  # the last: of what is saved
        monkeypatch.setattr(loop, "score", lambda figures, config, scores=scores: next(scores))
        folder = tmp_path / f"{harm}"
        loop.train(configure(**changes), folder)
        saved = checkpoint.load(folder / "last.pt")
        assert saved["keep"] == wanted
        assert [float(row["val_keep"]) for row in rows(folder)] == [wanted] * 2
        name = "encoders.0.branches.0.0.0.weight"
        assert not torch.equal(saved["ema"][name], before[name])
        mean = wanted * before[name] + (1 - wanted) * saved["ema"][name]
        torch.testing.assert_close(checkpoint.weights(saved)[name], mean)


def test_a_training_that_keeps_of_its_start_resumes_exactly(configure: Configure, tmp_path: Path) -> None:
    first = tmp_path / "first"
    loop.train(configure(iters=4), first)
    changes = {"weights": str(first / "last.pt"), "keep": 0.4, "ema": 0.9, "schedule": "cosine"}
    loop.train(configure(**changes, iters=12), tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, "photometric", 5, lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            loop.train(configure(**changes, iters=12), tmp_path / "cut")
    (first / "last.pt").unlink()  # what is needed of it lies in the new run
    loop.train(configure(**changes, iters=12, resume=True), tmp_path / "cut")
    assert_same_run(tmp_path / "whole", tmp_path / "cut")
