"""Nothing is ever sent: whole commands, watched from outside, in a network of their own."""

import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from cellseg.runtime.common.privacy import ONNX_RUNTIME, OPENVINO

#: Written before any other module is imported, by the process and by every child that is a Python.
WATCHER = """
import os, sys

def watch(event, arguments):
    if event.startswith("socket.") and event not in ("socket.__new__", "socket.gethostname"):
        with open(os.environ["WATCHED"], "a") as log:
            log.write(f"{event} {arguments[1:]}\\n")

sys.addaudithook(watch)
"""
#: What keeps the engines quiet where it is set, and must not be what keeps them quiet here.
HUSHED = (
    "CI", "GITHUB_ACTIONS", "TF_BUILD", "ORT_RUNNING_UNIT_TESTS", "XDG_CACHE_HOME", "CELLSEG_CACHE",
    ONNX_RUNTIME,
)  # fmt: skip
#: What our own commands keep there, as the documentation says, and nothing else.
KEPT = re.compile(r"\.cache/cellseg/[0-9a-f]{32}\.compiled")
#: Matplotlib's list of the fonts here, which is nobody's business but belongs there.
FONTS = ".cache/matplotlib/"
#: TensorBoard imports boto3 where that is installed; urllib3 below it sees by this whether the system has
#: IPv6; nothing is sent.
HAS_IPV6 = "socket.bind (('::1', 0),)"


@functools.cache
def namespace() -> tuple[str, ...]:
    """The prefix of a command that has no network, or a skip."""
    for prefix in (("unshare", "-n"), ("unshare", "-rn")):
        if shutil.which("unshare") and subprocess.run([*prefix, "true"], capture_output=True).returncode == 0:
            return prefix
    pytest.skip("this system makes no network namespaces (unshare -n)")


@functools.cache
def tracer() -> tuple[str, ...]:
    """The prefix that logs every connection of every thread and child, of whatever language."""
    if shutil.which("strace") is None:
        return ()
    for filtered in (("--seccomp-bpf",), ()):  # in the kernel, so that no other call stops the process
        prefix = ("strace", "-f", *filtered, "-qq", "-e", "trace=connect,sendto,sendmsg", "-o")
        if subprocess.run([*prefix, os.devnull, "true"], capture_output=True).returncode == 0:
            return prefix
    return ()


def watched(
    arguments: Sequence[object], folder: Path, directory: Path | None = None
) -> tuple[list[str], list[str], str]:
    """Run Python; return the files it left in its home, where it tried to connect to, and its messages."""
    home, site = folder / "home", folder / "site"
    home.mkdir()
    site.mkdir()
    (site / "sitecustomize.py").write_text(WATCHER)
    seen, traced = folder / "seen", folder / "traced"
    seen.touch()
    traced.touch()
    changed = {"HOME": str(home), "PYTHONPATH": str(site), "WATCHED": str(seen)}
    environment = {key: value for key, value in os.environ.items() if key not in HUSHED} | changed
    trace = (*tracer(), str(traced)) if tracer() else ()
    command = [*namespace(), *trace, sys.executable, *map(str, arguments)]
    done = subprocess.run(
        command,
        cwd=directory or folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    left = sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.is_file())
    left = [name for name in left if not KEPT.fullmatch(name)]
    calls = seen.read_text().splitlines()
    calls += [line for line in traced.read_text().splitlines() if "AF_INET" in line]
    return left, calls, done.stderr


def command(part: str) -> list[str]:
    """Return how Python starts the command of a part."""
    return ["-c", f"from cellseg.{part} import main; main()"]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    pixels = np.full((64, 64, 3), 20, np.uint8)
    cv2.circle(pixels, (30, 30), 9, (240, 240, 240), -1)
    cv2.imwrite(str(tmp_path / "picture.png"), pixels)
    return tmp_path / "picture.png"


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_the_watch_sees_what_an_engine_does_by_itself(engine: str, tmp_path: Path) -> None:
    """Otherwise the other tests would find nothing whatever happened. Newer releases may have stopped."""
    pytest.importorskip(engine)
    load = "import time, onnxruntime as o; o.SessionOptions(); time.sleep(.5)"
    left, _, _ = watched(["-c", load if engine == "onnxruntime" else "import openvino"], tmp_path)
    if not left:
        pytest.skip(f"this release of {engine} does not report")
    names = " ".join(left)
    assert "intel" in names if engine == "openvino" else "onnxruntime" in names


