"""A finished result to look at: bright discs found by a model for which cells are what is bright."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def finished(finished_views: list[Path]) -> Path:
    """Return the folder of the result; the image lies next to it."""
    return finished_views[0]
