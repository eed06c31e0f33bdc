import numpy as np
import pytest

from cellseg.runtime import segment
from cellseg.runtime.common.spelling import written_as
from cellseg.runtime.results.doubts import UNSURE, doubts


@pytest.mark.parametrize(
    ("cells", "dropped", "scores", "words"),
    [
        (0, 0, 0.0, ["no cell was found:", "(channels)", "(pixel_size)", "cellseg-train finetune"]),
        (0, 7, 0.0, ["no cell was found (7 were dropped"]),
        (9, 3, 9 * (UNSURE - 0.05), ["the mean score of 9 cells is 0.55", "3 were dropped", "unlike"]),
        (9, 50, 9 * 0.9, ["the mean score of 9 cells is 0.90", "50 were dropped"]),
    ],
)
def test_few_or_doubtful_cells_are_no_success(
    cells: int, dropped: int, scores: float, words: list[str]
) -> None:
    (line,) = doubts(cells, dropped, scores)
    assert "\n" not in line
    assert all(word in line for word in words)


def test_a_command_is_told_of_its_own_options() -> None:
    with written_as("command"):
        (line,) = doubts(0, 0, 0.0)
    assert all(flag in line for flag in ("--channels", "--diameter", "--mpp", "--min-score"))


def test_cells_that_are_sure_are_no_matter() -> None:
    assert doubts(100, 30, 85.0) == ()


def test_a_picture_without_cells_says_so_in_its_record() -> None:
    empty = segment(np.full((96, 96), 30, np.uint8))
    assert any(note.startswith("no cell was found") for note in empty.notes)
