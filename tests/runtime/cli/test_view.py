import os
import re
import signal
import socket
import subprocess
import sys
from urllib.request import urlopen

import numpy as np
import pytest
from click.testing import CliRunner

from cellseg.runtime import segment
from cellseg.runtime.cli.view import expand, main
from cellseg.runtime.testing.local_engine import LocalEngine, local_spec


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    for name in "ab":
        with LocalEngine(local_spec(1), 1) as engine:
            segment(np.zeros((40, 60), np.uint8), engine, output=folder / name)
    return folder


def test_folders_of_results(finished):
    assert expand((finished,)) == [finished / "a", finished / "b"]
    assert expand((finished / "b", finished)) == [finished / "b", finished / "a"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "no result was given; see cellseg-view --help"),
        (["none"], "none: no result is there; wanted an existing folder, with a run.json in it"),
        (["."], "no result is there; wanted a folder that cellseg-infer wrote, with a run.json in it"),
        (["{}", "--image", "x.tif"], "--image says where the image of one result is; 2 were given"),
        (["{}/a", "--image", "none.tif"], "none.tif"),
        (["{}", "--port", "70000"], "70000"),
    ],
)
def test_bad_input_is_one_line(finished, given, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, [text.format(finished) for text in given])
    assert done.exit_code in (1, 2)
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_taken_port(finished):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = CliRunner().invoke(main, [str(finished / "a"), "--port", str(port), "--no-browser"])
    assert done.exit_code == 2
    assert f"port {port} is taken; choose another with --port, or leave it out" in done.stderr


@pytest.mark.slow
def test_serves_until_interrupted(finished):
    code = "from cellseg.runtime.cli.view import main; main()"
    command = [sys.executable, "-c", code, str(finished), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        address = process.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{24,}/", address)
        with urlopen(f"{address}scenes.json", timeout=30) as answer:
            assert answer.read().count(b'"array"') >= 2
        os.kill(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert "Traceback" not in errors
    assert errors == "\nnext: cellseg-train import IMAGE CORRECTIONS.geojson -o datasets/NAME\n"
    assert process.returncode == 0
