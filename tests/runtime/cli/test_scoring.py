"""Figures as the terminal shows them."""

import pytest

from cellseg.runtime.cli import scoring


def test_many_groups_are_rows_that_fit_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    figures = {"ap50": 0.84, "ap75": 0.64, "ap90": 0.31, "count_mae": 13.1, "merged": 120, "spurious": 1115}
    groups = ("fluorescence", "stained tissue", "bright field")
    columns = {f"{group}, {when}": figures for group in groups for when in ("before", "after")}
    scoring.print_figures(columns, ("ap50", "ap75", "ap90", "count_mae", "merged", "spurious"))
    text = capsys.readouterr().out
    assert "…" not in text
    assert text.count("0.840") == text.count("1,115") == 6
    scoring.print_figures({"before": figures, "after": figures}, ("ap50",))
    assert "AP at IoU 0.50" in capsys.readouterr().out
