"""Pixels that are infinite or no number: a mean of them is missing, and said to be; never a number."""

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest

from cellseg.runtime import Result, segment
from cellseg.runtime.testing.local_engine import LocalEngine, local_spec


@pytest.mark.parametrize(("value", "there"), [(np.inf, 2), (-np.inf, 2), (np.nan, 2), (1e30, 4), (200, 4)])
def test_a_mean_that_is_no_number_is_missing(tmp_path: Path, value: float, there: int) -> None:
    image = np.zeros((60, 60), np.float32)
    image.reshape(2, 30, 2, 30)[:, 8:20, :, 8:20] = 200
    image[13, 13] = image[44, 44] = value  # in the first cell and in the last
    out = tmp_path / "out"
    result = segment(image, LocalEngine(local_spec(2)), output=out, csv=True, levels=(0, 255))
    table = pyarrow.parquet.read_table(out / "cells.parquet")
    name = next(name for name in table.column_names if name.startswith("mean_intensity"))
    lost = [0, 3] if there == 2 else []
    assert [number for number, mean in enumerate(table[name].to_pylist()) if mean is None] == lost
    assert table.num_rows == 4
    assert pyarrow.csv.read_csv(out / "cells.csv")[name].null_count == len(lost)
    text = gzip.decompress((out / "cells.geojson.gz").read_bytes())
    # JSON has no NaN and QuPath no null; 10^30 does not fit, and 9·10^16 would be another number.
    features = json.loads(text, parse_constant=pytest.fail)["features"]
    measures = [feature["properties"]["measurements"] for feature in features]
    absent = [n for n, measure in enumerate(measures) if not any("Mean intensity" in key for key in measure)]
    assert absent == ([] if value == 200 else [0, 3])
    assert [measure["Label"] for measure in measures] == [1, 2, 3, 4]
    notes = [note for note in result.notes if "infinite or no number" in note]
    assert notes == (
        ["2 cells hold pixels that are infinite or no number: a mean intensity of theirs is missing"]
        if lost
        else []
    )
    assert np.isfinite(Result.open(out).table[name]).sum() == there
