"""Packages are written where the command asks for them."""

from pathlib import Path

from .test_cli import ALL, run


def test_the_command_writes_both(checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "m.onnx"
    code, text = run(checkpoint, "-o", output, "--triton", tmp_path / "repo", "--bioimageio", *ALL)
    assert code == 0, text
    assert "(serves m.onnx)" in text
    assert (tmp_path / "repo" / "tiny" / "config.pbtxt").is_file()
    assert (tmp_path / "m.bioimageio.zip").is_file()
