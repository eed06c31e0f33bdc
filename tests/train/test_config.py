import os
from pathlib import Path
from typing import Any

import pytest

from cellseg.runtime.errors import ConfigError
from cellseg.train.cli import SHIPPED
from cellseg.train.config import TrainConfig, load, parse

#: A configuration of the original project, with every key that it knows.
ORIGINAL = """
model: MCUNET

in_channels: 3
out_channels: 2
batch_size: 1
learning_rate: 0.001
epochs: 400
iters: 100000
patience: 20
interpolate: false
final_sigmoid: false
resume: null

use_corner: 0.15
use_density: 0
randseed: 5000
model_deep: 3
M_channel: 3
resample: false
resample_num: 134
resample_by_manual: false
weight_decay: 0
init_channel_number: 64
log_level: INFO
M_R: 0
dataset_path: ./datasets/T24ALL
work_dir: null
pred_result: null
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "cfg.yml"
    path.write_text(text)
    return path


def test_a_file_of_the_original_project_is_taken_as_it_is(tmp_path: Path) -> None:
    config = load(write(tmp_path, ORIGINAL))
    assert (config.model, config.batch_size, config.use_corner) == ("MCUNET", 1, 0.15)
    assert config.heads == ("mask", "boundary")
    assert config.resume is False
    assert config.resample_by_manual is False
    assert config.work_dir is None
    assert config.pred_result == ""


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yml")), ids=lambda path: path.stem)
def test_shipped_configurations_are_valid(path: Path) -> None:
    load(path)


def test_finetuning_differs_from_the_default_model_in_its_schedule_alone() -> None:
    default, fine = (load(SHIPPED / f"{name}.yml").model_dump() for name in ("nuclei", "finetune"))
    pace = {"batch_size", "iters", "learning_rate", "warmup", "ema", "val_interval"}
    pictures = {"dataset_path", "augment", "augment_bright", "balance", "crowding", "stained"}
    pictures |= {"tissue", "zoom"}
    assert {key for key in default if default[key] != fine[key]} == {"weights", "keep"} | pace | pictures


def test_all_keys_survive_a_round_trip(tmp_path: Path) -> None:
    config = load(write(tmp_path, ORIGINAL))
    assert parse(config.model_dump(), "checkpoint") == config
    assert parse(config.model_dump(mode="json"), "copy") == config


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"learing_rate": 0.1}, ["unknown key 'learing_rate'", "did you mean 'learning_rate'"]),
        ({"xyzzy": 1}, ["unknown key 'xyzzy'"]),
        ({"batch_size": "many"}, ["batch_size", "'many'", "integer"]),
        ({"batch_size": True}, ["batch_size", "True"]),
        ({"batch_size": 0}, ["batch_size", "0", "greater than or equal to 1"]),
        ({"learning_rate": -1}, ["learning_rate", "-1"]),
        ({"use_corner": "strong"}, ["use_corner", "'strong'"]),
        ({"model": "UNET++"}, ["model", "'UNET++'", "'UNET'"]),
        ({"model_deep": 6}, ["model_deep", "6"]),
        ({"crop": 100}, ["crop 100", "multiple of 8"]),
        ({"dataset_path": []}, ["dataset_path", "empty"]),
        ({"dataset_path": ["a", 3]}, ["dataset_path", "3", "share: NUMBER"]),
        ({"dataset_path": [{"path": "a", "shares": 2}]}, ["dataset_path"]),
        ({"dataset_path": [{"path": "a", "share": -1}]}, ["dataset_path"]),
        ({"dataset_path": [{"path": "a", "share": 0}]}, ["dataset_path", "sum to nothing"]),
        ({"tissue": 0.5, "in_channels": 1}, ["tissue", "in_channels: 3"]),
        ({"heads": ["boundary"]}, ["mask"]),
        ({"heads": ["mask", "edges"]}, ["heads", "edges"]),
        ({"heads": ["mask", "density"], "use_density": 0}, ["density", "use_density"]),
    ],
)
def test_a_wrong_value_is_named(values: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        parse(values, "cfg.yml")
    text = str(error.value)
    assert text.startswith("cfg.yml: ")
    assert "\n" not in text
    for word in words:
        assert word in text


def test_heads_follow_the_weights_unless_named() -> None:
    assert TrainConfig().heads == ("mask", "boundary")
    assert parse({"use_corner": 0, "use_density": 1}, "").heads == ("mask", "density")
    assert parse({"use_corner": 1, "use_density": 1, "heads": ["mask"]}, "").heads == ("mask",)


def test_overrides_replace_and_are_checked_alike(tmp_path: Path) -> None:
    path = write(tmp_path, ORIGINAL)
    config = load(path, ("learning_rate=3e-4", "use_density = 0.5", "resample_by_manual=[a, 7]"))
    assert config.learning_rate == 3e-4
    assert config.heads == ("mask", "boundary", "density")
    assert config.resample_by_manual == ["a", 7]
    for override, word in (
        ("learning_rate", "key=value"),
        ("lr=1", "unknown key"),
        ("heads=[", "--set heads=["),
    ):
        with pytest.raises(ConfigError, match="(?s)" + word.replace("[", r"\[")):
            load(path, (override,))


@pytest.mark.parametrize(
    ("text", "word"), [("- a\n- b", "list"), ("", "NoneType"), ("a: [", "YAML"), ("\x00", "YAML")]
)
def test_a_file_that_is_no_configuration_is_named(tmp_path: Path, text: str, word: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match=word) as error:
        load(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.yml: no such configuration file"):
        load(tmp_path / "nothing.yml")


BOMB = "a: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (BOMB, "stands for more than 100,000 values"),
        ("iters: " + "9" * 6000, "a number of thousands of digits"),
        ("iters: 0x" + "f" * 6000, "iters: found a number of 24,000 bits"),
        ("use_corner: 1" + "0" * 4000, "use_corner: found a number of"),
        ("learning_rate: .inf", "learning_rate: found inf"),
        ("heads: " + "[" * 20_000, "nested more than 16 levels deep"),
        ("heads: &h [mask, *h]", "YAML|heads"),
        ("randseed: 2001-99-99", "YAML"),
        ("iters: !!int ''", "YAML"),
        ("compile: !!bool 17", "YAML"),
        ("? [a, b]\n: 1", "unknown key|YAML"),
        (f"{'k' * 900}: 1", "unknown key"),
        ("x: " + "a" * (1 << 20), "at most 1,048,576 are read"),
    ],
)
def test_hostile_text_is_one_short_line(tmp_path: Path, text: str, word: str) -> None:
    path = tmp_path / "c.yml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=word) as error:
        load(path)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < len(str(path)) + 300
    if len(text) < 10_000 and not text.startswith(("?", "k")):
        with pytest.raises(ConfigError):
            load(SHIPPED / "fast.yml", (f"iters={text.partition(': ')[2]}",))


def test_aliases_may_be_used(tmp_path: Path) -> None:
    path = tmp_path / "c.yml"
    path.write_text("epochs: &n 7\npatience: *n\nheads: [mask]\nuse_corner: 0\n")
    assert load(path).patience == 7


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "c.yml")
    with pytest.raises(ConfigError, match="it is a pipe, wanted a file"):
        load(tmp_path / "c.yml")
