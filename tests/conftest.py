"""Fixtures that every part of the test suite may use."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data, or a skip: it is larger than a repository should be, and not all of it is ours."""
    folder = Path(os.environ.get("CELLSEG_DATA") or REPOSITORY.parent / "shared" / "data")
    if not (folder / "dsb2018").is_dir():
        pytest.skip(f"no real data in {folder}: set CELLSEG_DATA to a folder that holds dsb2018/ and slides/")
    return folder
