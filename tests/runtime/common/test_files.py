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