def test_the_watch_sees_a_connection(tmp_path: Path) -> None:
    call = "import socket\ntry: socket.create_connection(('192.0.2.1', 443), 1)\nexcept OSError: pass"
    _, calls, _ = watched(["-c", call], tmp_path)
    assert any("socket.connect" in line for line in calls)
    assert not tracer() or any("AF_INET" in line for line in calls)


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_a_command_leaves_nothing_and_calls_nobody(
    engine: str, picture: Path, bright_model: Path, tmp_path: Path
) -> None:
    pytest.importorskip(engine)
    arguments = [picture, "-o", tmp_path / "out", "--engine", bright_model]
    started = [*command("runtime.cli.infer"), *arguments]
    if engine == "onnxruntime":  # no option asks for it on a CPU: a fallback's engine there
        started[1] = (
            "from cellseg.runtime.backends import engines\n"
            "engines.ENGINES = tuple(row for row in engines.ENGINES if row.name == 'onnxruntime')\n"
            + started[1]
        )
    left, calls, _ = watched(started, tmp_path)
    assert (tmp_path / "out" / "picture" / "record.json").is_file() or list((tmp_path / "out").glob("*/*"))
    assert (left, calls) == ([], [])


def test_neither_can_be_imported_nor_started(tmp_path: Path) -> None:
    """Whatever imports an engine after us: torch's exporter imports ONNX Runtime, NNCF both."""
    code = (
        "import os, cellseg.runtime\n"
        f"assert os.environ[{ONNX_RUNTIME!r}] == '1'\n"
        f"try: import {OPENVINO}\n"
        "except ImportError: pass\n"
        "else: raise SystemExit('it could be imported')"
    )
    watched(["-c", code], tmp_path)


@pytest.mark.slow
def test_no_command_of_a_models_whole_life_does(tmp_path: Path) -> None:
    """Training with TensorBoard and curves, export with NNCF, tuning in processes, scores."""
    for package in ("torch", "onnx", "nncf", "onnxruntime"):
        pytest.importorskip(package)
    import yaml

    rng = np.random.default_rng(0)
    for name in ("train", "val"):
        for number in range(8):
            labels = np.zeros((64, 64), np.uint16)
            for cell, (x, y) in enumerate(rng.integers(8, 56, (6, 2)), 1):
                cv2.circle(labels, (int(x), int(y)), 5, cell, -1)
            image = np.clip(30 + 140 * (labels > 0) + rng.normal(0, 10, labels.shape), 0, 255)
            for kind, pixels in (("image", image.astype(np.uint8)), ("label", labels)):
                (tmp_path / "cells" / name / kind).mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(tmp_path / "cells" / name / kind / f"{name}{number}.png"), pixels)
    settings = {
        "dataset_path": "cells", "in_channels": 1, "init_channel_number": 2, "model_deep": 1, "crop": 32,
        "batch_size": 2, "iters": 2, "val_interval": 2, "workers": 0, "accelerator": "cpu",
    }  # fmt: skip
    (tmp_path / "tiny.yml").write_text(yaml.safe_dump(settings))
    for number, (part, line) in enumerate(
        (
            ("train.cli", "tiny.yml"),
            ("export.cli", "work_dirs/tiny/best.pt -o m.onnx --int8 --force --halo 8 --no-plan"),
            ("runtime.cli.tune", "cells/val --engine m.onnx -o t.onnx --trials 4"),
            ("runtime.cli.eval", "cells/val --engine t.onnx"),
            ("runtime.cli.infer", "--devices"),
        )
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        left, calls, said = watched([*command(part), *line.split()], folder, tmp_path)
        left = [name for name in left if not name.startswith(FONTS)]
        calls = [call for call in calls if call != HAS_IPV6]
        assert (left, calls) == ([], []), f"{part}: {said}"
