import subprocess
import sys
from pathlib import Path

import pytest

from cellseg.runtime.common import files
from cellseg.runtime.errors import OutputError, UsageError


def test_a_file_is_replaced_when_all_went_well(tmp_path: Path) -> None:
    path = tmp_path / "new" / "m.onnx"
    with files.replacing(path) as partial:
        assert partial.suffix == ".onnx"
        partial.write_bytes(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o044  # as readable as any file, not private as temporary files are
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_the_old_file_stays_when_something_fails(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"old")

    def fail() -> None:
        with files.replacing(path) as partial:
            partial.write_bytes(b"half")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_places_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder"), files.replacing(tmp_path):
        pass
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(OutputError, match=r"cannot be written there .* with --json$"),
        files.replacing(tmp_path / "file" / "m", "--json"),
    ):
        pass


def test_a_full_disk_is_named() -> None:
    with pytest.raises(OutputError, match=r"/dev: 0\.0 MB cannot be written \(No space left on device\)"):
        files.write(Path("/dev/full"), b"x")


def test_what_a_killed_process_left_goes_with_the_next(tmp_path: Path) -> None:
    """And neither what a process that is alive is writing, nor a file that looks alike."""
    path = tmp_path / "summary.csv"
    script = (
        "import os, sys; from pathlib import Path; from cellseg.runtime.common.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as partial:\n"
        "    partial.write_text('half'); print('ready', flush=True); os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, check=False)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".summary.cellseg-")
    other = tmp_path / ".summary-mine.csv"
    other.write_text("kept")
    with files.replacing(path) as outer:
        assert not left.exists()
        with files.replacing(path) as inner:
            assert outer.exists()
            inner.write_text("inner")
        outer.write_text("outer")
    assert path.read_text() == "outer"
    assert sorted(each.name for each in tmp_path.iterdir()) == [".summary-mine.csv", "summary.csv"]
