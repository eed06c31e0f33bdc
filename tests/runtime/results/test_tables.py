"""Results as tables of pandas, geopandas and anndata, which are there in the extra ``[spatial]``."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
import tifffile

from cellseg.runtime import segment
from cellseg.runtime.errors import UsageError
from cellseg.runtime.results import tables
from cellseg.runtime.results.polygons import polygons
from cellseg.runtime.testing.local_engine import LocalEngine, local_spec


@pytest.fixture(scope="module")
def image():
    """Discs, a ring with a disc inside of it, and a frame whose hole meets the outside at a corner."""
    picture = np.zeros((120, 160), np.uint8)
    cv2.circle(picture, (20, 20), 8, 230, -1)
    cv2.circle(picture, (80, 60), 30, 230, 4)
    cv2.circle(picture, (80, 60), 9, 230, -1)
    picture[70:100, 10:40] = 230
    picture[76:94, 16:34] = 0
    for step in range(6):  # a way out of the hole, corner to corner
        picture[76 - step, 16 - step] = picture[75 - step, 15 - step] = 0
    return picture


@pytest.fixture(scope="module", params=["memory", "folder", "unscaled"])
def result(image, request, tmp_path_factory):
    place = tmp_path_factory.mktemp("tables")
    tifffile.imwrite(place / "a.tif", image)
    output = place / "out" if request.param == "folder" else None
    size = None if request.param == "unscaled" else 0.5
    with LocalEngine(local_spec(1), 1) as engine:
        made = segment(place / "a.tif", engine, pixel_size=size, output=output)
    assert made.count >= 4
    return made


def test_the_frame_is_the_table(result):
    pandas = pytest.importorskip("pandas")
    frame = result.to_pandas()
    assert list(frame) == list(result.table)
    assert ("area_um2" in frame) == (result.record.image.pixel_size_um is not None)
    if result.folder is not None:
        pandas.testing.assert_frame_equal(frame, pandas.read_parquet(result.folder / "cells.parquet"))


def test_polygons_hold_the_pixels_of_their_cells(result):
    shapely = pytest.importorskip("shapely")
    found = polygons(result)
    assert shapely.is_valid(found).all()
    y, x = np.mgrid[: result.height, : result.width] + 0.5
    holes = 0
    for polygon, label in zip(found, result.table["label"], strict=True):
        inside = shapely.contains_xy(polygon, x.ravel(), y.ravel()).reshape(x.shape)
        assert np.array_equal(inside, result.labels == label)
        assert polygon.area == (result.labels == label).sum()
        holes += sum(len(part.interiors) for part in shapely.get_parts(polygon))
    assert holes >= 1


def test_geopandas(result):
    geopandas = pytest.importorskip("geopandas")
    frame = result.to_geopandas()
    assert isinstance(frame, geopandas.GeoDataFrame)
    assert frame.crs is None
    assert list(frame.area) == list(frame["area"])
    centres = np.stack([frame.centroid.x, frame.centroid.y], axis=1)
    assert centres == pytest.approx(result.to_anndata().obsm["spatial"])  # y down, from the corner
    if result.record.image.pixel_size_um is None:
        with pytest.raises(UsageError, match="size of a pixel is not known"):
            result.to_geopandas("um")
    else:
        assert result.to_geopandas("um").area.to_numpy() == pytest.approx(frame["area_um2"].to_numpy())
    with pytest.raises(UsageError, match="wanted 'px' or 'um'"):
        result.to_geopandas("mm")


def test_anndata(result, tmp_path):
    anndata = pytest.importorskip("anndata")
    data = result.to_anndata()
    assert data.shape == (result.count, len(data.var_names))
    assert {"area", "score"} <= {*data.var_names}
    assert not {"label", "centroid_x", "x0", "touches_border"} & {*data.var_names}
    assert np.array_equal(data[:, "area"].X[:, 0], result.table["area"])
    assert data.var.loc["area", "unit"] == "px²"
    assert list(data.obs_names) == [str(number) for number in result.table["label"]]
    x = result.table["centroid_x"]
    assert np.array_equal(data.obsm["spatial"][:, 0], x + 0.5)
    size = result.record.image.pixel_size_um
    if size is None:
        assert "spatial_um" not in data.obsm
    else:
        assert np.array_equal(data.obsm["spatial_um"][:, 0], result.table["centroid_x_um"])
        assert data.uns["cellseg"]["pixel_size_um"] == size
    data.write_h5ad(tmp_path / "cells.h5ad")
    again = anndata.read_h5ad(tmp_path / "cells.h5ad")
    assert np.array_equal(again.X, data.X)
    assert again.uns["cellseg"]["model"] == result.record.model.name


@pytest.mark.parametrize("beside", [True, False])
def test_words_are_categories_and_a_cell_may_have_none(beside, tmp_path):
    """The centre of a bent strip lies beside it, in no region."""
    anndata = pytest.importorskip("anndata")
    hook = [[10, 10], [30, 10], [30, 30], [28, 30], [28, 12], [10, 12]]
    square = [[35, 35], [60, 35], [60, 60], [35, 60]]
    drawn = [np.array(hook), *([] if beside else [np.array(square)])]
    with LocalEngine(local_spec(1), 1) as engine:
        result = segment(np.full((64, 64), 250, np.uint8), engine, roi=drawn, levels=(0, 255))
    data = result.to_anndata()
    assert data.obs["roi"].dtype == "category"
    data.write_h5ad(tmp_path / "cells.h5ad")
    found = anndata.read_h5ad(tmp_path / "cells.h5ad").obs["roi"]
    assert found.isna().tolist() == [name is None for name in result.table["roi"]]
    assert found.dropna().tolist() == ([] if beside else ["region 2"])


def test_no_cells():
    pytest.importorskip("geopandas")
    pytest.importorskip("anndata")
    with LocalEngine(local_spec(1), 1) as engine:
        result = segment(np.zeros((20, 30), np.uint8), engine)
    assert result.to_pandas().empty
    assert result.to_geopandas().empty
    assert result.to_anndata().shape[0] == 0


@pytest.mark.parametrize("name", ["pandas", "geopandas", "anndata", "spatialdata"])
def test_what_is_missing_is_named(name, monkeypatch):
    for module in [each for each in sys.modules if each.partition(".")[0] == name]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match=rf"to_x\(\) needs {name}; pip install 'cellseg\[spatial\]'"):
        tables.library(name, "to_x")


def test_nothing_of_it_is_imported_before_it_is_asked_for():
    code = """
import sys
import numpy as np
from cellseg.runtime import segment
from cellseg.runtime.testing.local_engine import LocalEngine, local_spec
with LocalEngine(local_spec(1), 1) as engine:
    segment(np.zeros((20, 30), np.uint8), engine).table
print({"pandas", "geopandas", "anndata", "spatialdata", "shapely", "dask"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
